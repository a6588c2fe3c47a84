"""What a mixing matrix must be; a failing entry is named."""

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.weights.spectra import second_modulus

WITHIN = 1e-9  # of a row's sum and of symmetry: a file's digits


def check(W, edges=None, *, directed=False, symmetric=False, columns=False, contracts=False):
    """Raise UserError, naming the entry, unless W is square and finite, and each row sums to 1 within 1e-9.

    edges: (m, 2); W must be zero off the diagonal and off the edges, or off the arcs (sender, receiver) where directed.
    symmetric: W must equal its transpose within 1e-9. columns: the columns sum to 1 in place of the rows, no entry is
    negative and every vertex keeps a part of itself (push-sum divides by what is left). contracts: |lambda_2| < 1.
    """
    W = np.asarray(W, dtype=np.float64)
    if W.ndim != 2 or W.shape[0] != W.shape[1] or not W.size:
        raise UserError(f"the mixing matrix has shape {W.shape}; it must be square, a row and a column a vertex.")
    _refuse(~np.isfinite(W), W, "every weight must be a finite number")
    if edges is not None:
        i, j = np.asarray(edges, dtype=np.int64).reshape(-1, 2).T
        outside = W != 0
        outside[j, i] = False
        if not directed:
            outside[i, j] = False
        np.fill_diagonal(outside, False)
        _refuse(outside, W, "set it to 0", " off the edges")
    if columns:
        _refuse(W < 0, W, "weights of push-sum must be at least 0")
        _refuse(np.diag(np.diagonal(W) <= 0), W, "with push-sum every vertex must keep a part of itself")
    if symmetric:
        _require_symmetric(W)
    sums, line = (W.sum(axis=0), "column") if columns else (W.sum(axis=1), "row")
    worst = int(np.abs(sums - 1.0).argmax())
    if abs(sums[worst] - 1.0) > WITHIN:
        raise UserError(f"the mixing matrix's {line} {worst} sums to {float(sums[worst])!r}; every {line} must sum to 1.")
    if contracts and len(W) > 1 and (modulus := second_modulus(W)) >= 1.0 - 1e-12:
        raise UserError(
            f"the mixing matrix has |lambda_2| = {modulus:.6g}; it must be below 1, or the vertices never agree: connect them by "
            "weights that are not 0, and let vertices keep a part of themselves."
        )


def _refuse(wrong, W, what, where=""):
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise UserError(f"the mixing matrix has W[{i},{j}] = {float(W[i, j])!r}{where}; {what}.")


def _require_symmetric(W):
    i, j = np.unravel_index(int(np.abs(W - W.T).argmax()), W.shape)
    if abs(W[i, j] - W[j, i]) > WITHIN:
        raise UserError(
            f"the mixing matrix has W[{i},{j}] = {float(W[i, j])!r} and W[{j},{i}] = {float(W[j, i])!r}; on an undirected graph "
            "they must be equal."
        )
