"""Who owns which sample: division of a data set over vertices, and held-out parts.

All functions are local and pure: the same arguments give the same indices on every rank.
"""

import math
from fractions import Fraction

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator


def divide(count, n, seed, powers=None):
    """Return n ascending int64 index arrays that divide 0..count-1 at random.

    Independent and identically distributed parts: a random permutation, cut into pieces of `sizes(...)`.
    Raise UserError as `sizes` does.
    """
    cuts = np.cumsum(sizes(count, n, powers))[:-1]
    order = generator(seed, "partition").permutation(count).astype(np.int64, copy=False)
    return [np.sort(part) for part in np.split(order, cuts)]


def sizes(count, n, powers=None):
    """Return n sample counts in proportion to `powers` (None or empty: equal) that sum to `count`.

    Largest remainders take what the whole parts leave, the lower vertex first among equals; a vertex whose
    share is below one sample gets one from the largest. Raise UserError for powers that are not n positive
    numbers, and for fewer samples than vertices.
    """
    powers = check_powers(powers, n) or [1] * n
    if count < n:
        raise UserError(
            f"fewer samples than vertices: {count} samples for {n} vertices; choose a smaller graph or more data."
        )
    # Fractions: exact for every float, so that equal shares are equal.
    shares = [Fraction(power) for power in powers]
    total = sum(shares)
    shares = [count * share / total for share in shares]
    result = [math.floor(share) for share in shares]
    by_remainder = sorted(range(n), key=lambda i: result[i] - shares[i])
    for i in by_remainder[: count - sum(result)]:
        result[i] += 1
    for i in range(n):
        if result[i] == 0:
            result[result.index(max(result))] -= 1
            result[i] = 1
    return result


def check_powers(powers, n):
    """Return `powers` as a list (None or empty: None); raise UserError unless they are n positive finite numbers."""
    if powers is None or len(powers) == 0:
        return None
    powers = list(powers)
    if len(powers) != n:
        raise UserError(f"{len(powers)} powers for {n} vertices; give {n} positive numbers, one a vertex, or none.")
    for vertex, power in enumerate(powers):
        if not (power > 0 and math.isfinite(power)):
            raise UserError(f"the power of vertex {vertex} is {power}; give positive, finite numbers.")
    return powers


def hold_out(count, held, seed, vertex=0):
    """Return (kept, held) ascending int64 indices of a random division of 0..count-1; `held` of them held out."""
    order = generator(seed, "hold-out", vertex).permutation(count).astype(np.int64, copy=False)
    return np.sort(order[held:]), np.sort(order[:held])
