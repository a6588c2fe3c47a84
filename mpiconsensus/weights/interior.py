"""A primal-dual interior-point method for programmes over the weights of a graph's edges, in float64 and numpy alone.

    minimise    c_w sum_l w_l + c_s s
    subject to  F_b = C_b + s I + sigma_b sum_l w_l a_l a_l'  positive semidefinite, for each block b     (multiplier Z_b)
                w_l >= 0, where `positive`                                                                (p_l)
                1 - sum of w_l over the edges at i >= 0, where `diagonal`                                 (q_i)

a_l = e_i - e_j for the edge l = {i, j}; s is there where `level`. The dual maximises -sum_b <C_b, Z_b> - sum_i q_i over
Z_b >= 0, p >= 0, q >= 0 with sum_b sigma_b a_l' Z_b a_l + p_l - q_i - q_j = c_w for each edge and sum_b tr Z_b = c_s.

The direction is that of Helmberg, Rendl, Vanderbei, Wolkowicz ("An interior-point method for semidefinite programming",
SIAM J. Optim. 6, 1996), with Mehrotra's predictor and corrector. The matrices of the unknowns have rank one, so that an entry of the Schur
complement is a product of two numbers, (a_k' Z a_l)(a_k' F^-1 a_l), gathered from Z and F^-1: O(n^3 + m^3) a step.
Every step treats vertices alike, and so weights that start alike on edges that an automorphism swaps stay alike.
n vertices, m edges.
"""

from typing import NamedTuple

import numpy as np

BLOCK = 96  # rows taken at once: few calls, and what is in hand stays in the cache


class Programme(NamedTuple):
    """constants: list of (n, n) C_b; signs: list of sigma_b; the rest as above."""

    n: int
    edges: np.ndarray
    constants: list
    signs: list
    cost_w: float
    cost_s: float
    level: bool
    positive: bool
    diagonal: bool


class Point(NamedTuple):
    """x: (m,) w, then s where there is one. Z: list of (n, n). z: multipliers p, then q, of the inequalities there are."""

    x: np.ndarray
    Z: list
    z: np.ndarray


def solve(programme, start, tolerance, most=60):
    """Return (Point, steps): interior to primal and dual, with a gap of at most tolerance(objective) where it gets there.

    `start` must be strictly feasible in primal and dual. It ends before where rounding lets it go no further.
    """
    p, at = programme, start
    for step in range(most):
        F, f = slacks(p, at.x)
        gap = sum(np.vdot(Z, G) for Z, G in zip(at.Z, F, strict=True)) + at.z @ f
        cost = objective(p, at.x)
        # Rounding takes the dual off its equations where the Schur complement is nearly singular; a further step puts it back.
        off = np.abs(_adjoint(p, at.Z, at.z) - _costs(p)).sum() * max(cost, 1.0)
        aim = tolerance(cost)
        if max(gap, off) <= aim:
            return at, step
        pairs = p.n * len(F) + len(f)
        try:
            at, length = _advance(p, at, F, f, gap / pairs, 0.05 * aim / pairs)
        except np.linalg.LinAlgError:
            return at, step
        if length < 1e-4:
            return at, step
    return at, most


def _costs(p):
    costs = np.full(len(p.edges) + p.level, p.cost_w)
    if p.level:
        costs[-1] = p.cost_s
    return costs


def objective(p, x):
    """Return the cost of x."""
    m = len(p.edges)
    return p.cost_w * x[:m].sum() + (p.cost_s * x[m] if p.level else 0.0)


def slacks(p, x):
    """Return (list of F_b, vector of the linear slacks)."""
    dF, df = _images(p, x)
    F = [C + D for C, D in zip(p.constants, dF, strict=True)]
    if p.diagonal:
        df[-p.n :] += 1.0
    return F, df


def laplacian(n, edges, w):
    """Return sum_l w_l a_l a_l'."""
    i, j = edges.T
    L = np.zeros((n, n))
    L[i, j] = L[j, i] = -w
    np.fill_diagonal(L, np.bincount(edges.ravel(), np.repeat(w, 2), minlength=n))
    return L


def quadratic(Z, edges):
    """Return a_l' Z a_l = Z_ii + Z_jj - 2 Z_ij of a symmetric Z for each edge, (m,)."""
    i, j = edges.T
    d = np.diagonal(Z)
    return d[i] + d[j] - 2.0 * Z[i, j]


def _images(p, x):
    """Return what x adds to the slacks: its linear image."""
    m = len(p.edges)
    w, L = x[:m], laplacian(p.n, p.edges, x[:m])
    images = [sign * L for sign in p.signs]
    for image in images:
        if p.level:
            image.flat[:: p.n + 1] += x[m]
    at_vertices = np.bincount(p.edges.ravel(), np.repeat(w, 2), minlength=p.n)
    return images, np.concatenate([w if p.positive else w[:0], -at_vertices if p.diagonal else w[:0]])


def _adjoint(p, Z, z):
    """Return the adjoint of `_images` at the multipliers: what the dual holds equal to the cost."""
    i, j = p.edges.T
    m = len(p.edges)
    w = sum(sign * quadratic(block, p.edges) for sign, block in zip(p.signs, Z, strict=True))
    if p.positive:
        w = w + z[:m]
    if p.diagonal:
        q = z[-p.n :]
        w = w - q[i] - q[j]
    return np.append(w, sum(np.trace(block) for block in Z)) if p.level else w


