"""The graph of a run on every rank: rank 0 builds it and its weights, the others receive arrays.

Only rank 0 loads networkx; fifty ranks that each do would pay for it in time and memory.
"""

from typing import NamedTuple

import numpy as np

from mpiconsensus.schedule import Varying


class Wiring(NamedTuple):
    """spec: canonical graph spec; n vertices; edges (m, 2) int64; matrix W (n, n) float64; second_modulus |lambda_2|.

    directed: the edges are arcs (sender, receiver). changing: what gives the edges of each exchange (topology.Net), of a
    graph that changes; edges are then the union, matrix the average over its exchanges, and second_modulus the factor an
    exchange by which they shrink disagreement (survey.rates.of_changing), NaN past the size where it is measured.
    """

    spec: str
    weights: str
    n: int
    edges: np.ndarray
    matrix: np.ndarray
    second_modulus: float
    directed: bool = False
    changing: object = None

    @property
    def links(self):
        """What the edges are called: "edges" or "arcs"."""
        return "arcs" if self.directed else "edges"

    @property
    def rows(self):
        """The nonzero entries of W, a row a vertex: list of (indices, weights)."""
        from mpiconsensus import weights

        return weights.rows(self.matrix)

    @property
    def varying(self):
        """The schedule.Varying of a graph that changes, None of one that stays."""
        return Varying(self.rows_at, self.changing.period) if self.changing else None

    def rows_at(self, j):
        """Return the rows of W of exchange j of a graph that changes."""
        from mpiconsensus import weights

        return weights.sparse_rows(self.n, self.changing.at(j), self.weights, self.directed)


def wire(topology, world, default_vertices=4):
    """Return the Wiring that the job's table `topology` says; collective, UserError on every rank alike.

    A spec without a size, and auto, take one vertex a rank; in one process without a launcher `default_vertices`.
    """
    n = world.size if world.comm else default_vertices
    return world.bcast(world.agree(_build, topology, n) if world.rank == 0 else world.agree(lambda: None))


def _build(table, n):
    from mpiconsensus import topology, weights

    net = topology.net(table.graph, n, table.seed)
    topology.require_dense(net)
    method = weights.resolve(net, table.weights)
    if net.changing:
        from mpiconsensus.survey import rates

        second = rates.of_changing(net, method)["lambda_2"]
        second = float("nan") if second is None else second
        return Wiring(net.spec, method, net.n, net.edges, rates.average(net, method), second, net.directed, net.changing)
    matrix = weights.matrix(net, method)
    return Wiring(net.spec, method, net.n, net.edges, matrix, float(weights.second_modulus(matrix)), net.directed)
