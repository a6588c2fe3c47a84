"""Random streams keyed by (seed, purpose, vertex, step), never by rank.

Two runs that place the same vertices on different ranks draw the same numbers.
"""

import zlib

import numpy as np


def generator(seed, purpose, vertex=0, step=0):
    """Return the numpy Generator of (seed, purpose, vertex, step); a local operation.

    `purpose` is a word ('partition', 'shuffle', 'augment', ...): two purposes never share a stream.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, purpose, vertex, step)))


def torch_seed(seed, purpose, vertex=0, step=0):
    """Return the 63-bit integer that seeds a torch generator for (seed, purpose, vertex, step)."""
    high, low = _sequence(seed, purpose, vertex, step).generate_state(2, np.uint32)
    return (int(high) << 31) ^ int(low)


def _sequence(seed, purpose, vertex, step):
    return np.random.SeedSequence((seed, zlib.crc32(purpose.encode()), vertex, step))
