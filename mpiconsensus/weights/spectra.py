"""What the eigenvalues of a mixing matrix say of its speed."""

import numpy as np


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
