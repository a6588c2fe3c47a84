"""Mixing matrices W from a graph: supported on its edges; rows, or for push-sum columns, sum to 1.

Row = receiver: x_i <- sum_j W_ij x_j. Needs numpy alone; what solves a programme is imported when it is asked for.
"""

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.topology.forms import require_dense
from mpiconsensus.topology.net import Net
from mpiconsensus.weights.basic import LOCAL, SYMMETRIC, dense, edge_weights, rows, sparse_rows, symmetric_matrix
from mpiconsensus.weights.checks import check
from mpiconsensus.weights.methods import METHODS, Method, allowed, require, resolve
from mpiconsensus.weights.spectra import damping, second_modulus

__all__ = [
    "METHODS", "Method", "allowed", "check", "damping", "edge_weights", "matrix", "mixing_matrix", "require",
    "resolve", "rows", "second_modulus", "sparse_rows",
]  # fmt: skip


def matrix(net, method):
    """Return the float64 (n, n) mixing matrix of a Net that does not change; [[1.]] for n = 1.

    method: a name of METHODS, or "file:PATH". Raises UserError for one that the graph does not allow, and for weights of
    a file that are no mixing matrix of the graph.
    """
    name, path = require(net, method)
    if net.changing is not None:
        raise UserError(f"graph {net.spec!r} changes from exchange to exchange and has no one mixing matrix.")
    require_dense(net)
    if name == "file":
        from mpiconsensus.weights import given

        return given.matrix(net, path)
    edges = np.asarray(net.edges, dtype=np.int64).reshape(-1, 2)
    if name in SYMMETRIC:
        return symmetric_matrix(net.n, edges, edge_weights(net.n, edges, name))
    if name in LOCAL:
        return dense(sparse_rows(net.n, edges, name, net.directed))
    from mpiconsensus.weights import fastest

    return symmetric_matrix(net.n, edges, fastest.solution(net.n, edges, name).weights)


def mixing_matrix(n, edges, method):
    """Return `matrix` of the connected undirected graph (n, edges): (m, 2), i < j."""
    return matrix(Net(f"{n} vertices", n, edges), method)
