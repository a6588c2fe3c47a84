"""Integers of few bits, packed: what an index or a code takes on the wire.

numpy's packbits does the work, least significant bit first: bit j of all of them, then bit j + 1.
"""

import numpy as np


def pack(values, width):
    """Return the uint8 bytes of the `width` lower bits of non-negative integers: the lowest bit of all, then the next ones."""
    if width == 0 or len(values) == 0:
        return np.zeros(0, np.uint8)
    values = np.asarray(values).astype(_smallest(width))
    if width in (8, 16, 32):
        return values.view(np.uint8)
    planes = np.empty((width, len(values)), bool)
    for bit, plane in enumerate(planes):
        np.not_equal(np.bitwise_and(values, values.dtype.type(1 << bit)), 0, out=plane)
    return np.packbits(planes.reshape(-1), bitorder="little")


def unpack(message, width, count):
    """Return the `count` integers that `pack` was given, int64."""
    kind = _smallest(width)
    if width in (8, 16, 32) and count:
        return message[: count * width // 8].view(kind).astype(np.int64)
    planes = np.unpackbits(message, count=width * count, bitorder="little").reshape(width, count)
    values = np.zeros(count, kind)
    for bit, plane in enumerate(planes):
        values |= np.left_shift(plane, bit, dtype=kind)
    return values.astype(np.int64)


def _smallest(width):
    """Return the smallest unsigned integers, little endian, that hold `width` bits."""
    return np.dtype(next(f"<u{size}" for size in (1, 2, 4, 8) if width <= 8 * size))


def packed_bytes(width, count):
    """Return the length of `pack`'s answer."""
    return -(-width * count // 8)