def _advance(p, at, F, f, mu, least):
    """Return (the next Point, the shorter of the two step lengths); mu is not aimed below `least`."""
    inverse = [_inverse(G) for G in F]
    factor = _Factor(_schur(p, at, inverse, f))
    cost = _costs(p)

    def direction(target, second, second_f):
        """Solve for the step towards Z F = target I, less the second-order terms."""
        pull = [target * X - S for X, S in zip(inverse, second, strict=True)]
        pull_f = (target - second_f) / f
        dx = factor.solve(_adjoint(p, pull, pull_f) - cost)
        dF, df = _images(p, dx)
        dZ = [P - Z - _symmetric(Z @ D @ X) for P, Z, D, X in zip(pull, at.Z, dF, inverse, strict=True)]
        return dx, dF, df, dZ, pull_f - at.z - at.z * df / f

    zero = [np.zeros((p.n, p.n))] * len(F)
    _, dF, df, dZ, dz = direction(0.0, zero, 0.0)
    primal, dual = _length(F, dF, f, df, 0.3), _length(at.Z, dZ, at.z, dz, 0.3)
    ahead = sum(np.vdot(Z + dual * D, G + primal * E) for Z, D, G, E in zip(at.Z, dZ, F, dF, strict=True))
    ahead += (at.z + dual * dz) @ (f + primal * df)
    share = max(ahead / (mu * (p.n * len(F) + len(f))), 0.0)
    # The usual cube where the predictor goes far; more centring where it gets stuck.
    target = max(mu * min(share**3 if min(primal, dual) > 0.1 else share, 1.0), min(least, mu))
    second = [_symmetric(D @ E @ X) for D, E, X in zip(dZ, dF, inverse, strict=True)]
    dx, dF, df, dZ, dz = direction(target, second, dz * df)
    primal, dual = _length(F, dF, f, df, 0.03), _length(at.Z, dZ, at.z, dz, 0.03)
    keep = 0.9 + 0.08 * min(primal, dual)
    primal, dual = (length if length == 1.0 else keep * length for length in (primal, dual))
    Z = [block + dual * D for block, D in zip(at.Z, dZ, strict=True)]
    return Point(at.x + primal * dx, Z, at.z + dual * dz), min(primal, dual)


def _schur(p, at, inverse, f):
    m = len(p.edges)
    M = np.zeros((len(at.x), len(at.x)))
    for sign, Z, X in zip(p.signs, at.Z, inverse, strict=True):
        _add_products(M, [Z, X], p.edges, -1)
        if p.level:
            both = _symmetric(Z @ X)
            M[m, :m] += sign * quadratic(both, p.edges)
            M[m, m] += np.trace(both)
    if p.level:
        M[:m, m] = M[m, :m]
    ratio = at.z / f
    if p.positive:
        M.flat[: m * (len(M) + 1) : len(M) + 1] += ratio[:m]
    if p.diagonal:
        _add_products(M, [np.diag(ratio[-p.n :])], p.edges, 1)
    return M


def _add_products(M, matrices, edges, sign):
    """Add to M[k, l] the product over the symmetric X in `matrices` of b_k' X b_l, b_k = e_i + sign e_j for k = {i, j}.

    Whole rows are gathered, so many at once as stay in the cache.
    """
    i, j = edges.T
    m = len(edges)
    halves = [np.ascontiguousarray((X[i] + sign * X[j]).T) for X in matrices]
    for k in range(0, m, BLOCK):
        here = slice(k, min(k + BLOCK, m))
        product = 1.0
        for half in halves:
            rows = half[j[here]]
            rows *= sign
            rows += half[i[here]]
            product = rows * product
        M[here, :m] += product


def _symmetric(A):
    return (A + A.T) / 2.0


def _inverse(F):
    root = np.linalg.inv(np.linalg.cholesky(F))
    return root.T @ root


def _length(blocks, steps, values, changes, accuracy):
    """Return a length up to 1, within a share of the longest that keeps blocks positive definite and values positive."""
    falling = changes < 0
    longest = min(1.0, float((values[falling] / -changes[falling]).min(initial=np.inf)))

    def inside(length):
        try:
            for block, step in zip(blocks, steps, strict=True):
                np.linalg.cholesky(block + length * step)
        except np.linalg.LinAlgError:
            return False
        return True

    if inside(longest):
        return longest
    low, high = 0.0, longest
    while high - low > accuracy * low and high > 1e-5:
        middle = (low + high) / 2.0
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low


class _Factor:
    """Cholesky factor of a matrix, which is overwritten; numpy solves no triangular systems, so blocks of rows are taken in turn."""

    def __init__(self, M):
        # Scaled to a unit diagonal: w and s have sizes of their own.
        self.scale = 1.0 / np.sqrt(np.diagonal(M))
        self.M = M
        self.M *= self.scale
        self.M *= self.scale[:, None]
        self.L = np.linalg.cholesky(self.M)

    def solve(self, b):
        b = b * self.scale
        x = self._solve(b)
        x += self._solve(b - self.M @ x)  # one refinement: near the optimum the matrix is nearly singular
        return x * self.scale

    def _solve(self, b):
        L, x = self.L, b.copy()
        starts = range(0, len(b), BLOCK)
        for k in starts:
            here = slice(k, k + BLOCK)
            x[here] = np.linalg.solve(L[here, here], x[here] - L[here, :k] @ x[:k])
        for k in reversed(starts):
            here, after = slice(k, k + BLOCK), slice(k + BLOCK, None)
            x[here] = np.linalg.solve(L[here, here].T, x[here] - L[after, here].T @ x[after])
        return x
