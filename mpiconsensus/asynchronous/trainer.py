"""The replicas of a rank in an asynchronous run: each has a step of its own, and publishes where others read."""

import time

import numpy as np

from mpiconsensus.block import Block
from mpiconsensus.errors import UserError
from mpiconsensus.training import Trainer


class AsyncTrainer(Trainer):
    """m hosted replicas that take their steps apart from each other.

    t: the steps that each has taken. held: (loss, io_s, compute_s) of the gradient of one that waits to mix, else None.
    ended: whether it takes no further step.

    postal: opens what the algorithm exchanges through, see postal.Real and postal.Virtual.
    """

    def __init__(self, job, world, wiring, source, placement, postal):
        self.postal = postal
        _refuse(job)
        super().__init__(job, world, wiring, source, placement)
        m = len(self.hosted)
        self.t, self.held, self.ended, self._states = [0] * m, [None] * m, [False] * m, {}

    def _open_block(self, layout, modules, d):
        self.block = Block(layout, modules, self.postal.open(self, d, layout.dtype))

    def _make_steps(self):
        """Make nothing: steps are the engine's."""

    def start(self):
        """Publish the first rows, or those of the state that was loaded; collective."""
        self.postal.start(self, self._states)

    @property
    def k(self):
        """The steps that every hosted vertex has taken."""
        return min(self.t)

    @property
    def transport(self):
        return self.postal.title

    def gradient(self, i):
        """Draw the next batch of hosted vertex i and write its gradient; return (loss, io_s, compute_s)."""
        return self.concurrency.gradients([i], self.t[i])[0]

    def update(self, i):
        """Take the optimizer's step of hosted vertex i with the gradient that is there; return the seconds."""
        start, t = time.perf_counter(), self.t[i]
        self.clip([i])
        self.optimizers.step(i, self.rate_of(i, t))
        return time.perf_counter() - start

    def rate_of(self, i, t):
        """Return the learning rate of hosted vertex i at step t, as its optimizer takes it."""
        return self.rate(t) * self.algorithm.pace(t, self.hosted[i])

    def average(self):
        """Give every vertex the average of all; collective."""
        mean = self.mean_row()
        for i in range(self.block.m):
            self.block.x(i).copy_(mean)

    def spread(self):
        """Return the consensus distance ||X - x_bar||_F / sqrt(n) of the parameters, on every rank; collective."""
        p = self.block.p
        mean = self.mean_row()[:p]
        squares = [float((self.block.parameters(i) - mean).double().square().sum()) for i in range(self.block.m)]
        return float(np.sqrt(self.world.sum(np.array([sum(squares)]))[0] / self.placement.n))

    def state_dict(self):
        states = {}
        for i, vertex in enumerate(self.hosted):
            states[vertex] = {**self._state(i), "t": self.t[i], "held": self.held[i] and list(self.held[i]), "algorithm": self.algorithm.state_dict(i)}
        return {"step": self.k, "vertices": states}

    def load_state_dict(self, state):
        for i, vertex in enumerate(self.hosted):
            mine = state["vertices"][vertex]
            self._load_state(i, mine)
            self.t[i], self.held[i], self._states[i] = int(mine["t"]), mine["held"] and tuple(mine["held"]), mine["algorithm"]

    def close(self):
        self.reader.close()
        self.samples.close()
        self.block.release()
        self.postal.close()


def _refuse(job):
    name = job.algorithm.name
    if job.data.shuffle != "local":
        raise UserError(f"data.shuffle = {job.data.shuffle}: samples change vertices between epochs of all, and {name} has none; take local.")
    if job.training.momentum_policy != "local":
        raise UserError(f"training.momentum_policy = {job.training.momentum_policy}: {name} mixes parameters alone; take local.")
    if job.log.gradient_norm:
        raise UserError(f"log.gradient_norm = true: the vertices of {name} have no step in common, so no mean gradient; take false.")
    if job.model.buffers != "local":
        raise UserError(f"model.buffers = {job.model.buffers}: {name} mixes parameters alone; take local, or model.norm = group.")
