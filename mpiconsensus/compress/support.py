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
    gaps = np.empty(k, np.int32 if d < 1 << 31 else np.int64)
    gaps[0] = indices[0]
    np.subtract(indices[1:], indices[:-1], out=gaps[1:], casting="unsafe")
    gaps[1:] -= 1
    ends = np.cumsum(gaps >> low, dtype=np.int64)
    ends += np.arange(k)  # where the ones of the unary numbers stand
    coded = -(-int(k * low + ends[-1] + 1) // 8)
    plain, bitmap = bits.packed_bytes(width, k), -(-d // 8)
    if coded < min(plain, bitmap):
        return _tagged(GAPS, _ones(ends, int(ends[-1]) + 1), bits.pack(gaps, low))
    if bitmap <= plain:
        return _tagged(BITMAP, _ones(indices, d))
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
        return _places(body[:size], d), 1 + size
    low = rice_parameter(d, k)
    # the zeros of all gaps together are at most the elements that are not chosen, in units of 2**low
    longest = min(8 * len(body), k + ((d - k) >> low))
    found = _places(body[: -(-longest // 8)], longest)[:k]
    size, rest, rank = -(-int(found[-1] + 1) // 8), bits.packed_bytes(low, k), np.arange(k)
    # up to the i-th one stand the quotients of i gaps and i ones: their sum needs no quotient of its own
    found -= rank
    found <<= low
    found += rank
    found += np.cumsum(bits.unpack(body[size : size + rest], low, k), out=rank)
    return found, 1 + size + rest


def rice_parameter(d, k):
    """Return the low bits of a gap that are written as they are: gaps are geometric with mean d / k (Golomb 1966; Rice 1979)."""
    return max(0, round(math.log2(max(1.0, math.log(2) * d / k))))


def _ones(places, count):
    """Return `count` bits, ones at the ascending places."""
    line = np.zeros(count, bool)
    line[places] = True
    return np.packbits(line, bitorder="little")


def _places(packed, count):
    """Return the places of the ones of `count` bits."""
    return np.flatnonzero(np.unpackbits(packed, count=count, bitorder="little").view(bool))


def _tagged(kind, *parts):
    return np.concatenate([np.array([kind], np.uint8), *parts])
