"""Weights that a user gives: with the graph's file, or in a file of their own."""

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.weights.checks import WITHIN, check


def matrix(net, path=""):
    """Return the checked float64 (n, n) W of `net.given`, or of the graph file at `path`, which a matrix W is too.

    A vertex without a weight of its own takes 1 less its row's sum. Undirected: symmetric. Directed: rows that sum to 1, or columns
    (for push-sum). UserError that names the file and the entry for what is neither, or lies off the graph's edges, or
    has |lambda_2| = 1.
    """
    where = f"weights of {path or net.spec!r}"
    source = read_graph(path) if path else net
    if source.given is None:
        raise UserError(
            f"{where}: the graph gives none; topology.weights = 'file' takes those of the graph's file (a third column: '0 1 0.25'), "
            "'file:PATH' those of a matrix (.npy, .csv) or graph file."
        )
    if source.n != net.n:
        raise UserError(f"{where}: they are for {source.n} vertices; graph {net.spec} has {net.n}.")
    W = _from_net(source)
    columns = net.directed and _sums_to_one(W, 0) and not _sums_to_one(W, 1)
    try:
        check(W, net.edges, directed=net.directed, symmetric=not net.directed, columns=columns, contracts=True)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    # Equal bits either side of the diagonal, whatever digits the file gives.
    return W if net.directed else (W + W.T) / 2.0


def read_graph(path):
    """Return the Net of a graph file."""
    from mpiconsensus.topology import files

    return files.read(path)


def _from_net(net):
    sender, receiver = net.edges.T
    W = np.zeros((net.n, net.n))
    W[receiver, sender] = net.given
    if not net.directed:
        W[sender, receiver] = net.given
    np.fill_diagonal(W, 1.0 - W.sum(axis=1) if net.given_diagonal is None else net.given_diagonal)
    return W


def _sums_to_one(W, axis):
    return bool((np.abs(W.sum(axis=axis) - 1.0) <= WITHIN).all())
