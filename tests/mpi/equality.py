"""Run under mpirun: train 8 vertices with every algorithm and write each vertex's parameters to argv[1]/HOW, for each HOW of argv[2:].

"auto": the transport is what auto picks; "network": neighbor; "staged": neighbor through host copies; "nodes": what auto picks where
ranks of even and odd number do not share memory. "scrambled" and "scrambled network": four ranks
that host 4, 1, 2 and 1 vertices, hardly two of them next to each other, on such nodes or by transport neighbor.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from synthetic import source

from mpiconsensus import config, placement, transport
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

N = 8
SCRAMBLED = [2, 0, 1, 0, 3, 0, 2, 0]
OF_SCRAMBLED = ["digits overlap", "digits atc", "digits delay", "digits gossip", "digits local-sgd", "digits allreduce"]
UNEVEN = {"algorithm.period": [1, 2, 1, 3, 1, 2, 1, 1], "algorithm.train_every": [1, 1, 2, 1, 1, 2, 1, 1]}
DIGITS = {"model.name": "digits-cnn", "training.max_steps": 16}  # more than three epochs
RESNET = {"model.name": "resnet20", "training.max_steps": 4}
OF_RESNET = ["cta", "dpsgd", "local-sgd", "allreduce"]  # the orders, both kinds of average, mixed momentum and buffers
CASES = {
    "atc": {},
    "cta": {"algorithm.order": "cta", "algorithm.rounds": 2},
    "dpsgd": {"algorithm.order": "dpsgd", "training.momentum_policy": "mixed"},
    "delay": {"algorithm.delay": 1},
    "mutual": UNEVEN,
    "thesis": {**UNEVEN, "algorithm.mix": "thesis"},
    "gossip": {"algorithm.name": "gossip", "algorithm.pairs": 5, "training.momentum_policy": "reset"},
    "local-sgd": {"algorithm.name": "local-sgd", "algorithm.tau": 3, "model.buffers": "mixed"},
    "one-shot": {"algorithm.name": "one-shot"},
    "allreduce": {"algorithm.name": "allreduce", "training.clip": 1.0},
}
DIGITS_ONLY = {
    # The centre of a star sends to seven: its push-sum weight, and its rows, are not those of the others.
    "push-sum": {"topology.graph": f"star:{N}", "topology.weights": "push-sum", "algorithm.name": "push-sum"},
    "overlap": {
        "topology.graph": f"star:{N}", "topology.weights": "push-sum", "algorithm.name": "push-sum", "algorithm.delay": 1
    },
    "overlap one-peer": {
        "topology.graph": f"one-peer-exponential:{N}", "topology.weights": "push-sum", "algorithm.name": "push-sum", "algorithm.delay": 1,
    },
    "one-peer": {"topology.graph": f"one-peer-exponential:{N}"},
    "matchings": {"topology.graph": f"matchings:complete:{N}", "algorithm.rounds": 2},
    "delay uneven": {**UNEVEN, "algorithm.delay": 1},
    "buffers mixed": {"model.buffers": "mixed", "algorithm.order": "dpsgd"},
    "buffers reset": {"model.buffers": "reset", "algorithm.period": 5},
    "adam mixed": {"training.optimizer": "adam", "training.lr": 0.001, "training.momentum_policy": "mixed"},
    "torch": {"training.arithmetic": "torch", "training.momentum_policy": "mixed", "algorithm.order": "dpsgd", "algorithm.period": 2},
    "independent": {"training.init": "independent", "algorithm.name": "gossip", "algorithm.order": "dpsgd", "algorithm.pairs": 3},
}


def main(out, *hows):
    world = World.start()
    torch.set_num_threads(1)
    digits, images = source(N, each=20), source(N, (3, 32, 32), each=20, augment="crop-flip")
    jobs = [(f"digits {name}", {**DIGITS, **case}, digits) for name, case in {**CASES, **DIGITS_ONLY}.items()]
    # The wide rows of this one are summed in several pieces.
    jobs.append(("fashion dpsgd", {"model.name": "fashion-cnn", "algorithm.order": "dpsgd", "training.max_steps": 5}, source(N, (1, 28, 28))))
    resnets = [(f"resnet {name}", {**RESNET, **CASES[name]}, images) for name in OF_RESNET]
    by_name, assign = dict(transport.BY_NAME), placement.assign
    apart = World(world.comm, world.comm.Split(world.rank % 2)) if world.comm else None
    for how in hows:
        transport.BY_NAME.update(by_name, neighbor=partial(by_name["neighbor"], staged=True) if how == "staged" else by_name["neighbor"])
        placement.assign = (lambda *of_graph: (np.array(SCRAMBLED), "scrambled")) if how.startswith("scrambled") else assign
        folder = Path(out) / how
        folder.mkdir(exist_ok=True)
        for name, case, data in jobs + resnets * (how == "auto"):
            if not how.startswith("scrambled") or name in OF_SCRAMBLED:
                train(apart if how in ("nodes", "scrambled") else world, how, folder / name, case, data)


def train(world, how, path, case, data):
    """Train one case and write PATH-VERTEX.npy of the hosted vertices."""
    values = {"topology.graph": f"circulant:{N},3", "training.batch_size": 4, "training.epochs": 40, "training.lr": 0.02, **case}
    if how in ("network", "staged", "scrambled network"):
        values["transport.name"] = "neighbor"
    job = config.Job({key: config.check(config.find(key), value) for key, value in values.items()})
    trainer = Trainer(job, world, wire(job.topology, world), data)
    if how.startswith("scrambled"):
        assert trainer.hosted == [v for v, rank in enumerate(SCRAMBLED) if rank == world.rank]
        assert trainer.exchange.name == ("shared" if how == "scrambled" else "neighbor")
    assert (getattr(trainer.exchange, "_staging", None) is not None) == (how == "staged")
    while trainer.k < trainer.total_steps:
        trainer.step()
    trainer.stepper.settle()
    for i, vertex in enumerate(trainer.hosted):
        state = trainer.block.modules[i].state_dict()
        np.save(f"{path}-{vertex}.npy", np.concatenate([t.double().numpy().ravel() for t in state.values()]))
    trainer.close()


main(*sys.argv[1:])
