"""Compressors that keep sign and exponent: natural and power of two.

In the bits of a float the exponent stands above the mantissa: adding to the mantissa and dropping it rounds to a power of
two, and what is added says how. A message is a byte an exponent (11 bits for float64) and a bit a sign.
"""

import itertools
import math

import numpy as np

from mpiconsensus.compress import bits
from mpiconsensus.compress.base import PIECE, Compressor, pack_signs, put_signs

# bits of mantissa and exponent, and the integers that fit
LAYOUT = {4: (23, 8, np.uint32), 8: (52, 11, np.uint64)}


class Powers(Compressor):
    """sign(x) 2^e; zero stays zero. Below the smallest normal number a value goes to it or to zero, and no constant holds;
    infinity and NaN become the largest power: whoever sends gradients checks that they are finite."""

    def __init__(self, d, dtype=np.float32, shape=None):
        super().__init__(d, dtype, shape)
        self.mantissa, self.exponent, self.integer = LAYOUT[self.dtype.itemsize]
        self._work = np.empty(min(d, PIECE), self.integer)
        self._largest = np.finfo(self.dtype).max

    @property
    def bits(self):
        return 9 * self.d

    @property
    def longest(self):
        return bits.packed_bytes(self.exponent, self.d) + bits.packed_bytes(1, self.d)

    def encode(self, x, random):
        message = np.empty(self.longest, np.uint8)
        size = bits.packed_bytes(self.exponent, self.d)
        steps = self.steps(random)
        for start in range(0, self.d, PIECE):
            part = x[start : start + PIECE]
            work = self._work[: len(part)]
            # the dot product tells NaN, infinity and what comes near it, whose exponents may not carry into the sign
            with np.errstate(over="ignore", invalid="ignore"):
                safe = part if np.isfinite(np.dot(part, part)) else np.nan_to_num(np.abs(part), nan=self._largest)
            np.add(safe.view(self.integer), next(steps)[: len(work)], out=work)
            np.right_shift(work, self.integer(self.mantissa), out=work)
            if safe is not part:
                np.minimum(work, self.integer((1 << self.exponent) - 2), out=work)
            # pieces are whole bytes; the sign, which stands above the exponent, is cut off
            first, last = (bits.packed_bytes(self.exponent, at) for at in (start, start + len(work)))
            message[first:last] = work if self.exponent == 8 else bits.pack(work, self.exponent)
            signs = pack_signs(part)
            message[size + start // 8 :][: len(signs)] = signs
        return message

    def decode(self, message, out, random):
        size = bits.packed_bytes(self.exponent, self.d)
        whole = out.view(self.integer)
        for start in range(0, self.d, PIECE):
            work = whole[start : start + PIECE]
            first, last = (bits.packed_bytes(self.exponent, at) for at in (start, start + len(work)))
            exponents = message[first:last]
            work[:] = exponents if self.exponent == 8 else bits.unpack(exponents, self.exponent, len(work))
            np.left_shift(work, self.integer(self.mantissa), out=work)
        put_signs(message[size:], out)

    def steps(self, random):
        """Yield for each piece what makes the mantissas carry into the exponent where they should: (PIECE,) or (1,) integers."""
        return itertools.repeat(np.array([self.step], self.integer))


class Natural(Powers):
    """A mantissa m of 2^-23 goes up with probability m: as often as a random number of its bits makes it carry.

    From piece to piece the random numbers are the same but for an exclusive or with a word of the piece: any two of them
    are independent, which is all that means and variances ask for.
    """

    name = "natural"
    formula = "+-a 2^e to 2^e with probability 2 - a, else to 2^(e+1); Horvath et al. 2019"
    unbiased = draws = True
    constant = 9 / 8

    def steps(self, random):
        limit = 1 << self.mantissa
        drawn = random.integers(limit, size=min(self.d, PIECE), dtype=self.integer)
        yield drawn
        keys = random.integers(limit, size=-(-self.d // PIECE), dtype=self.integer)
        work = np.empty_like(drawn)
        for key in keys[1:]:
            yield np.bitwise_xor(drawn, key, out=work)


class PowerOfTwo(Powers):
    name = "power-of-two"
    formula = "to the nearer power of two, the break at 1.5 * 2^e"
    constant = 8 / 9

    @property
    def step(self):
        return 1 << (self.mantissa - 1)


class PowerOfTwoLog(Powers):
    name = "power-of-two-log"
    formula = "to the power of two that is nearer by logarithm, the break at sqrt(2) * 2^e"
    constant = 2 * math.sqrt(2) - 2

    @property
    def step(self):
        return (2 << self.mantissa) - int(math.sqrt(2) * (1 << self.mantissa)) - 1
