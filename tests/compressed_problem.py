"""A convex problem with compressed messages: softmax regression on random pixels, by a Trainer and by numpy."""

import numpy as np
from synthetic import source

from mpiconsensus import config
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

SHAPE, CLASSES, EACH, RATE, SEED = (1, 4, 4), 3, 24, 0.3, 1
D = CLASSES * (16 + 1)


def trainer(name, operator="top-k:0.2", graph="ring:5", world=None, n=5, model="logistic", **changes):
    """Return a Trainer of n vertices whose batches are whole shards."""
    values = {
        "topology.graph": graph, "algorithm.name": name, "model.name": model, "training.precision": "float64", "training.batch_size": 64,
        "training.lr": RATE, "training.momentum": 0.0, "training.weight_decay": 0.0, "training.epochs": 10**6, "training.seed": SEED,
        "compression.operator": operator, **{name.replace("__", ".", 1): v for name, v in changes.items()},
    }  # fmt: skip
    job = config.Job({name: config.check(config.find(name), value) for name, value in values.items()})
    world = world or World()
    return Trainer(job, world, wire(job.topology, world), source(n, SHAPE, CLASSES, EACH))


def points(t):
    """Return the parameters of the hosted vertices, (m, d) float64, tensor after tensor."""
    return np.array([np.concatenate([p.detach().double().numpy().ravel() for p in module.parameters()]) for module in t.block.modules])


class Problem:
    """f_i(x): the mean cross entropy of vertex i's samples, x the (classes, 16) weights row by row, then the biases."""

    def __init__(self, n):
        self.n, self.samples = n, []
        data = source(n, SHAPE, CLASSES, EACH)
        for vertex in range(n):
            shard = data.load(vertex)
            pixels = (shard.x.reshape(len(shard.y), -1) / 255 - 0.5) / 0.25
            self.samples.append((np.hstack([pixels, np.ones((len(pixels), 1))]), np.eye(CLASSES)[shard.y]))

    def loss(self, x):
        """Return f_i at the same point x (d,) for every i, (n,)."""
        return np.array([-(y * np.log(self._shares(a, x))).sum(axis=1).mean() for a, y in self.samples])

    def gradients(self, x):
        """Return the (n, d) gradients of each vertex at its own row of x (n, d)."""
        found = []
        for (a, y), row in zip(self.samples, x, strict=True):
            slope = (self._shares(a, row) - y).T @ a / len(a)
            found.append(np.concatenate([slope[:, :-1].ravel(), slope[:, -1]]))
        return np.array(found)

    def smoothness(self):
        """Return (L of the mean, sqrt(mean L_i^2)): diag(p) - p p' is at most 1/2, Bohning 1992."""
        grams = [a.T @ a / len(a) for a, _ in self.samples]
        each = [np.linalg.eigvalsh(gram)[-1] / 2 for gram in grams]
        return np.linalg.eigvalsh(sum(grams) / self.n)[-1] / 2, np.sqrt(np.mean(np.square(each)))

    @staticmethod
    def _shares(a, x):
        matrix = np.column_stack([x[: -CLASSES].reshape(CLASSES, -1), x[-CLASSES:]])
        z = a @ matrix.T
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)
