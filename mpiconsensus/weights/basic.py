"""Weights from the degrees of the graph, and the best constant one.

Need numpy alone: the graph enters as its number of vertices n and its (m, 2) int64 edges, i < j, as `topology.edges`
returns them, or arcs (sender, receiver). Every rank that is given the same edges computes the same bits.
"""

import numpy as np

from mpiconsensus.errors import require_choice

SYMMETRIC = ("lazy", "max-degree", "metropolis", "best-constant")
LOCAL = ("uniform", "lazy", "max-degree", "metropolis", "push-sum")


def edge_weights(n, edges, method, extremes=None):
    """Return the (m,) weights of the edges of an undirected graph; (0,) for n = 1.

    lazy:           1 / (2 max(d_i, d_j)). Every vertex keeps at least half of its own, so that no eigenvalue is negative.
    max-degree:     1 / (1 + d_max).
    metropolis:     1 / (1 + max(d_i, d_j)). Xiao, Boyd, Lall, "A scheme for robust distributed sensor fusion based on
                    average consensus", IPSN 2005, section 3 (after Metropolis et al. 1953).
    best-constant:  W = I - alpha L, alpha = 2 / (lambda_1(L) + lambda_{n-1}(L)), L the Laplacian, lambda_1 its largest
                    and lambda_{n-1} its smallest positive eigenvalue: the constant edge weight with the least
                    |lambda_2(W)|. Xiao, Boyd, "Fast linear iterations for distributed averaging", Systems & Control
                    Letters 53 (2004), section 4.1. The diagonal can be negative.

    extremes: the smallest positive and the largest eigenvalue of L for best-constant; None: of the dense L.
    Raises UserError for another method.
    """
    require_choice("topology.weights", method, SYMMETRIC)
    edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    i, j = edges.T
    degree = np.bincount(edges.ravel(), minlength=n)
    larger = np.maximum(degree[i], degree[j])
    if method == "lazy":
        return 0.5 / larger
    if method == "metropolis":
        return 1.0 / (1.0 + larger)
    if method == "max-degree":
        return np.full(len(edges), 1.0 / (1.0 + degree.max()))
    return np.full(len(edges), _best_constant(n, i, j, degree, extremes) if n > 1 else 0.0)


def _best_constant(n, i, j, degree, extremes):
    if extremes is None:
        L = np.diag(degree.astype(float))
        L[i, j] = L[j, i] = -1.0
        extremes = np.linalg.eigvalsh(L)[[1, -1]]
    # Twelve digits: the last bits of a LAPACK depend on the machine and its threads, a run must not.
    return float(f"{2.0 / (extremes[-1] + extremes[0]):.12g}")


def symmetric_matrix(n, edges, w):
    """Return the symmetric (n, n) W with the weights w (m,) on the edges and rows that sum to 1."""
    i, j = edges.T
    W = np.zeros((n, n))
    W[i, j] = W[j, i] = w
    np.fill_diagonal(W, _own(n, edges, w))
    return W


def _own(n, edges, w):
    # bincount adds in the order of the edges, whatever the vector width of the machine.
    return 1.0 - np.bincount(edges.ravel(), np.repeat(w, 2), minlength=n)


def sparse_rows(n, edges, method, directed=False):
    """Return for each row of W its (indices int64 ascending, weights float64), of a graph that need not be connected.

    edges: (m, 2), one instant of a changing graph, say; directed: arcs (sender, receiver), for uniform and push-sum.
    uniform: row i is 1 / (1 + in-degree) for i and its in-neighbours. push-sum: column j is 1 / (1 + out-degree) for j and its
    out-neighbours. Raises UserError for a method that needs more than degrees.
    """
    allowed = ("uniform", "push-sum") if directed else LOCAL
    require_choice("topology.weights", method, allowed)
    edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    arcs = edges if directed else np.concatenate([edges, edges[:, ::-1]])
    sender, receiver = arcs.T
    if method in ("uniform", "push-sum"):
        ends = receiver if method == "uniform" else sender
        share = 1.0 / (1.0 + np.bincount(ends, minlength=n))
        own, w = share, share[ends]
    else:
        w = edge_weights(n, edges, method)
        own, w = _own(n, edges, w), np.tile(w, 2)
    vertices = np.arange(n)
    receiver, sender, w = (np.concatenate(pair) for pair in ((receiver, vertices), (sender, vertices), (w, own)))
    order = np.lexsort((sender, receiver))
    cuts = np.cumsum(np.bincount(receiver, minlength=n))[:-1]
    return list(zip(np.split(sender[order], cuts), np.split(w[order], cuts), strict=True))


def dense(rows):
    """Return the (n, n) W of sparse rows."""
    W = np.zeros((len(rows), len(rows)))
    for row, (indices, w) in zip(W, rows, strict=True):
        row[indices] = w
    return W


def rows(W):
    """Return for each row of W its (indices int64 ascending, weights float64): i itself, and the nonzero entries."""
    kept = np.asarray(W) != 0
    np.fill_diagonal(kept, True)
    return [(np.flatnonzero(k), np.ascontiguousarray(row[k], dtype=np.float64)) for k, row in zip(kept, np.asarray(W))]
