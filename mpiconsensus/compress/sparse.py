"""Compressors that keep k of d elements: the largest, random ones, weighted ones.

The values kept go through a compressor of their own where one is named: `top-k:0.2+power-of-two`.
"""

import numpy as np

from mpiconsensus.compress import support
from mpiconsensus.compress.base import Compressor, floats, joined


class Sparse(Compressor):
    """k elements by an order of the subclass. inner: the class of the compressor of the values kept, or None.

    In a contractive one an unbiased compressor of the values is scaled, so that it is contractive itself.
    """

    def __init__(self, d, dtype=np.float32, shape=None, k=1, inner=None):
        super().__init__(d, dtype, shape)
        self.k = k
        self.inner = inner(k, dtype) if inner else None

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
        values = self.values(x[chosen])
        places = np.zeros(0, np.uint8) if self.shared else support.encode(chosen, self.d)
        return joined(places, self.inner.encode(values, random) if self.inner else values)

    def decode(self, message, out, random):
        if self.shared:
            self.decode_payload(self.payload(message), out, random)
            return
        chosen, size = support.decode(message, self.d, self.k)
        out[:] = 0
        out[chosen] = self.payload(message[size:])

    def payload(self, message):
        if self.inner is None:
            return floats(message, self.dtype)
        values = np.empty(self.k, self.dtype)
        self.inner.decode(message, values, None)
        if self.inner.unbiased and not self.unbiased:
            values *= self.dtype.type(self.inner.scale)
        return values

    def decode_payload(self, values, out, random):
        out[:] = 0
        out[self.select(None, random)] = values

    def values(self, kept):
        """Return what is sent for the elements kept."""
        return kept


def largest(x, k):
    """Return the ascending indices of the k largest |x|; among equals the lower index wins."""
    if k >= len(x):
        return np.arange(len(x))
    size = np.abs(x)
    found = np.argpartition(size, len(x) - k)[len(x) - k :]
    least = size[found].min()
    # argpartition takes any of those that tie at the edge
    sure = np.flatnonzero(size > least)
    ties = np.flatnonzero(size == least)[: k - len(sure)]
    return np.sort(np.concatenate([sure, ties]))


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

    def values(self, kept):
        return kept * self.dtype.type(self.d / self.k)
