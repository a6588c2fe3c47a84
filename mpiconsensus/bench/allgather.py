"""The round that one writes with mpi4py and numpy alone: Neighbor_allgather, then a weighted sum."""

import numpy as np


class NeighborAllgather:
    """x_i <- sum_j w_ij x_j over MPI's neighbourhood collective on a distributed graph of the ranks.

    The rows of a rank and those of its neighbouring ranks lie in one table, (m + received, d), and there are two: the
    sum goes from one to the other, so that nothing is copied. With several vertices a rank each neighbouring rank is
    sent all of them, needed or not: the collective knows ranks, not vertices.
    """

    name = "Neighbor_allgather"

    def __init__(self, world, placement, rows, d, dtype):
        me, hosted, owner = placement.rank, placement.hosted, placement.owner
        near = sorted({int(owner[j]) for v in hosted for j in rows[v][0].tolist()} - {me})
        self.comm, self.m = world.comm.Create_dist_graph_adjacent(near, near), len(hosted)
        there = [*hosted, *(v for rank in near for v in np.flatnonzero(owner == rank).tolist())]
        place = {vertex: at for at, vertex in enumerate(there)}
        self.terms = []
        for v in hosted:
            at = np.array([place[j] for j in rows[v][0].tolist()])
            order = np.argsort(at)
            self.terms.append((at[order], rows[v][1].astype(dtype)[order]))
        self.tables = [np.ones((len(there), d), dtype) for _ in range(2)]
        self.stack = np.empty((max(len(at) for at, _ in self.terms), d), dtype)
        self.counts = [placement.counts[rank] * d for rank in near]
        self.even = len(set(placement.counts)) == 1

    def x(self, i):
        """Return the current row of hosted vertex i, (d,)."""
        return self.tables[0][i]

    def round(self):
        """Run one round; collective."""
        m, (table, other) = self.m, self.tables
        if self.even:
            self.comm.Neighbor_allgather(table[:m], table[m:])
        else:
            self.comm.Neighbor_allgatherv(table[:m], [table[m:], self.counts])
        for i, (at, weights) in enumerate(self.terms):
            # A vertex whose neighbours are all that is in the table needs no copy of them.
            stack = table if len(at) == len(table) else np.take(table, at, axis=0, out=self.stack[: len(at)], mode="clip")
            np.einsum("k,kd->d", weights, stack, out=other[i])
        self.tables.reverse()

    def close(self):
        self.comm.Free()
