"""Ends of the spectrum of weighted Laplacians and of symmetric W, on the complement of the vector of ones, at any scale.

W = I - L_w, where L_w is the Laplacian of the graph with W's weights on its edges; so one routine finds both ends for
the graph (w = 1) and for W. In turn: a closed form, a dense solver up to DENSE vertices, the sparse inverse where its
factor is known to stay small, else Lanczos. Past DENSE vertices scipy is needed.

Nothing is given that was not checked: an end is an interval that its residual proves to hold an eigenvalue. Where
Lanczos has not come that far, the interval is the one of Kuczynski and Wozniakowski, "Estimating the largest
eigenvalue by the power and Lanczos algorithms with a random start", SIAM J. Matrix Anal. Appl. 13 (1992), theorem 4.2:
after k steps from a random vector the end is off by more than eps times the spread of the spectrum with a probability
of at most 1.648 sqrt(n) exp(-sqrt(eps) (2k - 1)).
"""

import math
from typing import NamedTuple

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator

DENSE = 1500
# An interval narrower than this, relatively, is a number.
NARROW = 2e-6
MOST_STEPS = 4000
# The chance that a Kuczynski-Wozniakowski interval misses.
CHANCE = 1e-9
# Entries of a factor of the Laplacian: 12 bytes each, twice.
MOST_FILL = 40_000_000


class Found(NamedTuple):
    """A figure between low and high, and how it was found; one number where they are close."""

    low: float
    high: float
    how: str

    @property
    def narrow(self):
        return self.high - self.low <= NARROW * abs(self.high)

    @property
    def value(self):
        """The number in the middle, or None where the interval is wide."""
        return (self.low + self.high) / 2 if self.narrow else None


def laplacian(net):
    """Return (algebraic connectivity, largest eigenvalue) of the unweighted Laplacian of an undirected Net, as Found."""
    if net.n > DENSE and (known := closed_form(net)):
        return tuple(Found(value, value, "closed form") for value in known)
    return ends(net.n, net.edges, np.ones(len(net.edges)))


def gap(net, mixing, of_laplacian=None):
    """Return 1 - |lambda_2| of a symmetric W as Found; `of_laplacian` is what `laplacian(net)` returned, if it is known.

    Where all edges carry the same weight c, W = I - c L, and the ends of L tell.
    """
    w = mixing.edge_weight
    if np.ptp(w) == 0:
        low, high = (Found(w[0] * end.low, w[0] * end.high, end.how) for end in of_laplacian or laplacian(net))
    else:
        low, high = ends(net.n, net.edges, w)
    # An eigenvalue 1 - mu of W has modulus 1 - min(mu, 2 - mu).
    least, most = min(low.low, 2 - high.high), min(low.high, 2 - high.low)
    return Found(least, most, low.how)


def closed_form(net):
    """Return (smallest positive, largest) Laplacian eigenvalue that the spec of a Net tells, or None.

    Spectra: Brouwer, Haemers, "Spectra of graphs", Springer 2012, section 1.4. Products of graphs add eigenvalues. The numbers of
    vertices and edges must be those of the textbook's graph.
    """
    name, _, text = net.spec.partition(":")
    words = text.replace("x", ",").split(",")
    if net.directed or name not in SPECTRA or not all(word.isdecimal() for word in words):
        return None
    n, m, low, high = SPECTRA[name](*map(int, words))
    return (low, high) if (n, m) == (net.n, len(net.edges)) else None


def _cycle(n, *chords):
    k = np.arange(1, n)
    # The chord of half the cycle is one edge a pair of vertices, counted from both its ends.
    weight = [0.5 if 2 * c == n else 1.0 for c in (1, *chords)]
    mu = sum(w * 4 * np.sin(np.pi * c * k / n) ** 2 for w, c in zip(weight, (1, *chords), strict=True))
    return n, round(sum(weight) * n), mu.min(), mu.max()


