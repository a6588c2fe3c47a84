"""Run under mpirun: train six vertices with each way of shuffling and write to argv[1] what each vertex ends with.

argv[2]: JSON, the rank of each vertex; a list of zeros runs in one process. Of each case and vertex: the parameters, the
ids of its samples before every epoch, its bytes an epoch, and whether its rows are those of their ids.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from synthetic import source

from mpiconsensus import config, placement
from mpiconsensus.data.shards import Shard
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

N = 6
CASES = {
    "local": {},
    "partial": {"data.shuffle": "partial", "data.exchange_fraction": 0.3},
    "everything": {"data.shuffle": "partial", "data.exchange_fraction": 1.0, "evaluation.validation_fraction": 0.2},
    "neighbors": {"data.shuffle": "neighbors", "data.exchange_fraction": 0.5},
    "global": {"data.shuffle": "global"},
    "features": {"data.shuffle": "partial", "data.exchange_fraction": 0.5, "model.name": "logistic"},
}


def named(features):
    """Return the synthetic source with ids of its own for every sample, and rows by id."""
    made = source(N, each=30)
    plain, rows = made.load, {}

    def load(vertex):
        shard = plain(vertex)
        x = shard.x.reshape(len(shard.y), -1).astype(np.float32) if features else shard.x
        ids = 1000 * vertex + np.arange(len(shard.y))
        rows.update(zip(ids.tolist(), zip(x.copy(), shard.y.tolist())))
        return Shard(x, shard.y, ids)

    made.partition, made.load = "iid", load
    if features:
        made.shape, made.scale, made.sample_bytes = (64,), 1.0, 64 * 4
        made.mean, made.std = np.full(64, 127.0, np.float32), np.full(64, 70.0, np.float32)
    return made, load, rows


def main(out, owners):
    torch.set_num_threads(1)
    world, owners = World.start(), np.array(json.loads(owners))
    placement.assign = lambda *of_graph: (owners, "given")
    for name, keys in CASES.items():
        values = {"topology.graph": f"circulant:{N},2", "training.batch_size": 7, "training.epochs": 4, "model.name": "digits-cnn", **keys}
        job = config.Job({key: config.check(config.find(key), value) for key, value in values.items()})
        data, load, rows = named(name == "features")
        trainer = Trainer(job, world, wire(job.topology, world), data)
        ids, sent = [], []
        for k in range(trainer.total_steps):
            trainer.step()
            if k % trainer.steps_per_epoch == 0:
                ids.append([loader.shard.id.copy() for loader in trainer.loaders])
            if (k + 1) % trainer.steps_per_epoch == 0:
                sent.append(trainer.samples.take())
        for v in range(N):
            load(v)  # the rows of all, to compare with
        for i, vertex in enumerate(trainer.hosted):
            shard = trainer.loaders[i].shard
            right = all(np.array_equal(x, rows[k][0]) and y == rows[k][1] for x, y, k in zip(*map(list, shard)))
            np.savez(
                Path(out) / f"{name}-{vertex}.npz",
                row=trainer.block.x(i).numpy(), ids=[epoch[i] for epoch in ids], sent=[s[i] for s, _ in sent], wire=[w[i] for _, w in sent],
                right=right, held_out=trainer.held_out[i].id, record=np.int64(trainer.samples.record.itemsize if name != "local" else 0),
            )  # fmt: skip
        trainer.close()


main(*sys.argv[1:3])
