"""Mixing matrices W from a graph: symmetric, supported on its edges, rows summing to 1.

Needs numpy alone: the graph enters as its number of vertices n and its (m, 2) int64 edges, i < j, as
`topology.edges` returns them. Every rank that is given the same edges computes the same bits.
"""

import numpy as np

from mpiconsensus.errors import UserError, require_choice

METHODS = ("metropolis", "best-constant")


def mixing_matrix(n, edges, method):
    """Return the float64 (n, n) mixing matrix of the connected graph (n, edges); [[1.]] for n = 1.

    metropolis:     w_ij = 1 / (1 + max(d_i, d_j)) on edges. Xiao, Boyd, Lall, "A scheme for robust distributed sensor
                    fusion based on average consensus", IPSN 2005, section 3 (after Metropolis et al. 1953).
    best-constant:  W = I - alpha L, alpha = 2 / (lambda_1(L) + lambda_{n-1}(L)), L the Laplacian, lambda_1 its largest
                    and lambda_{n-1} its smallest positive eigenvalue: the constant edge weight with the least
                    |lambda_2(W)|. Xiao, Boyd, "Fast linear iterations for distributed averaging", Systems & Control
                    Letters 53 (2004), section 4.1. The diagonal can be negative.

    Raises UserError for another method.
    """
    require_choice("topology.weights", method, METHODS)
    edges = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    i, j = edges.T
    degree = np.bincount(edges.ravel(), minlength=n)
    if method == "metropolis":
        w = 1.0 / (1.0 + np.maximum(degree[i], degree[j]))
    else:
        w = np.full(len(edges), _best_constant(n, i, j, degree) if n > 1 else 0.0)
    W = np.zeros((n, n))
    W[i, j] = W[j, i] = w
    # bincount adds in the order of the edges, whatever the vector width of the machine.
    np.fill_diagonal(W, 1.0 - np.bincount(edges.ravel(), np.repeat(w, 2), minlength=n))
    return W


def _best_constant(n, i, j, degree):
    L = np.diag(degree.astype(float))
    L[i, j] = L[j, i] = -1.0
    eigenvalues = np.linalg.eigvalsh(L)
    # Twelve digits: the last bits of a LAPACK depend on the machine and its threads, a run must not.
    return float(f"{2.0 / (eigenvalues[-1] + eigenvalues[1]):.12g}")


def second_modulus(W):
    """Return |lambda_2|, the largest modulus among the eigenvalues of W - 11'/n; 0.0 for n = 1.

    The eigenvalues are those of a symmetric solver where W equals its transpose, of a general one elsewhere. For a
    W that is not symmetric this is the asymptotic rate of a repeated W, not the factor of a single round.
    """
    W = np.asarray(W, dtype=np.float64)
    deviation = W - 1.0 / len(W)
    solve = np.linalg.eigvalsh if np.array_equal(W, W.T) else np.linalg.eigvals
    return float(np.abs(solve(deviation)).max())


def damping(W):
    """Return the t in (0, 1] for which x_{k+1} = x_k + t (W - I) x_{k-1} agrees fastest, in hundredths.

    A mode of W with eigenvalue l becomes the roots of z^2 - z + t (1 - l) = 0; the slowest of all modes but the mean's
    counts. They contract for 0 < t (1 - l) < 1. 1.0 for n = 1.
    """
    W = np.asarray(W, dtype=np.float64)
    if len(W) == 1:
        return 1.0
    solve = np.linalg.eigvalsh if np.array_equal(W, W.T) else np.linalg.eigvals
    eigenvalues = solve(W).astype(complex)
    modes = 1.0 - np.delete(eigenvalues, np.abs(eigenvalues - 1.0).argmin())
    t = np.arange(1, 101) / 100
    root = np.sqrt(1.0 - 4.0 * t[:, None] * modes)
    slowest = np.maximum(np.abs(1.0 + root), np.abs(1.0 - root)).max(axis=1) / 2.0
    # Nine digits: the last bits of a LAPACK depend on the machine, a run must not.
    return float(t[np.round(slowest, 9).argmin()])


def spectral_gap(W):
    """Return 1 - |lambda_2|: 1 averages in one round, 0 never."""
    return 1.0 - second_modulus(W)


def check(W, edges=None):
    """Raise UserError, naming the entry, unless W is square and finite, and each row sums to 1 within 1e-9.

    With `edges` (m, 2) given, also unless W is zero off the diagonal and off the edges.
    """
    W = np.asarray(W, dtype=np.float64)
    if W.ndim != 2 or W.shape[0] != W.shape[1] or not W.size:
        raise UserError(f"the mixing matrix has shape {W.shape}; it must be square, a row and a column a vertex.")
    if not np.isfinite(W).all():
        i, j = np.argwhere(~np.isfinite(W))[0]
        raise UserError(f"the mixing matrix has W[{i},{j}] = {W[i, j]}; every weight must be a finite number.")
    sums = W.sum(axis=1)
    worst = int(np.abs(sums - 1.0).argmax())
    if abs(sums[worst] - 1.0) > 1e-9:
        raise UserError(f"the mixing matrix's row {worst} sums to {float(sums[worst])!r}; every row must sum to 1.")
    if edges is not None:
        i, j = np.asarray(edges, dtype=np.int64).reshape(-1, 2).T
        outside = W != 0
        outside[i, j] = outside[j, i] = False
        np.fill_diagonal(outside, False)
        if outside.any():
            i, j = np.argwhere(outside)[0]
            raise UserError(f"the mixing matrix has W[{i},{j}] = {float(W[i, j])!r} off the edges; set it to 0.")


def rows(W):
    """Return for each row of W its (indices int64 ascending, weights float64): i itself, and the nonzero entries."""
    kept = np.asarray(W) != 0
    np.fill_diagonal(kept, True)
    return [(np.flatnonzero(k), np.ascontiguousarray(row[k], dtype=np.float64)) for k, row in zip(kept, np.asarray(W))]
