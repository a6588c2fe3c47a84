"""W with its zeros left out, for graphs of any size.

n vertices, m edges or arcs, W (n, n) with row = receiver. Needs numpy alone.
"""

from typing import NamedTuple

import numpy as np

from mpiconsensus import weights
from mpiconsensus.errors import UserError
from mpiconsensus.survey import spectrum
from mpiconsensus.weights.basic import LOCAL, SYMMETRIC

# Up to here W is an array n x n: 32 MB, and every method can give it.
DENSE = 2000


class Mixing(NamedTuple):
    """The nonzero entries of W, a row after the other; the diagonal is among them even where it is 0.

    start: (n + 1,) where each row begins in index (columns, ascending) and weight (float64). edges: (m, 2).
    edge_weight: (m,) weights of the edges where W is symmetric, else None.
    """

    n: int
    start: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    edges: np.ndarray
    edge_weight: np.ndarray | None

    def apply(self, x):
        """Return W x of x (n,) or (n, d)."""
        terms = x[self.index] * (self.weight if x.ndim == 1 else self.weight[:, None])
        return np.add.reduceat(terms, self.start[:-1], axis=0)  # no row is empty: each has its diagonal

    @property
    def receivers(self):
        """The row of each entry."""
        return np.repeat(np.arange(self.n), np.diff(self.start))

    @property
    def diagonal(self):
        """The weights that the vertices give themselves, (n,)."""
        return self.weight[self.index == self.receivers]

    def sums(self, axis):
        """Return the sums of the rows (axis 1) or of the columns (axis 0), (n,)."""
        return np.bincount(self.receivers if axis else self.index, self.weight, minlength=self.n)

    def dense(self):
        """Return W as an array (n, n)."""
        W = np.zeros((self.n, self.n))
        W[self.receivers, self.index] = self.weight
        return W


def of(net, method):
    """Return the Mixing of a Net that does not change; UserError where the graph does not allow the method."""
    weights.require(net, method)
    if net.n > DENSE and method in SYMMETRIC:
        extremes = _extremes(net) if method == "best-constant" else None
        return from_edges(net.n, net.edges, weights.edge_weights(net.n, net.edges, method, extremes))
    if net.n > DENSE and method in LOCAL:
        return from_rows(net.n, net.edges, weights.sparse_rows(net.n, net.edges, method, net.directed))
    W = weights.matrix(net, method)
    symmetric = not net.directed and np.array_equal(W, W.T)
    return from_rows(net.n, net.edges, weights.rows(W), W[tuple(net.edges.T)] if symmetric else None)


def _extremes(net):
    """Return the two eigenvalues that best-constant needs; UserError where they are only bounded."""
    low, high = spectrum.laplacian(net)
    if low.value is None or high.value is None:
        raise UserError(
            f"graph {net.spec!r}: the two eigenvalues that best-constant needs were not found, only the bounds {low.low:.4g} to "
            f"{low.high:.4g} and {high.low:.4g} to {high.high:.4g}; take metropolis."
        )
    return low.value, high.value


def at(net, method, k):
    """Return the Mixing of the k-th exchange of a Net that changes."""
    edges = net.changing.at(k)
    return from_rows(net.n, edges, weights.sparse_rows(net.n, edges, method, net.directed))


def from_edges(n, edges, w):
    """Return the Mixing of the symmetric W with weights w (m,) on the edges (m, 2) and rows that sum to 1."""
    i, j = edges.T
    everyone = np.arange(n)
    own = 1.0 - np.bincount(edges.ravel(), np.repeat(w, 2), minlength=n)
    receivers, senders = np.concatenate([i, j, everyone]), np.concatenate([j, i, everyone])
    order = np.lexsort((senders, receivers))
    start = np.concatenate([[0], np.cumsum(np.bincount(receivers, minlength=n))])
    return Mixing(n, start, senders[order], np.concatenate([w, w, own])[order], edges, w)


def from_rows(n, edges, rows, edge_weight=None):
    """Return the Mixing of a list of (indices, weights), one a vertex."""
    start = np.concatenate([[0], np.cumsum([len(index) for index, _ in rows])])
    index, weight = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    return Mixing(n, start, index, weight, edges, edge_weight)