def _path(n):
    return n, n - 1, 4 * math.sin(math.pi / (2 * n)) ** 2, 4 * math.cos(math.pi / (2 * n)) ** 2


def _product(factor):
    def figures(*sides):
        parts = [factor(side) if side > 2 else _path(2) for side in sides if side > 1]
        n = math.prod(part[0] for part in parts)
        return n, sum(part[1] * n // part[0] for part in parts), min(part[2] for part in parts), sum(part[3] for part in parts)

    return figures


SPECTRA = {
    "ring": _cycle,
    "circulant": _cycle,
    "path": _path,
    "torus": _product(_cycle),
    "grid": _product(_path),
    "hypercube": lambda d: (2**d, d * 2 ** (d - 1), 2.0, 2.0 * d),
    "complete": lambda n: (n, n * (n - 1) // 2, float(n), float(n)),
    "star": lambda n: (n, n - 1, 1.0, float(n)),
}


def ends(n, edges, w):
    """Return the (smallest, largest) eigenvalue as Found of the Laplacian with weights w (m,) on the complement of ones.

    `edges` (m, 2) connect n >= 2 vertices. Raises UserError past DENSE vertices where scipy is not installed.
    """
    if n <= DENSE:
        L = np.zeros((n, n))
        i, j = edges.T
        L[i, j] = L[j, i] = -w
        np.fill_diagonal(L, np.bincount(edges.ravel(), np.repeat(w, 2), minlength=n))
        # The vector of ones has eigenvalue 0; lifted by twice the largest it is out of the way of both ends.
        shift = 2 * np.abs(L).sum(axis=1).max()
        mu = np.linalg.eigvalsh(L + shift / n)
        return Found(mu[0], mu[0], "dense"), Found(mu[-2], mu[-2], "dense")
    L = _matrix(n, edges, w)
    inverse = _inverse(L, len(edges))
    if inverse is None:
        return _lanczos_ends(L)
    return _smallest_by(inverse, L), _lanczos_ends(L)[1]


def require_scipy(n):
    """Return the scipy modules sparse and linalg; UserError where they are not installed."""
    try:
        import scipy.linalg
        import scipy.sparse.linalg
    except ImportError:
        raise UserError(f"the spectrum of a graph of {n} vertices (past {DENSE}) needs scipy; install it: pip install scipy.") from None
    return scipy.sparse, scipy.linalg


def _matrix(n, edges, w):
    sparse, _ = require_scipy(n)
    i, j = edges.T
    everyone = np.arange(n)
    degree = np.bincount(edges.ravel(), np.repeat(w, 2), minlength=n)
    entries = np.concatenate([-w, -w, degree]), (np.concatenate([i, j, everyone]), np.concatenate([j, i, everyone]))
    return sparse.csr_array(entries, shape=(n, n))


def _lanczos_ends(L):
    n = L.shape[0]
    bound = 2 * L.diagonal().max()  # Gershgorin; weights that are not negative
    (low, _, x), (high, _, y), k = lanczos(lambda v: L @ v, n, MOST_STEPS)
    eps = min(1.0, (math.log(1.648 * math.sqrt(n) / CHANCE) / (2 * k - 1)) ** 2)
    r, s = (float(np.linalg.norm(L @ v - value * v)) for value, v in ((low, x), (high, y)))
    smallest = Found(max(low - r, 0.0), low, f"Lanczos, {k} steps")
    if not smallest.narrow:
        smallest = smallest._replace(low=max(0.0, low - eps * bound))
    largest = Found(high, high + s, f"Lanczos, {k} steps")
    if not largest.narrow:
        largest = largest._replace(high=min(bound, high / (1 - eps) if eps < 1 else bound))
    return smallest, largest


def _smallest_by(inverse, L):
    """Return the smallest eigenvalue from the largest of the inverse: its residual there, not that of L, is relative."""
    n = L.shape[0]
    _, (value, r, x), k = lanczos(inverse, n, MOST_STEPS, top_alone=True)
    # The Rayleigh quotient of L bounds from above, whatever the inverse's rounding.
    i, j = L.nonzero()
    other = i < j
    rayleigh = float((-L[i[other], j[other]] * (x[i[other]] - x[j[other]]) ** 2).sum() / (x @ x))
    low, high = 1 / (value + r), 1 / (value - r) if r < value else math.inf
    return Found(min(low, rayleigh), min(max(high, rayleigh), rayleigh * (1 + NARROW / 2)), f"inverse, {k} steps")


def lanczos(A, n, steps, top_alone=False):
    """Return (value, residual, vector) of the smallest and of the largest eigenvalue of a symmetric A, and the steps taken.

    At most `steps` of them; with `top_alone` the largest eigenvalue decides when it is enough. A maps (n,) to (n,) and the
    complement of ones into itself, where everything happens. Three vectors are kept: the basis is made a second time for
    the Ritz vectors, and nothing is orthogonalised again; copies of eigenvalues which that lets appear do not move the ends
    (Paige, "Accuracy and effectiveness of the Lanczos algorithm for the symmetric eigenproblem", Linear Algebra and its Applications 34, 1980).
    """
    _, linalg = require_scipy(n)
    alpha, beta = [], []
    check = 10
    for k, a, b, _ in _basis(A, n):
        alpha.append(a)
        beta.append(b)
        if k == check or k >= min(steps, n - 1) or b == 0:
            check = math.ceil(1.25 * check)
            found = [linalg.eigh_tridiagonal(alpha, beta[:-1], select="i", select_range=(e, e)) for e in (0, k - 1)]
            theta, s = [float(values[0]) for values, _ in found], [vectors[:, 0] for _, vectors in found]
            close = [abs(b * v[-1]) <= NARROW / 4 * abs(t) for t, v in zip(theta, s, strict=True)]
            if close[1] and (top_alone or close[0]) or k >= min(steps, n - 1) or b == 0:
                break
    x = np.zeros((2, n))
    for number, _, _, q in _basis(A, n):
        for e in range(2):
            x[e] += s[e][number - 1] * q
        if number == k:
            break
    answer = []
    for v in x:
        v /= np.linalg.norm(v)
        image = A(v)
        value = float(v @ image)
        answer.append((value, float(np.linalg.norm(image - value * v)), v))
    return *answer, k


def _basis(A, n):
    """Yield (k, alpha_k, beta_k, q_k) of the Lanczos recurrence from a random vector, the same at every call."""
    q = generator(0, "lanczos").standard_normal(n)
    q -= q.mean()
    q /= np.linalg.norm(q)
    before, b, k = np.zeros(n), 0.0, 0
    while True:
        k += 1
        r = A(q)
        r -= b * before
        a = float(r @ q)
        r -= a * q
        r -= r.mean()
        b = float(np.linalg.norm(r))
        yield k, a, b, q
        before, q = q, r / b


def _inverse(L, m):
    """Return the map v -> L^+ v on the complement of ones, or None where its factor might be large.

    It stays small where few edges are off a tree (at most 2 (m - n) vertices are left when those of degree 1 and 2 have been
    eliminated) and where the Cuthill-McKee order has a small profile, as grids and rings.
    """
    sparse, _ = require_scipy(L.shape[0])
    from scipy.sparse.csgraph import reverse_cuthill_mckee
    from scipy.sparse.linalg import splu

    n = L.shape[0]
    if m - n > 1000:
        order = reverse_cuthill_mckee(sparse.csr_matrix(L), symmetric_mode=True)
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n)
        i, j = L.nonzero()
        first = np.arange(n)
        np.minimum.at(first, place[i], place[j])
        if (np.arange(n) - first).sum() > MOST_FILL:
            return None
    # Grounded at the last vertex: a positive definite matrix, which needs no pivots.
    grounded = sparse.csc_matrix(L[:-1, :-1])
    factor = splu(grounded, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def solve(v):
        x = np.zeros(n)
        x[:-1] = factor.solve((v - v.mean())[:-1])
        return x - x.mean()

    return solve
