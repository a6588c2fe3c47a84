"""Runs of asynchronous algorithms under the virtual clock, small enough for tests: a Trainer's replicas on a virtual transport."""

import numpy as np
from synthetic import source

from mpiconsensus import config
from mpiconsensus.asynchronous.virtual import VirtualEngine
from mpiconsensus.hetero import Pace
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.transport.mailbox.virtual import VirtualMailbox, VirtualPairs
from mpiconsensus.wiring import wire

CLASSES = 3
BASE = {
    "topology.graph": "ring:6", "model.name": "logistic", "training.precision": "float64", "training.batch_size": 8, "training.lr": 0.3,
    "training.momentum": 0.0, "training.weight_decay": 0.0, "training.epochs": 1000, "training.init": "independent", "hetero.step_s": 1.0,
    "training.concurrency": "serial",
}  # fmt: skip


def job(**changes):
    values = {**BASE, **{name.replace("__", ".", 1): value for name, value in changes.items()}}
    return config.Job({name: config.check(config.find(name), value) for name, value in values.items()})


def trainer(data=None, shape=(1, 3, 3), **changes):
    made, world = job(**changes), World()
    wiring = wire(made.topology, world)
    return Trainer(made, world, wiring, data or source(wiring.n, shape, CLASSES))


def rows(t):
    """Return the (n, p) float64 parameters: weights, then biases."""
    return np.stack([np.concatenate([p.detach().double().numpy().ravel() for p in m.parameters()]) for m in t.block.modules])


class Run:
    """A run of `steps` steps a vertex, ready to `run()`. history: the Steps, in the order in which they ended.

    gradients: [(loss, ...)] for [(i, t)], in place of the Trainer's. loss: probability that a message is lost.
    """

    def __init__(self, steps, gradients=None, loss=0.0, stops=None, mailbox=VirtualMailbox, **changes):
        self.t = trainer(**changes)
        self.job, self.algorithm, self.block = self.t.job, self.t.algorithm, self.t.block
        self.pace = Pace(self.job.hetero, self.t.wiring.n, self.job.training.seed)
        needs = self.algorithm.needs(self.block.d, self.block.layout.dtype)
        self.history = []
        if needs.kind == "pairs":
            self.transport = VirtualPairs(self.t.world, self.t.placement, needs.d, needs.dtype, delay=self.pace.delay)
        else:
            readers = {v: adjacent for v, adjacent in enumerate(self.algorithm.adjacent)}
            self.transport = mailbox(
                self.t.world, self.t.placement, needs.d, needs.dtype, readers=readers, delay=self.pace.delay, loss=loss, seed=3
            )  # fmt: skip
        if needs.in_block:
            self.transport.bind(self.block)
        self.algorithm.open(self.transport, self.block, self.t.placement)
        if gradients:
            self.gradients = gradients
        self.engine = VirtualEngine(
            self.algorithm, self.transport, self, self.pace, steps, self.job.hetero.step_s, self.history.append,
            self.job.algorithm.ends, stops,
        )  # fmt: skip

    def run(self):
        self.engine.run()
        return self

    def gradients(self, pairs):
        return self.t.concurrency.gradients([i for i, _ in pairs], [k for _, k in pairs])

    def update(self, i, k):
        self.t.optimizers.step(i, self.t.rate(k) * self.algorithm.pace(k, i))

    @property
    def ages(self):
        return [age for step in self.history for age in step.ages]


def still(pairs):
    """No gradients: the rows move by mixing alone."""
    return [(0.0,)] * len(pairs)
