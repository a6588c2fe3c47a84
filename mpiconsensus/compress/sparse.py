"""Compressors that keep k of d elements: the largest, random ones, weighted ones.

The values kept go through a compressor of their own where one is named: `top-k:0.2+power-of-two`.
"""

import numpy as np

from mpiconsensus.compress import support
from mpiconsensus.compress.base import PIECE, Compressor, floats, joined


class Sparse(Compressor):
    """k elements by an order of the subclass. inner: the class of the compressor of the values kept, or None.

    In a contractive one an unbiased compressor of the values is scaled, so that it is contractive itself.
    """

    def __init__(self, d, dtype=np.float32, shape=None, k=1, inner=None):
        super().__init__(d, dtype, shape)
        self.k = k
        self.inner = inner(k, dtype) if inner else None
        self.draws = self.draws or bool(inner and inner.draws)

    @property
    def told(self):
        return f"{self.formula}; of these values: {self.inner.formula}" if self.inner else self.formula

    @property
    def constant(self):
        share = self.k / self.d
        if self.inner is None:
            return share
        return None if self.inner.alpha is None else share * self.inner.alpha

    @property
    def fixed(self):
        return self.shared or self.k == self.d

    @property
    def longest(self):
        values = self.inner.longest if self.inner else self.k * self.dtype.itemsize
        return values + (0 if self.shared else support.longest(self.d, self.k))

    @property
    def values_sent(self):
        return self.k

    @property
    def summable(self):
        return self.shared and self.inner is None

    @property
    def bits(self):
        values = self.inner.bits if self.inner else self.b * self.k
        return values + (0 if self.shared else support.index_bits(self.d, self.k))

    def encode(self, x, random):
        chosen = self.select(x, random)
        values = self.values(x, chosen)
        places = np.zeros(0, np.uint8) if self.shared else support.encode(chosen, self.d)
        return joined(places, self.inner.encode(values, random) if self.inner else values)

    def decode(self, message, out, random):
        out[:] = 0
        self.add_to(message, [(out, 1.0)], random)

    def add_to(self, message, targets, random):
        if self.shared:
            chosen, size = self.select(None, random), 0
        else:
            chosen, size = support.decode(message, self.d, self.k)
        values = self.payload(message[size:])
        for target, factor in targets:
            target[chosen] += self.dtype.type(factor) * values

    def payload(self, message):
        if self.inner is None:
            return floats(message, self.dtype)
        values = np.empty(self.k, self.dtype)
        self.inner.decode(message, values, None)
        if self.inner.unbiased and not self.unbiased:
            values *= self.dtype.type(self.inner.scale)
        return values

    def values(self, x, chosen):
        """Return what is sent for the elements of x at the indices chosen."""
        return x[chosen]


def largest(x, k):
    """Return the ascending indices of the k largest |x|; among equals the lower index wins. NaN counts as beyond infinity.

    The magnitudes are compared as integers, the bits of a float without its sign, which are in the same order. A floor that a
    sample makes likely leaves few candidates; where it leaves fewer than k, all but zeros are: the answer is exact.
    """
    if k >= len(x):
        return np.arange(len(x))
    whole = x.view(f"i{x.itemsize}")
    floor, ceiling = _likely_bounds(whole, k) if len(x) > SAMPLE else (1, np.iinfo(whole.dtype).max)
    found = _at_least(whole, max(floor, 1))
    if len(found) < k:
        found = _at_least(whole, 1)
    if len(found) <= k:
        zeros = np.flatnonzero(x == 0)[: k - len(found)]
        return np.sort(np.concatenate([found, zeros]))
    sizes = _magnitudes(whole[found])
    edge = _nth(sizes, k, ceiling)
    keep = sizes >= edge
    surplus = np.count_nonzero(keep) - k
    if surplus:
        keep[np.flatnonzero(sizes == edge)[-surplus:]] = False
    return found[keep]


SAMPLE = 1 << 16


def _magnitudes(whole, out=None):
    return np.bitwise_and(whole, np.iinfo(whole.dtype).max, out=out)


def _likely_bounds(whole, k):
    """Return two magnitudes: at least k elements reach the one, and fewer the other, but for a chance of about 1e-4 each."""
    drawn = _magnitudes(whole[np.random.default_rng(0).integers(len(whole), size=SAMPLE)])
    expected = SAMPLE * k / len(whole)
    spread = 4 * np.sqrt(expected) + 4
    low, high = (min(max(int(rank), 1), SAMPLE) for rank in (expected + spread, expected - spread))
    drawn.partition((SAMPLE - low, SAMPLE - high))
    return drawn[SAMPLE - low], drawn[SAMPLE - high]


def _nth(sizes, k, ceiling):
    """Return the k-th largest of the sizes, from those below the ceiling where fewer than k reach it."""
    below = sizes[sizes < ceiling]
    wanted = k - (len(sizes) - len(below))
    if wanted < 1:
        below, wanted = sizes, k
    return np.partition(below, len(below) - wanted)[len(below) - wanted]


def _at_least(whole, floor):
    """Return the ascending indices of the magnitudes of at least `floor`."""
    reached = np.empty(len(whole), bool)
    work = np.empty(PIECE, whole.dtype)
    for start in range(0, len(whole), PIECE):
        part = whole[start : start + PIECE]
        np.greater_equal(_magnitudes(part, work[: len(part)]), floor, out=reached[start : start + PIECE])
    return np.flatnonzero(reached)


class TopK(Sparse):
    name = "top-k"
    formula = "the k largest magnitudes; among equals the lower index"

    def select(self, x, random):
        return largest(x, self.k)


class RandK(Sparse):
    """Biased: the elements as they are."""

    name = "rand-k"
    formula = "k elements drawn without replacement from a shared seed, as they are"
    shared = draws = True

    def select(self, x, random):
        return np.sort(random.choice(self.d, self.k, replace=False, shuffle=False))


class RandKUnbiased(RandK):
    name = "rand-k-unbiased"
    formula = "k elements drawn without replacement from a shared seed, times d / k"
    unbiased = True

    @property
    def constant(self):
        return self.d / self.k * (self.inner.constant if self.inner else 1.0)

    def values(self, x, chosen):
        return x[chosen] * self.dtype.type(self.d / self.k)
