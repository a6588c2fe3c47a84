"""The graph of a run on every rank: rank 0 builds it and its weights, the others receive arrays.

Only rank 0 loads networkx; fifty ranks that each do would pay for it in time and memory.
"""

from typing import NamedTuple

import numpy as np


class Wiring(NamedTuple):
    """spec: canonical graph spec; n vertices; edges (m, 2) int64; matrix W (n, n) float64; second_modulus |lambda_2|."""

    spec: str
    weights: str
    n: int
    edges: np.ndarray
    matrix: np.ndarray
    second_modulus: float

    @property
    def rows(self):
        """The nonzero entries of W, a row a vertex: list of (indices, weights)."""
        from mpiconsensus import weights

        return weights.rows(self.matrix)


def wire(topology, world, default_vertices=4):
    """Return the Wiring that the job's table `topology` says; collective, UserError on every rank alike.

    A spec without a size, and auto, take one vertex a rank; in one process without a launcher `default_vertices`.
    """
    n = world.size if world.comm else default_vertices
    return world.bcast(world.agree(_build, topology, n) if world.rank == 0 else world.agree(lambda: None))


def _build(topology_table, n):
    from mpiconsensus import topology, weights

    graph = topology.resolve(topology_table.graph, n, topology_table.seed)
    edges = topology.edges(graph)
    matrix = weights.mixing_matrix(graph.number_of_nodes(), edges, topology_table.weights)
    return Wiring(
        graph.graph["spec"], topology_table.weights, graph.number_of_nodes(), edges, matrix, float(weights.second_modulus(matrix))
    )
