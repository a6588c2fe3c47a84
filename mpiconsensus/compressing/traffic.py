"""What a compressed algorithm sends, ahead of a run, and how messages to all travel."""

from mpiconsensus.compress.base import FLOAT_BITS
from mpiconsensus.compress.codec import Codec


def way(codec, n, alike):
    """Return how messages to all travel: supports that all share are summed, others gathered, or summed dense where that moves less."""
    if codec.summable and alike:
        return "sum"
    return "gather" if (n - 1) * message_bytes(codec) <= ring_bytes(codec.count * codec.dtype.itemsize, n) else "dense"


def ring_bytes(size, n):
    """Return the bytes that a vertex sends so that all have the sum of n arrays of `size` bytes, as a ring does."""
    return 2 * (n - 1) * size // n


def message_bytes(codec):
    """Return the bytes of a message by formula, with the floats of the job's precision."""
    return codec.bits * codec.dtype.itemsize / FLOAT_BITS


def expected(algorithm, layout, options):
    """Return {bytes of a step by all vertices, the same uncompressed, how they travel}, by formula.

    The first step of some methods, which sends gradients as they are, is left out.
    """
    n, codec = algorithm.n, Codec(options.operator, layout, options.scope)
    algorithm.check(codec)
    dense = codec.count * codec.dtype.itemsize
    if algorithm.reach == "all":
        chosen = way(codec, n, algorithm.draws_alike)
        each = {"gather": (n - 1) * message_bytes(codec), "sum": ring_bytes(message_bytes(codec), n), "dense": ring_bytes(dense, n)}
        return {"sent": n * each[chosen], "uncompressed": n * ring_bytes(dense, n), "way": chosen, "gathered": n * each["gather"], "codec": codec}
    listeners = sum(sum(j != i for j in row) for i, row in algorithm.w.items()) * len(algorithm.parts)
    return {"sent": listeners * message_bytes(codec), "uncompressed": listeners * dense, "way": "neighbours", "gathered": 0.0, "codec": codec}
