"""Integers of few bits, packed: what an index or a code takes on the wire.

All are arrays at once: numpy's packbits does the work, least significant bit first.
"""

import numpy as np


def pack(values, width):
    """Return the uint8 bytes of non-negative integers below 2**width, `width` bits each."""
    if width == 0 or len(values) == 0:
        return np.zeros(0, np.uint8)
    if width in (8, 16, 32):
        return np.asarray(values).astype(f"<u{width // 8}").view(np.uint8)
    little = np.asarray(values).astype("<u8").view(np.uint8).reshape(-1, 8)[:, : -(-width // 8)]
    columns = np.unpackbits(little, axis=1, count=width, bitorder="little")
    return np.packbits(columns.reshape(-1), bitorder="little")


def unpack(message, width, count):
    """Return the `count` integers that `pack` was given, int64."""
    if width == 0 or count == 0:
        return np.zeros(count, np.int64)
    if width in (8, 16, 32):
        return message[: count * width // 8].view(f"<u{width // 8}").astype(np.int64)
    columns = np.unpackbits(message, count=width * count, bitorder="little").reshape(count, width)
    size = -(-width // 8)
    little = np.zeros((count, 8), np.uint8)
    little[:, :size] = np.packbits(columns, axis=1, bitorder="little")
    return little.reshape(-1).view("<i8").astype(np.int64)


def packed_bytes(width, count):
    """Return the length of `pack`'s answer."""
    return -(-width * count // 8)
