"""Bounds that show how good weights are, whoever found them: each is checked from its matrix Z alone.

W = I - sum_l w_l a_l a_l' with a_l = e_i - e_j for the edge l = {i, j}; J = 11'/n; ||Z||_* the sum of the moduli of the
eigenvalues of a symmetric Z.

fastest:              Z with a_l' Z a_l = Z_ii + Z_jj - 2 Z_ij = 0 on each edge. Then for every w
                      ||W - J||_2 ||Z||_* >= <Z, W - J> = <Z, I - J> - sum_l w_l a_l' Z a_l = <Z, I - J>.
fastest-nonnegative:  Z and q >= 0 with a_l' Z a_l <= q_i + q_j on each edge. Then for every w >= 0 with W_ii >= 0
                      sum_l w_l a_l' Z a_l <= sum_l w_l (q_i + q_j) = sum_i q_i (1 - W_ii) <= sum_i q_i, and so
                      ||W - J||_2 ||Z||_* >= <Z, I - J> - sum_i q_i.
fastest-laplacian:    Z positive semidefinite with Z1 = 0. Then for every w >= 0 with sum w = 1, as L(w) >= lambda_2 (I - J),
                      lambda_2(L(w)) tr Z <= <Z, L(w)> = sum_l w_l a_l' Z a_l <= max_l a_l' Z a_l.
"""

import numpy as np

from mpiconsensus.weights.interior import quadratic


def repair(Z, q, edges, method):
    """Return (Z, q) that satisfy the conditions of `method`, by the smallest change of Z on the edges; q (n,) or None."""
    Z = (Z + Z.T) / 2.0
    if method == "fastest-laplacian":
        Z = Z - Z.mean(axis=0)
        Z = Z - Z.mean(axis=1, keepdims=True)
        values, vectors = np.linalg.eigh((Z + Z.T) / 2.0)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        Z = root @ root.T
        return (Z + Z.T) / 2.0, None
    i, j = edges.T
    excess = quadratic(Z, edges)
    if method == "fastest-nonnegative":
        q = np.zeros(len(Z)) if q is None else np.maximum(q, 0.0)
        excess = np.maximum(excess - q[i] - q[j], 0.0)
    Z[i, j] += excess / 2.0
    Z[j, i] = Z[i, j]
    return Z, q


def bound(Z, q, edges, method):
    """Return what (Z, q), as `repair` returns them, proves: a lower bound of |lambda_2(W)|, at least 0.

    fastest-laplacian: an upper bound of lambda_2(L(w)) for weights w that sum to 1.
    """
    if method == "fastest-laplacian":
        return float(quadratic(Z, edges).max() / np.trace(Z))
    size = np.abs(np.linalg.eigvalsh(Z)).sum()
    proven = np.trace(Z) - Z.mean() * len(Z) - (0.0 if q is None else q.sum())
    return float(max(proven / size, 0.0)) if size else 0.0
