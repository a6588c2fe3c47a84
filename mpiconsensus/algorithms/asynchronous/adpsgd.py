"""Asynchronous decentralised parallel SGD: atomic averages of pairs while gradients are computed.

    s_i   <- x_i                                             the snapshot that vertex i takes its gradient at
    x_i, x_j <- (x_i + x_j) / 2                              j a random neighbour, both rows locked
    x_i   <- x_i + (local update of s_i - s_i)               under the same locks

While i computes, others average with x_i; its gradient belongs to the snapshot. The neighbour of step t is drawn from (seed, vertex,
t), uniformly. Rows are locked in ascending order of their vertices, so that no cycle of waiting vertices can form: no deadlock
on any graph, bipartite or not.

Sends: a row over one edge, both ways, a step.  State: the row that others average with, beside the snapshot.
Assumes: a connected graph without arcs; W is not used.
Conserves: sum_i x_i between gradients, to rounding.
Differs from the paper in: pairs are free, where the paper takes a bipartite graph to avoid deadlocks; the average is taken behind the
gradient by the vertex itself, not beside it by a thread of its own, so what is averaged is as new as it can be.
Reference: Lian, Zhang, Zhang & Liu, Asynchronous decentralized parallel stochastic gradient descent, ICML 2018, algorithm 1.
"""

import time

import torch

from mpiconsensus.algorithms.asynchronous.base import Asynchronous, Needs
from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator


class AdPsgd(Asynchronous):
    name = "adpsgd"
    formula = "x_i, x_j <- (x_i + x_j) / 2 for a random neighbour j, then x_i <- x_i - a g_i(the row as it was ahead of the gradient)"
    reference = "Lian, Zhang, Zhang & Liu 2018"
    keys = ("ends", "final_average")
    conserves = "the sum of the rows, between gradients"

    def __init__(self, setting):
        super().__init__(setting)
        if setting.directed:
            raise UserError("algorithm.name = adpsgd averages pairs, this graph has arcs of one direction; take algorithm.name = async-gossip.")
        # Pairs are drawn from the edges of the graph, whatever their weights.
        self.neighbours = [[] for _ in range(self.n)]
        for i, j in sorted(map(sorted, setting.edges.tolist())):
            self.neighbours[i].append(j)
            self.neighbours[j].append(i)

    def needs(self, d, dtype):
        return Needs("pairs", d, dtype, False)

    def bytes_of_step(self, d, dtype):
        return 2 * sum(map(bool, self.neighbours)) * d * dtype.itemsize

    def open(self, transport, block, placement):
        self.pairs, self.block, self.placement = transport, block, placement
        self.snapshot = torch.empty((block.m, block.d), dtype=block.storage[0].dtype, device=block.storage[0].device)
        self._snapshot = self.snapshot.unbind(0)
        for i, vertex in enumerate(placement.hosted):
            with self.pairs.hold(vertex) as (row,):
                row.copy_(block.x(i))

    def begin(self, i, t):
        x = self.block.x(i)
        with self.pairs.hold(self.placement.hosted[i]) as (row,):
            x.copy_(row)
        self._snapshot[i].copy_(x)

    def adapted(self, i, t):
        snapshot = self._snapshot[i]
        torch.sub(self.block.x(i), snapshot, out=snapshot)

    def mix(self, i, t):
        vertex = self.placement.hosted[i]
        other = self.neighbour(vertex, t)
        change = self._snapshot[i]
        if other is None:
            with self.pairs.hold(vertex) as (row,):
                row.add_(change)
            return [], 0.0
        with self.pairs.hold(vertex, other) as (row, theirs):
            start = time.perf_counter()
            theirs.lerp_(row, 0.5)
            torch.add(theirs, change, out=row)
            seconds = time.perf_counter() - start
        return [0], seconds

    def neighbour(self, vertex, t):
        """Return the vertex that `vertex` averages with at its step t; None where it has no neighbour."""
        around = self.neighbours[vertex]
        return around[int(generator(self.setting.seed, "pairs", vertex, t).integers(len(around)))] if around else None

    def look(self, vertex, out):
        self.pairs.read(vertex, out)
        return True

    def drain(self, i):
        with self.pairs.hold(self.placement.hosted[i]) as (row,):
            self.block.x(i).copy_(row)
        return False

    def state_dict(self, i):
        """Return the row that others average with, and the snapshot or, where the gradient has been applied to it, the change."""
        with self.pairs.hold(self.placement.hosted[i]) as (row,):
            return {"row": row.clone(), "snapshot": self.snapshot[i].clone()}

    def load_state_dict(self, i, state):
        with self.pairs.hold(self.placement.hosted[i]) as (row,):
            row.copy_(state["row"])
        self.snapshot[i].copy_(state["snapshot"])
