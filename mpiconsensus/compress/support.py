"""Which k of d elements a sparse message holds: a bitmap, Rice-coded gaps or plain indices, whatever is shortest.

I(d, k) is what the literature counts: the least of k ceil(log2 d), d and ceil(log2 C(d, k)) bits.
"""

import math

import numpy as np

from mpiconsensus.compress import bits

PLAIN, BITMAP, GAPS = range(3)


def index_bits(d, k):
    """Return I(d, k)."""
    if k == 0 or k == d:
        return 0
    log2 = (math.lgamma(d + 1) - math.lgamma(k + 1) - math.lgamma(d - k + 1)) / math.log(2)
    # lgamma is good to some 1e-12 of itself; where the binomial is small, it is exact in integers.
    choices = (math.comb(d, k) - 1).bit_length() if d <= 4096 else math.ceil(log2)
    return min(k * (d - 1).bit_length(), d, choices)


def encode(indices, d):
    """Return the bytes of ascending indices (k,) below d; their first tells how they are coded."""
    k = len(indices)
    if k == 0 or k == d:
        return np.zeros(1, np.uint8)
    width = (d - 1).bit_length()
    low = rice_parameter(d, k)
    gaps = np.diff(indices, prepend=-1) - 1
    quotients = gaps >> low
    coded = -(-int(k * low + quotients.sum() + k) // 8)
    plain, bitmap = bits.packed_bytes(width, k), -(-d // 8)
    if coded < min(plain, bitmap):
        return _tagged(GAPS, _unary(quotients), bits.pack(gaps & ((1 << low) - 1), low))
    if bitmap <= plain:
        map_ = np.zeros(d, bool)
        map_[indices] = True
        return _tagged(BITMAP, np.packbits(map_, bitorder="little"))
    return _tagged(PLAIN, bits.pack(indices, width))


def longest(d, k):
    """Return the bytes of the longest answer of `encode`."""
    return 1 if k in (0, d) else 1 + min(bits.packed_bytes((d - 1).bit_length(), k), -(-d // 8))


def decode(message, d, k):
    """Return (ascending indices (k,), bytes of the message that they took)."""
    if k == 0 or k == d:
        return np.arange(k), 1
    kind, body = int(message[0]), message[1:]
    if kind == PLAIN:
        width = (d - 1).bit_length()
        return bits.unpack(body, width, k), 1 + bits.packed_bytes(width, k)
    if kind == BITMAP:
        size = -(-d // 8)
        return np.flatnonzero(np.unpackbits(body[:size], count=d, bitorder="little")), 1 + size
    low = rice_parameter(d, k)
    quotients, size = _from_unary(body, d, k, low)
    rest = bits.packed_bytes(low, k)
    gaps = (quotients << low) + bits.unpack(body[size : size + rest], low, k)
    return np.cumsum(gaps + 1) - 1, 1 + size + rest


def rice_parameter(d, k):
    """Return the low bits of a gap that are written as they are: gaps are geometric with mean d / k (Golomb 1966; Rice 1979)."""
    return max(0, round(math.log2(max(1.0, math.log(2) * d / k))))


def _unary(quotients):
    """Return the bytes of numbers in unary: so many zeros, then a one."""
    ends = np.cumsum(quotients + 1)
    line = np.zeros(int(ends[-1]), np.uint8)
    line[ends - 1] = 1
    return np.packbits(line, bitorder="little")


def _from_unary(body, d, k, low):
    """Return ((k,) numbers in unary, bytes they took)."""
    # the zeros of all gaps together are at most the elements that are not chosen, in units of 2**low
    longest = k + ((d - k) >> low)
    size = min(len(body), -(-longest // 8))
    ones = np.flatnonzero(np.unpackbits(body[:size], bitorder="little"))[:k]
    return np.diff(ones, prepend=-1) - 1, -(-int(ones[-1] + 1) // 8)


def _tagged(kind, *parts):
    return np.concatenate([np.array([kind], np.uint8), *parts])
