"""What an algorithm with compressed messages is: what goes into a message, and what comes of those of others.

Vectors hold the trained parameters of a replica one after the other, without the padding of its row: (d,) numpy arrays.
C is the compressor, c_i = C(v_i) what arrives of vertex i. Every rank calls the same methods in the same order; what is
one for the network (`common`) is the same, to the bit, on all of them.
"""

from abc import abstractmethod

import numpy as np

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.compress import WEIGHTED, parse
from mpiconsensus.errors import UserError

IMPORTANCE = ("importance_steps", "importance_eta", "importance_scale", "importance_bounds")  # of the operators that choose by it


class Compressed(Algorithm):
    """needs: "unbiased" where C must be; "contractive" where an unbiased C is divided by its zeta; "any".

    settings: the keys of [compression] that mean something here. own: names of the (m, d) arrays of the hosted vertices,
    common: names of the (d,) arrays that all ranks have alike; both are the state that a checkpoint keeps.
    """

    compressed = True
    needs = "any"
    independent = False  # whether its step size needs vertices that draw independently
    settings = ("operator", "scope", "supports")
    own = common = ()
    whole_shards = False  # needs gradients of whole shards

    def __init__(self, setting):
        super().__init__(setting)
        self.options = setting.compression
        kind = parse(self.options.operator)[0]
        if kind in WEIGHTED:
            self.settings = (*self.settings, *IMPORTANCE, *(["importance_normalised"] if hasattr(kind, "normalised") else []))
        if set(self.train_every) != {1}:
            raise UserError(
                f"algorithm.name = {self.name} needs equal powers and algorithm.train_every = 1: every vertex sends what changed at every step. "
                "For unequal vertices take algorithm.name = consensus."
            )

    def check(self, codec):
        """Raise UserError where the method cannot do with a compressor."""
        if self.needs == "unbiased" and not codec.unbiased:
            raise UserError(
                f"algorithm.name = {self.name} needs an unbiased compressor, compression.operator = {self.options.operator} is not; "
                "take rand-k-unbiased, natural, qsgd, or algorithm.name = ef21."
            )

    def open(self, codec, hosted, dtype):
        """Make the state of the vertices `hosted`; codec: one of the vertices' compressors, which are alike."""
        self.check(codec)
        self.hosted, self.codec = hosted, codec
        self.factor = codec.scale if self.needs == "contractive" and codec.unbiased else 1.0
        for name in self.own:
            setattr(self, name, np.zeros((len(hosted), codec.count), dtype))
        for name in self.common:
            setattr(self, name, np.zeros(codec.count, dtype))

    def state_dict(self, i):
        """Return the arrays of hosted vertex i."""
        return {name: getattr(self, name)[i] for name in self.own}

    def load_state_dict(self, i, state):
        for name in self.own:
            getattr(self, name)[i] = state[name]

    def rate(self, smoothness, n):
        """Return the step size of theory; smoothness: (L of the mean of the losses, sqrt of the mean square of each one's)."""
        raise UserError(
            f"compression.multiple = {self.options.multiple:g} scales the step size of theory, and {self.name} has none here; "
            "take compression.multiple = 0 and training.lr."
        )

    @property
    def draws_alike(self):
        """Whether all vertices draw the same support where the compressor draws one."""
        return self.options.supports == "shared" or (self.options.supports == "auto" and not self.independent)

    def averaging(self, n):
        """Return how many independent errors a mean over n vertices averages: 1 where all draw alike."""
        return 1 if self.draws_alike and self.codec.shared and self.codec.draws else n

    def contraction(self, asked="", instead="compression.multiple = 0 and training.lr"):
        """Return alpha of the compressor; UserError where none holds for all vectors, with what needs it and what to take instead."""
        alpha, bounds = self.codec.alpha, self.options.importance_bounds
        if alpha is not None and "importance" in self.options.operator:
            # Weights change; what holds for all of them are their bounds.
            alpha = alpha * (bounds[0] / bounds[1]) ** 2 if bounds else None
        if alpha is None:
            raise UserError(
                f"{asked or f'compression.multiple = {self.options.multiple:g}'} needs the compressor's constant, and "
                f"{self.options.operator} has none that holds for all vectors; take {instead}."
            )
        return alpha


class AmongAll(Compressed):
    """Every vertex's message reaches all, whose replicas stay equal: what a server does each rank does by itself.

    collects: the name of a common array that the mean of all c_j is added to, and that is the direction; None where
    `received` says what comes of the mean.
    """

    averages_gradients = True
    reach = "all"
    collects = None

    def rounds(self, k):
        return ()

    def dense(self, k):
        """Return whether the gradients of step k are averaged as they are."""
        return False

    def uncompressed(self, i, gradient):
        """Take note of a gradient of hosted vertex i that was averaged as it is."""

    @abstractmethod
    def outgoing(self, i, gradient, rate):
        """Make of the gradient of hosted vertex i, in place, the vector that is compressed."""

    def learns(self, i):
        """Return [(array, factor)]: what c_i times the factor is added to at hosted vertex i."""
        return []

    def left(self, i, rest):
        """Take note of what the message of hosted vertex i left out, v_i - c_i."""

    def received(self, mean, rate):
        """Take the mean of all c_j and return the direction that all replicas go along; `mean` may be changed."""
        return mean


class OnGraph(Compressed):
    """Messages go to the neighbours; x_i moves towards what they said of theirs.

    A vertex keeps what all know of it and the weighted sum of what it knows of its neighbours, not each of them.
    """

    reach = "neighbours"
    parts = ("x",)  # messages of a step
    settings = (*Compressed.settings, "gamma")
    needs = "contractive"

    def __init__(self, setting):
        super().__init__(setting)
        if setting.varying or setting.directed:
            raise UserError(
                f"algorithm.name = {self.name} is for an undirected graph that stays: a vertex adds to what it knows of its neighbours; "
                "take algorithm.name = push-sum, or another topology.graph."
            )
        self.w = {i: dict(zip(js.tolist(), ws.tolist(), strict=True)) for i, (js, ws) in enumerate(setting.rows)}
        columns, rows = np.zeros(self.n), np.zeros(self.n)
        for i, (js, ws) in enumerate(setting.rows):
            np.add.at(columns, js, ws)
            rows[i] = ws.sum()
        worst = max(np.abs(columns - 1).max(), np.abs(rows - 1).max())
        if worst > 1e-9:
            raise UserError(
                f"algorithm.name = {self.name} needs weights whose rows and columns sum to 1, these are off by {worst:.3g}: the mean would drift; "
                "take topology.weights = metropolis."
            )

    def rounds(self, k):
        return ()

    def open(self, codec, hosted, dtype):
        super().open(codec, hosted, dtype)
        self.gamma = self.options.gamma or self.contraction_step()

    def contraction_step(self):
        """Return the step size of gossip that is proven to contract: Koloskova, Stich & Jaggi 2019, theorem 2."""
        w = np.zeros((self.n, self.n))
        for i, row in self.w.items():
            w[i, list(row)] = list(row.values())
        values = np.sort(np.linalg.eigvalsh((w + w.T) / 2))
        rho = 1 - max(abs(values[0]), abs(values[-2])) if self.n > 1 else 1.0
        beta = 1 - values[0]
        delta = self.contraction("compression.gamma = 0, the proven step of the gossip,", "compression.gamma above 0, such as 0.1")
        return rho**2 * delta / (16 * rho + rho**2 + 4 * beta**2 + 2 * rho * beta**2 - 8 * rho * delta)
