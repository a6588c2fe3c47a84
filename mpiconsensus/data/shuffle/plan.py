"""Who holds which sample in which epoch: pure functions of (seed, epoch) that every rank evaluates alike, with no message.

global      a fresh uniform division of all samples in every epoch, the first one too
partial     at the end of each epoch vertex i gives q_i = floor(Q N_i) samples, drawn without replacement, and takes q_i of
            those that all have given, which are permuted uniformly
neighbors   the same over the edges of the graph: over an edge as many samples go one way as the other, at most q_i from a
            vertex in all

A sample that has moved stays where it came to, as in the paper. Stored at most: N_i samples and the q_i that arrive,
(1 + Q) N_i; global 2 N_i. Of what a vertex gives, as many places are filled again: sizes never change, in the uneven case
neither.
Differs from the paper in: one permutation of all that is given, where the paper draws one of the vertices for each of the
Q N/M samples that each gives; what is drawn for its own vertex stays in both. So unequal q_i balance, and Q = 1 is a
uniform division of everything.
Reference: Nguyen et al., Why Globally Re-shuffle? Revisiting Data Shuffling in Large Scale Deep Learning, IPDPS 2022.

Array legend: n vertices, N_i training samples of vertex i, N their sum, E edges. Slots 0..N-1 are places for samples, those of
vertex i behind those of i - 1; a sample is named by the slot that it stands in where its shard lies on the disk.
"""

from fractions import Fraction

import numpy as np

from mpiconsensus.randomness import generator

MODES = ("local", "global", "partial", "neighbors")


class Shuffling:
    """The plan of a run. mode: one of MODES but local; sizes (n,): N_i; fraction: Q; edges (E, 2): of neighbors.

    offered: (n,) samples that a vertex gives at the end of an epoch, at most. vertex_of: (N,) vertex of a slot. first: (n,)
    its lowest slot.
    """

    def __init__(self, mode, sizes, fraction, seed, edges=None):
        self.mode, self.fraction, self.seed, self.edges = mode, fraction, seed, edges
        self.sizes = np.asarray(sizes, np.int64)
        self.offered = self.sizes if mode == "global" else offered(self.sizes, fraction)
        self.vertex_of = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self.first = np.cumsum(self.sizes) - self.sizes

    def describe(self):
        """Return the way of shuffling in words."""
        return self.mode if self.mode == "global" else f"{self.mode}, Q = {self.fraction:g}"

    def arrivals(self, epoch):
        """Return (N,) int64: the slot of `epoch` (from 0) whose sample stands in each slot in the epoch behind it."""
        if self.mode == "global":
            return inverse(self.holding(epoch))[self.holding(epoch + 1)]
        random = generator(self.seed, "exchange", step=epoch)
        source = np.arange(len(self.vertex_of))
        if self.mode == "partial":
            given = self._drawn(self.offered, random)
            source[given] = random.permutation(given)
            return source
        counts = along_edges(self.edges, self.offered, random)
        ends = np.bincount(self.edges.ravel(), np.repeat(counts, 2), len(self.sizes)).astype(np.int64)
        one, other = self._over_edges(self._drawn(ends, random), counts)
        source[one], source[other] = other, one
        return source

    def holding(self, epoch):
        """Return (N,) int64: the sample in each slot during `epoch`, from 0."""
        if self.mode == "global":
            return generator(self.seed, "division", step=epoch).permutation(len(self.vertex_of))
        held = np.arange(len(self.vertex_of))
        for earlier in range(epoch):
            held = held[self.arrivals(earlier)]
        return held

    def between(self, epoch, later):
        """Return (N,) int64: the slot of `epoch`, None for the shards on the disk, whose sample stands in each slot in `later`."""
        held = self.holding(later)
        return held if epoch is None else inverse(self.holding(epoch))[held]

    def _drawn(self, counts, random):
        """Return counts[i] random slots of each vertex i, in the order of the vertices."""
        sizes, first = self.sizes.tolist(), self.first.tolist()
        return np.concatenate([at + random.permutation(size)[:count] for at, size, count in zip(first, sizes, counts.tolist())])

    def _over_edges(self, given, counts):
        """Return (slots at the first ends, slots at the second ends), pairs that change places; `given` as _drawn gives it."""
        ends, edge, second = self.edges.T.ravel(), np.tile(np.arange(len(counts)), 2), np.repeat([False, True], len(counts))
        order = np.lexsort((edge, ends))
        lengths = counts[edge[order]]
        edge, second = np.repeat(edge[order], lengths), np.repeat(second[order], lengths)
        return tuple(given[side][np.argsort(edge[side], kind="stable")] for side in (~second, second))


def offered(sizes, fraction):
    """Return floor(Q N_i), (n,) int64; Q is taken as the decimal number that it is written as, so that 0.29 of 100 is 29."""
    exact = Fraction(repr(float(fraction)))
    return np.array([size * exact.numerator // exact.denominator for size in np.asarray(sizes).tolist()], np.int64)


def inverse(permutation):
    """Return the inverse of a permutation of 0..N-1."""
    found = np.empty_like(permutation)
    found[permutation] = np.arange(len(permutation))
    return found


def along_edges(edges, budget, random):
    """Return how many samples go over each edge, one way as the other: (E,) int64, summing to at most budget[i] at vertex i.

    Vertices share out what they have left evenly over the edges whose other end has something left, an edge takes the
    lesser share; remainders go sample by sample, over the edges in random order. At the end no edge has budget left at
    both of its ends.
    """
    left, counts = budget.copy(), np.zeros(len(edges), np.int64)
    while True:
        alive = np.flatnonzero((left[edges] > 0).all(axis=1))
        if not len(alive):
            return counts
        ends = edges[alive]
        share = (left // np.maximum(1, np.bincount(ends.ravel(), minlength=len(left))))[ends].min(axis=1)
        if not share.any():
            share = np.zeros(len(alive), np.int64)
            spare = left.tolist()
            for k in random.permutation(len(alive)).tolist():
                i, j = ends[k].tolist()
                if spare[i] and spare[j]:
                    share[k] = 1
                    spare[i] -= 1
                    spare[j] -= 1
        counts[alive] += share
        np.subtract.at(left, ends, share[:, None])
