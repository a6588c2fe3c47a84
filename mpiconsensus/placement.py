"""Which rank hosts which vertex, as every rank knows it."""

import numpy as np

from mpiconsensus.mapping import Crossing, assign, blocks, crossing, plan, require_vertices

__all__ = ["Crossing", "Placement", "crossing", "place", "plan"]


class Placement:
    """n vertices on `ranks` ranks; this rank is `rank`.

    owner: (n,) rank of each vertex, contiguous blocks where none are given. node: (n,) node of each vertex, one node where
    none are given. map: how it was made. hosted: ascending vertices of this rank. counts: vertices of each rank.
    order: the vertices rank by rank, ascending in each, (n,).
    """

    def __init__(self, n, ranks=1, rank=0, owner=None, node=None, map="block"):
        require_vertices(n, ranks)
        self.n, self.ranks, self.rank, self.map = n, ranks, rank, map
        self.owner = blocks(n, ranks) if owner is None else np.asarray(owner)
        self.node = np.zeros(n, np.int64) if node is None else np.asarray(node)
        self.counts = np.bincount(self.owner, minlength=ranks).tolist()
        self.order = np.argsort(self.owner, kind="stable")
        self.hosted = self.hosted_by(rank)
        self.index = {vertex: i for i, vertex in enumerate(self.hosted)}

    def hosted_by(self, rank):
        """Return the ascending list of the vertices of a rank."""
        return np.flatnonzero(self.owner == rank).tolist()

    def gather(self, world, rows):
        """Return on rank 0 the float64 (n, c) rows of all vertices, in their order, of the (m, c) hosted ones; None elsewhere."""
        gathered = world.gather_rows(rows, self.counts)
        if gathered is None:
            return None
        ordered = np.empty_like(gathered)
        ordered[self.order] = gathered
        return ordered

    def describe(self, edges, links="edges"):
        """Return in words the map and how many of the (m, 2) edges cross; links: what they are called."""
        return (
            f"{self.map}; of {len(edges)} {links} {crossing(edges, self.owner).edges} cross ranks, "
            f"{crossing(edges, self.node).edges} cross nodes"
        )


def place(how, world, net):
    """Return the Placement of the vertices of `net` that placement.map = `how` says; collective, rank 0 alone computes it.

    UserError on every rank alike, see mapping.assign.
    """
    made = world.agree(assign, net, world.node_of_rank, how) if world.rank == 0 else world.agree(lambda: None)
    owner, taken = world.bcast(made)
    name = taken if how == taken else f"{taken} ({how})"
    return Placement(net.n, world.size, world.rank, owner, world.node_of_rank[owner], name)
