"""Fastest-mixing weights: semidefinite programmes, solved to a certificate.

fastest:              the symmetric weights with the least |lambda_2(W)| = ||W - J||_2, J = 11'/n, negative ones allowed.
                      Xiao, Boyd, "Fast linear iterations for distributed averaging", Systems & Control Letters 53 (2004).
fastest-nonnegative:  the same over W >= 0, its diagonal too: the fastest-mixing symmetric Markov chain.
                      Boyd, Diaconis, Xiao, "Fastest mixing Markov chain on a graph", SIAM Review 46 (2004).
fastest-laplacian:    maximise lambda_2(L(w)) of the weighted Laplacian over w >= 0, sum w = 1; then W = I - alpha L(w) with
                      the best alpha = 2 / (lambda_2 + lambda_n). Sun, Boyd, Xiao, Diaconis, "The fastest mixing Markov
                      process on a graph", SIAM Review 48 (2006); Boyd, "Convex optimization of graph Laplacian
                      eigenvalues", ICM 2006.

How they relate: every symmetric W is I - L(w), and scaled by its best alpha has |lambda_2(W)| = (kappa - 1) / (kappa + 1),
kappa = lambda_n / lambda_2 of L(w). So `fastest` minimises kappa; `fastest-laplacian` looks at lambda_2 alone and is never
better. On edge-transitive graphs all three give the same weight to every edge (where its diagonal is not negative):
the best constant one. That is tried before a solver is.
n vertices, m edges.
"""

from typing import NamedTuple

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.weights import cache, certificate, interior
from mpiconsensus.weights.basic import edge_weights

METHODS = ("fastest", "fastest-nonnegative", "fastest-laplacian")
MOST_EDGES = 6000  # the Schur complement, m x m, is held three times: 0.9 GB
EXACT_VERTICES = 300
NOTHING = 1e-6  # weights that must be at least 0 are 0 below it, where that keeps to the tolerance
GRID = 2.0**34  # weights are multiples of 1 / GRID: rows sum to 1 exactly, and last bits of a LAPACK fall away


class Solution(NamedTuple):
    """weights (m,) of the edges of W. certificate: (Z (n, n), q (n,) or None) of certificate.py; None for n = 1.

    value: |lambda_2(W)|, and bound, a lower bound of the best. fastest-laplacian: value is lambda_2(L(w)) of w in the
    proportions of `weights` that sums to 1, and bound an upper bound of it. steps of the interior-point method; 0: none.
    """

    weights: np.ndarray
    value: float
    bound: float
    certificate: tuple | None
    steps: int

    @property
    def gap(self):
        """The distance of value and bound; for fastest-laplacian in shares of the bound."""
        return self.value - self.bound if self.value >= self.bound else (self.bound - self.value) / self.bound


def promised(n):
    """Return the gap that a Solution on n vertices has at most: 1e-6 up to 100 vertices, 1e-3 beyond."""
    return 1e-6 if n <= 100 else 1e-3


def solution(n, edges, method):
    """Return the Solution for the connected graph (n, edges) and one of METHODS, from the cache where it is there."""
    if n > MOST_EDGES:
        _require_size(n, edges, method)
    if found := _closed_form(n, edges, method):
        return found
    name = cache.key(n, edges, method)
    if found := _recalled(cache.load(name), n, edges, method):
        return found
    found = solve(n, edges, method)
    if found.gap <= promised(n):
        Z, q = found.certificate
        cache.store(name, weights=found.weights, Z=Z, steps=np.int64(found.steps), **({} if q is None else {"q": q}))
    return found


def _require_size(n, edges, method):
    if max(n - 1, len(edges)) > MOST_EDGES:
        raise UserError(
            f"topology.weights = {method!r} on {len(edges)} edges; the programme is solved up to {MOST_EDGES} edges: "
            "take metropolis or best-constant."
        )


def _recalled(arrays, n, edges, method):
    """Return the Solution of a cached answer, worked out anew, or None where it is not what `solve` would return."""
    nonnegative = method == "fastest-nonnegative"
    shapes = {"weights": (len(edges),), "Z": (n, n), "steps": ()} | ({"q": (n,)} if nonnegative else {})
    if arrays is None or {name: array.shape for name, array in arrays.items()} != shapes:
        return None
    if any(array.dtype.kind not in "fi" or not np.isfinite(array).all() for array in arrays.values()):
        return None
    w = _on_grid(arrays["weights"].astype(np.float64), method)
    if method != "fastest" and w.min() < 0 or nonnegative and np.bincount(edges.ravel(), np.repeat(w, 2)).max() > 1:
        return None
    if method == "fastest-laplacian" and abs(_best_scale(n, edges, w) - 1.0) > 1e-6:
        return None
    proof = certificate.repair(arrays["Z"].astype(np.float64), arrays.get("q"), edges, method)
    found = assess(n, edges, method, w, proof, int(arrays["steps"]))
    return found if found.gap <= promised(n) else None


