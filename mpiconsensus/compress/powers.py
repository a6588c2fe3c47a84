"""Compressors that keep sign and exponent: natural and power of two.

In the bits of a float the exponent stands above the mantissa: adding to the mantissa and dropping it rounds to a power of
two, and what is added says how. A message is a byte an exponent (11 bits for float64) and a bit a sign.
"""

import math

import numpy as np

from mpiconsensus.compress import bits
from mpiconsensus.compress.base import Compressor, joined

# bits of mantissa and exponent, the integers and the random ones that fit
LAYOUT = {4: (23, 8, np.int32, np.uint32), 8: (52, 11, np.int64, np.uint64)}
PIECE = 1 << 15  # elements that stay in the cache from pass to pass


class Powers(Compressor):
    """sign(x) 2^e; zero stays zero. Below the smallest normal number a value goes to it or to zero; infinity and NaN become
    the largest power: whoever sends gradients checks that they are finite."""

    def __init__(self, d, dtype=np.float32, shape=None):
        super().__init__(d, dtype, shape)
        self.mantissa, self.exponent, self.integer, self.natural = LAYOUT[self.dtype.itemsize]
        self._work = np.empty(min(d, PIECE), self.integer)

    @property
    def bits(self):
        return 9 * self.d

    @property
    def longest(self):
        return bits.packed_bytes(self.exponent, self.d) + bits.packed_bytes(1, self.d)

    def encode(self, x, random):
        whole = x.view(self.integer)
        exponents = np.empty(self.d, np.uint8 if self.exponent == 8 else np.uint16)
        magnitude = self.integer(np.iinfo(self.integer).max)
        limit = self.integer((1 << self.exponent) - 2)  # the largest exponent of a number
        for start in range(0, self.d, PIECE):
            part = slice(start, start + PIECE)
            work = self._work[: len(whole[part])]
            np.bitwise_and(whole[part], magnitude, out=work)
            self.add(work, random)
            np.right_shift(work, self.mantissa, out=work)
            np.minimum(work, limit, out=work)
            exponents[part] = work
        signs = np.packbits(np.signbit(x), bitorder="little")
        return joined(exponents if self.exponent == 8 else bits.pack(exponents, self.exponent), signs)

    def decode(self, message, out, random):
        size = self.d if self.exponent == 8 else bits.packed_bytes(self.exponent, self.d)
        exponents = message[:size] if self.exponent == 8 else bits.unpack(message[:size], self.exponent, self.d)
        whole = out.view(self.integer)
        np.left_shift(exponents.astype(self.integer), self.mantissa, out=whole)
        signs = np.unpackbits(message[size:], count=self.d, bitorder="little")
        np.copysign(out, np.float32(0.5) - signs, out=out)

    def add(self, work, random):
        """Add to the magnitudes, as integers, what makes the mantissa carry into the exponent where it should."""
        work += self.integer(self.step)


class Natural(Powers):
    """A mantissa m of 2^-23 goes up with probability m: as often as a random number of its bits makes it carry."""

    name = "natural"
    formula = "+-a 2^e to 2^e with probability 2 - a, else to 2^(e+1); Horvath et al. 2019"
    unbiased = draws = True
    constant = 9 / 8

    def add(self, work, random):
        size = self.dtype.itemsize
        drawn = random.bit_generator.random_raw(-(-len(work) * size // 8)).view(self.natural)[: len(work)]
        work += np.right_shift(drawn, self.natural(8 * size - self.mantissa), out=drawn).view(self.integer)


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
