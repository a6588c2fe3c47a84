"""Compressors of a matrix to r of its directions: what is sent are the factors, r (m + n) numbers.

A vector is laid row by row into m x n, m the divisor of d nearest sqrt(d), padded with zeros where it has none but 1. A
tensor of a network is its first dimension by the others.
"""

import math

import numpy as np

from mpiconsensus.compress.base import Compressor, floats, joined


def matrix_shape(d, shape=None):
    """Return (m, n) of a vector of d elements, or of a tensor's shape."""
    if shape is not None and len(shape) > 1:
        return shape[0], d // shape[0]
    root = math.sqrt(d)
    divisors = [m for m in range(1, d + 1) if d % m == 0] if d < 10_000 else _divisors(d)
    m = min(divisors, key=lambda m: (abs(m - root), m))
    if m == 1 and d > 3:  # a prime: the square that holds it
        m = math.isqrt(d - 1) + 1
        return m, -(-d // m)
    return m, d // m


def _divisors(d):
    small = [m for m in range(1, math.isqrt(d) + 1) if d % m == 0]
    return small + [d // m for m in small]


def orthonormal(a):
    """Return an orthonormal basis of the columns of a (m, r): Householder QR."""
    return np.linalg.qr(a)[0]


class LowRank(Compressor):
    """factors(a, random) -> (P (m, r), Q (n, r)): C(a) = P Q'. Both are sent; NaN where an element is not finite."""

    def __init__(self, d, dtype=np.float32, shape=None, r=1):
        super().__init__(d, dtype, shape)
        self.m, self.n = matrix_shape(d, shape)
        self.r = min(r, self.m, self.n)
        self._padded = np.zeros(self.m * self.n, self.dtype) if self.m * self.n > d else None

    @property
    def constant(self):
        return self.r / min(self.m, self.n)

    @property
    def bits(self):
        return self.b * self.r * (self.m + self.n)

    @property
    def longest(self):
        return self.dtype.itemsize * self.r * (self.m + self.n)

    def matrix(self, x):
        if self._padded is None:
            return x.reshape(self.m, self.n)
        self._padded[: self.d] = x
        return self._padded.reshape(self.m, self.n)

    def encode(self, x, random):
        if not (np.isfinite(x.max()) and np.isfinite(x.min())):
            return np.full(self.longest // self.dtype.itemsize, np.nan, self.dtype).view(np.uint8)
        return joined(*self.factors(self.matrix(x), random))

    def decode(self, message, out, random):
        numbers = floats(message, self.dtype)
        p, q = numbers[: self.m * self.r].reshape(self.m, self.r), numbers[self.m * self.r :].reshape(self.n, self.r)
        out[:] = (p @ q.T).reshape(-1)[: self.d]


class SVD(LowRank):
    name = "svd"
    formula = "the best matrix of rank r: r singular vectors and values"

    def factors(self, a, random):
        u, s, vt = np.linalg.svd(a, full_matrices=False)
        return u[:, : self.r] * s[: self.r], vt[: self.r].T


class RandomisedSVD(LowRank):
    """Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1: a sketch of r + p columns after q power steps, cut to rank r."""

    name = "randomised-svd"
    formula = "rank r of a sketch with p more columns and q power steps; Halko, Martinsson & Tropp 2011"
    draws = True

    def __init__(self, d, dtype=np.float32, shape=None, r=1, p=4, q=1):
        super().__init__(d, dtype, shape, r)
        self.sketch, self.steps = min(self.r + p, self.m, self.n), q

    def factors(self, a, random):
        basis = orthonormal(a @ random.standard_normal((self.n, self.sketch)).astype(self.dtype))
        for _ in range(self.steps):
            basis = orthonormal(a @ orthonormal(a.T @ basis))
        u, s, vt = np.linalg.svd(basis.T @ a, full_matrices=False)
        return basis @ (u[:, : self.r] * s[: self.r]), vt[: self.r].T


class PowerStep(LowRank):
    """P = orth(A Q), Q = A' P, Q kept for the next time (Vogels, Karimireddy & Jaggi 2019, algorithm 1).

    A column of Q that A maps to almost nothing would find nothing: it is drawn anew. Q is the state of whoever encodes.
    """

    name = "power-step"
    formula = "P = orth(A Q), Q = A'P, from the Q of the last time; PowerSGD, Vogels et al. 2019"
    draws = True
    TINY = 1e-3  # what a column finds of A, as a share of what a random one does

    def __init__(self, d, dtype=np.float32, shape=None, r=1):
        super().__init__(d, dtype, shape, r)
        self.q = None

    @property
    def constant(self):
        """None from a given Q; a fresh Gaussian one has r / min(m, n) in expectation."""
        return None

    def factors(self, a, random):
        if self.q is None:
            self.q = random.standard_normal((self.n, self.r)).astype(self.dtype)
        norm = np.linalg.norm(a)
        if norm == 0:
            return np.zeros((self.m, self.r), self.dtype), self.q
        found, sizes = np.linalg.norm(a @ self.q, axis=0), np.linalg.norm(self.q, axis=0)
        blind = found <= self.TINY * norm * sizes / math.sqrt(self.n)
        if blind.any():
            self.q[:, blind] = random.standard_normal((self.n, int(blind.sum())))
        p = orthonormal(a @ self.q)
        self.q = a.T @ p
        return p, self.q

    def state_dict(self):
        return {"q": self.q}

    def load_state_dict(self, state):
        self.q = state["q"]


class PivotedQR(LowRank):
    """Q Q'A for the r columns of A that greedy pivoting takes: the longest of what those before leave over, r times.

    Every column taken leaves at most 1 - 1 / (columns left) of the rest, so that 1 - r / n is left in the end. R = Q'A is
    sent in the order of the columns: the pivots, which the formula counts, are not needed.
    """

    name = "pivoted-qr"
    formula = "QR with column pivoting, cut to r columns"

    @property
    def constant(self):
        return 1.0 if self.r == min(self.m, self.n) else self.r / self.n

    @property
    def bits(self):
        return self.b * self.r * (self.m + self.n) + self.r * (self.n - 1).bit_length()

    def factors(self, a, random):
        largest = np.abs(a).max()
        if largest == 0:
            return np.zeros((self.m, self.r), self.dtype), np.zeros((self.n, self.r), self.dtype)
        rest, q = a / largest, np.zeros((self.m, self.r), self.dtype)
        for j in range(self.r):
            lengths = np.einsum("ij,ij->j", rest, rest)
            pivot = lengths.argmax()
            if lengths[pivot] <= (self.m * np.finfo(self.dtype).eps) ** 2:
                break  # rounding is all that is left
            column = rest[:, pivot].copy()
            column -= q @ (q.T @ column)  # what rounding left of the columns before
            q[:, j] = column / np.linalg.norm(column)
            rest -= np.outer(q[:, j], q[:, j] @ rest)
        return q, a.T @ q


class Subspace(LowRank):
    """(m / r) Q Q'A for a random r-dimensional subspace that all ranks draw alike: only Q'A is sent, and such messages add up."""

    name = "subspace"
    formula = "(m / r) Q Q'A, Q orthonormal from a shared seed; Q'A is sent"
    unbiased = shared = draws = True

    @property
    def constant(self):
        return self.m / self.r

    @property
    def bits(self):
        return self.b * self.r * self.n

    @property
    def longest(self):
        return self.dtype.itemsize * self.r * self.n

    def encode(self, x, random):
        return joined(self._basis(random).T @ self.matrix(x))

    def decode(self, message, out, random):
        sent = floats(message, self.dtype).reshape(self.r, self.n)
        out[:] = (self._basis(random) @ sent).reshape(-1)[: self.d] * self.dtype.type(self.m / self.r)

    def _basis(self, random):
        # the signs that QR fixes do not matter: Q Q' is the projection onto a uniformly random subspace
        return orthonormal(random.standard_normal((self.m, self.r)).astype(self.dtype))