def solve(n, edges, method, tolerance=None):
    """Return the Solution by the interior-point method; UserError beyond MOST_EDGES.

    tolerance: of the gap; None: 1e-7 up to EXACT_VERTICES, 5e-4 beyond.
    """
    _require_size(n, edges, method)
    tolerance = tolerance or (1e-7 if n <= EXACT_VERTICES else 5e-4)
    programme, start = (_laplacian if method == "fastest-laplacian" else _norm)(n, edges, method)

    def ends(objective):
        """Return the gap to stop at; near 1 a hundredth of the spectral gap besides, which is what counts there."""
        if method == "fastest-laplacian":
            return tolerance * objective
        return min(tolerance, 1e-2 * max(1.0 - objective, 0.0) + 1e-12)

    point, steps = interior.solve(programme, start, ends)
    w = point.x[: len(edges)]
    if method == "fastest-laplacian":
        Z, q = point.Z[0], None
        w = w * _best_scale(n, edges, w)
    else:
        Z, q = point.Z[0] - point.Z[1], point.z[-n:] if method == "fastest-nonnegative" else None
    proof = certificate.repair(Z, q, edges, method)
    found = assess(n, edges, method, _on_grid(w, method), proof, steps)
    if method == "fastest" or w.min() > NOTHING:
        return found
    # An interior point has no zeros, and an edge of weight 1e-9 is sent over all the same.
    w = np.where(w > NOTHING, w, 0.0)
    if method == "fastest-laplacian":
        w = w * _best_scale(n, edges, w)
    sparser = assess(n, edges, method, _on_grid(w, method), proof, steps)
    return sparser if sparser.gap <= max(found.gap, tolerance) else found


def _on_grid(w, method):
    # Downwards where the diagonal must not fall below 0.
    return (np.floor if method == "fastest-nonnegative" else np.rint)(w * GRID) / GRID


def assess(n, edges, method, w, proof, steps):
    """Return the Solution of weights w with value and bound worked out from w and the certificate alone."""
    L = interior.laplacian(n, edges, w)
    if method == "fastest-laplacian":
        value = float(np.linalg.eigvalsh(L)[1] / w.sum())
    else:
        value = float(np.abs(np.linalg.eigvalsh(np.eye(n) - 1.0 / n - L)).max())
    return Solution(w, value, certificate.bound(*proof, edges, method), proof, steps)


def _closed_form(n, edges, method):
    """Return the Solution with the same weight on every edge where its eigenspaces prove it the best, else None.

    Z = theta P_2 / dim_2 - (1 - theta) P_n / dim_n, P the projectors on the eigenspaces of the smallest positive and of the
    largest eigenvalue of L: theta = lambda_n / (lambda_2 + lambda_n) makes the mean over the edges of a_l' Z a_l zero.
    """
    w = edge_weights(n, edges, "best-constant")
    if n == 1:
        return Solution(w, 0.0, 0.0, None, 0)
    if len(edges) == n * (n - 1) // 2:  # W = J: below 0 there is nothing
        Z = np.eye(n) - 1.0 / n if method == "fastest-laplacian" else np.zeros((n, n))
        return assess(n, edges, method, w, certificate.repair(Z, None, edges, method), 0)
    if method == "fastest-nonnegative" and np.bincount(edges.ravel()).max() * w[0] > 1:
        return None
    values, vectors = np.linalg.eigh(interior.laplacian(n, edges, np.ones(len(edges))))
    low, high = (np.abs(values - v) < 1e-9 * values[-1] for v in values[[1, -1]])
    Z = vectors[:, low] @ vectors[:, low].T / low.sum()
    if method != "fastest-laplacian":
        theta = values[-1] / (values[1] + values[-1])
        Z = theta * Z - (1.0 - theta) * vectors[:, high] @ vectors[:, high].T / high.sum()
    found = assess(n, edges, method, w, certificate.repair(Z, None, edges, method), 0)
    return found if found.gap <= 1e-9 else None


def _norm(n, edges, method):
    """Return (Programme, start) of the least s with -s I <= W - J <= s I; W >= 0 too for fastest-nonnegative."""
    nonnegative = method == "fastest-nonnegative"
    away = np.eye(n) - 1.0 / n
    programme = interior.Programme(n, edges, [-away, away], [1.0, -1.0], 0.0, 1.0, True, nonnegative, nonnegative)
    w = edge_weights(n, edges, "metropolis")
    s = 1.05 * np.abs(np.linalg.eigvalsh(away - interior.laplacian(n, edges, w))).max() + 0.05
    few = 0.1 / n
    z = np.concatenate([np.full(len(edges), 2 * few), np.full(n, few)]) if nonnegative else np.zeros(0)
    return programme, interior.Point(np.append(w, s), [np.eye(n) / (2 * n)] * 2, z)


def _laplacian(n, edges, method):
    """Return (Programme, start) of the least sum of w >= 0 with lambda_2(L(w)) >= 1; the J added keeps clear of 1."""
    programme = interior.Programme(n, edges, [2.0 / n - np.eye(n)], [1.0], 1.0, 0.0, False, True, False)
    w = np.full(len(edges), 2.0 / np.linalg.eigvalsh(interior.laplacian(n, edges, np.ones(len(edges))))[1])
    return programme, interior.Point(w, [np.eye(n) / 4.0], np.full(len(edges), 0.5))


def _best_scale(n, edges, w):
    values = np.linalg.eigvalsh(interior.laplacian(n, edges, w))
    return 2.0 / (values[1] + values[-1])
