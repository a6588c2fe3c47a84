"""Make the small runs that the tests of tables, figures and timelines read: `python small_runs.py DIRECTORY`.

A fork a run: torch is loaded once.
"""

import os
import sys

JOB = ["model.name=logistic", "training.epochs=3", "training.batch_size=32", "evaluation.every=1", "training.decay=none"]
RUNS = {
    "periods/q1-s1": ["topology.graph=ring:4"],
    "periods/q1-s2": ["topology.graph=ring:4", "training.seed=2"],
    "periods/q4-s1": ["topology.graph=ring:4", "algorithm.period=4"],
    "periods/q4-s2": ["topology.graph=ring:4", "algorithm.period=4", "training.seed=2"],
    "complete": ["topology.graph=complete:4"],
    "cta": ["topology.graph=ring:4", "algorithm.order=cta"],
    "gossip": ["topology.graph=ring:4", "algorithm.name=gossip"],
    "single": ["topology.graph=ring:1", "training.batch_size=128"],
    "shuffle/partial": ["topology.graph=ring:4", "data.shuffle=partial", "data.exchange_fraction=0.3"],
    "shuffle/global": ["topology.graph=ring:4", "data.shuffle=global"],
    "stale/s0": ["topology.graph=ring:4", "algorithm.name=bounded-staleness", "algorithm.staleness=0", *(SLOW := ["hetero.clock=virtual", "hetero.slowdown_probability=0.3"])],
    "stale/s2": ["topology.graph=ring:4", "algorithm.name=bounded-staleness", "algorithm.staleness=2", *SLOW],
    "stale/inf": ["topology.graph=ring:4", "algorithm.name=bounded-staleness", "algorithm.staleness=inf", *SLOW],
    "compressed": ["topology.graph=ring:4", "algorithm.name=ef21", "compression.operator=top-k:10", "log.gradient_norm=true"],
    "mushrooms": ["topology.graph=ring:4", "data.dataset=mushrooms", "training.max_steps=3"],
}


def main(where):
    import torch

    import mpiconsensus.cli
    import mpiconsensus.cli.train
    import mpiconsensus.run
    import mpiconsensus.topology

    torch.set_num_threads(1)
    for name, keys in RUNS.items():
        if not (child := os.fork()):
            words = [word for key in [*JOB, *keys] for word in ("--set", key)]
            sys.argv = ["mpiconsensus", "train", "--out", os.path.join(where, name), *words]
            mpiconsensus.cli.main()
        assert os.waitpid(child, 0)[1] == 0, name


if __name__ == "__main__":
    main(sys.argv[1])
