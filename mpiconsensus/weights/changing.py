"""Weights of a graph that changes: what its exchanges come to, taken together."""

import numpy as np

from mpiconsensus.weights.basic import sparse_rows
from mpiconsensus.weights.methods import require

SAMPLED = 200  # exchanges that stand for a sequence that never comes again
SPECTRAL = 2_000  # vertices up to which a product of matrices is formed and its spectrum taken


def changing(net, method):
    """Return (W averaged over the exchanges, float64 (n, n); the factor an exchange by which disagreement shrinks).

    Over a period: the average of the W_j, and the period-th root of the second largest modulus among the eigenvalues
    of their product. Without one: over the first SAMPLED exchanges, and the root of the norm of their product on
    vectors of mean 0. NaN past SPECTRAL vertices. Raises UserError for a method that a changing graph does not allow.
    """
    require(net, method)
    count = net.changing.period or SAMPLED
    average, product = np.zeros((net.n, net.n)), np.eye(net.n) if net.n <= SPECTRAL else None
    for j in range(count):
        rows = sparse_rows(net.n, net.changing.at(j), method, net.directed)
        for i, (js, ws) in enumerate(rows):
            average[i, js] += ws / count
        if product is not None:
            product = np.stack([ws @ product[js] for js, ws in rows])
    if product is None:
        return average, float("nan")
    deviation = product - 1.0 / net.n
    modulus = np.abs(np.linalg.eigvals(deviation)).max() if net.changing.period else np.linalg.norm(deviation, 2)
    # A product that averages exactly is zero up to rounding, whose root would be far from zero.
    return average, float(modulus ** (1.0 / count)) if modulus > net.n * count * 1e-16 else 0.0
