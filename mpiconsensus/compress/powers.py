"""Compressors that keep sign and exponent: natural and power of two.

In the bits of a float the exponent stands above the mantissa: adding to the mantissa and dropping it rounds to a power of
two, and what is added says how. A message is a byte an exponent (11 bits for float64) and a bit a sign; an exponent is sent
as one more than it is, so that zeros, and what is not finite and carries past the largest, are its two smallest codes.
"""

import math

import numpy as np

from mpiconsensus.compress import bits
from mpiconsensus.compress.base import PIECE, Compressor, unpack_signs

# bits of mantissa and exponent, and the integers that fit
LAYOUT = {4: (23, 8, np.uint32), 8: (52, 11, np.uint64)}
BLOCK = 1 << 12  # random numbers that stay in the first cache; pieces are whole blocks


class Powers(Compressor):
    """sign(x) 2^e; zero stays zero. Below the smallest normal number a value goes to it or to zero, and no constant holds;
    infinity and NaN become the largest power: whoever sends gradients checks that they are finite."""

    def __init__(self, d, dtype=np.float32, shape=None):
        super().__init__(d, dtype, shape)
        self.mantissa, self.exponent, self.integer = LAYOUT[self.dtype.itemsize]
        self._largest = np.finfo(self.dtype).max

    @property
    def bits(self):
        return 9 * self.d

    @property
    def longest(self):
        return bits.packed_bytes(self.exponent, self.d) + bits.packed_bytes(1, self.d)

    def encode(self, x, random):
        message = np.empty(self.longest, np.uint8)
        size, drawn = bits.packed_bytes(self.exponent, self.d), self.draw(random)
        piece = min(self.d, PIECE)
        whole, negatives = np.empty(piece, self.integer), np.empty(piece, bool)
        for start in range(0, self.d, PIECE):
            part = x[start : start + PIECE]
            work, negative = whole[: len(part)], negatives[: len(part)]
            # pieces are whole bytes
            first, last = (bits.packed_bytes(self.exponent, at) for at in (start, start + len(part)))
            place = message[first:last]
            np.add(part.view(self.integer), self.addend(drawn, start, work), out=work)
            np.signbit(work.view(self.dtype), out=negative)
            codes = self._codes(work, place)
            if codes.min() <= 1:
                # the dot product tells NaN, infinity and what comes near it, whose exponents may have carried into the sign
                with np.errstate(over="ignore", invalid="ignore"):
                    finite = np.isfinite(np.dot(part, part))
                if not finite:
                    np.signbit(part, out=negative)
                    codes = self._within(part, drawn, start, work)
            if codes is not place:
                place[:] = codes if self.exponent == 8 else bits.pack(codes, self.exponent)
            signs = np.packbits(negative, bitorder="little")
            message[size + start // 8 :][: len(signs)] = signs
        return message

    def _codes(self, work, place):
        """Return the exponents of rounded numbers, each one more than it is, in `place` if bytes; the sign, above them, is cut off."""
        np.right_shift(work, self.integer(self.mantissa), out=work)
        if self.exponent != 8:
            return np.bitwise_and(work, self.integer((1 << self.exponent) - 1), out=work)
        place[:] = work
        return place

    def _within(self, part, drawn, start, work):
        """Return the codes of a piece in which something is not finite, or rounds to infinity: the largest power stands for that."""
        safe = np.nan_to_num(np.abs(part), nan=self._largest)
        np.add(safe.view(self.integer), self.addend(drawn, start, work), out=work)
        np.right_shift(work, self.integer(self.mantissa), out=work)
        return np.minimum(work, self.integer((1 << self.exponent) - 1), out=work)

    def decode(self, message, out, random):
        size = bits.packed_bytes(self.exponent, self.d)
        whole, piece = out.view(self.integer), min(self.d, PIECE)
        tops, exponents = np.empty(piece, np.uint16), np.empty(piece, np.uint16)
        for start in range(0, self.d, PIECE):
            work = whole[start : start + PIECE]
            top, exponent = tops[: len(work)], exponents[: len(work)]
            first, last = (bits.packed_bytes(self.exponent, at) for at in (start, start + len(work)))
            exponent[:] = message[first:last] if self.exponent == 8 else bits.unpack(message[first:last], self.exponent, len(work))
            # sign and exponent are put together while they are short
            top[:] = unpack_signs(message[size + start // 8 :], len(work))
            np.left_shift(top, self.exponent, out=top)
            top += exponent
            top -= 1
            work[:] = top
            np.left_shift(work, self.integer(self.mantissa), out=work)

    def draw(self, random):
        """Return what `addend` needs of the random numbers of a message."""

    def addend(self, drawn, start, work):
        """Return what makes the mantissas from `start` on carry where they should, and raises the exponent: a number, or `work` (n,)."""
        return self.integer(self.step + (1 << self.mantissa))


class Natural(Powers):
    """A mantissa m of 2^-23 goes up with probability m: as often as a random number of its bits makes it carry.

    From block to block the random numbers are the same but for an exclusive or with a word of the block: any two of them
    are independent, which is all that means and variances ask for.
    """

    name = "natural"
    formula = "+-a 2^e to 2^e with probability 2 - a, else to 2^(e+1); Horvath et al. 2019"
    unbiased = draws = True
    constant = 9 / 8

    def draw(self, random):
        limit = 1 << self.mantissa
        block = random.integers(limit, size=min(self.d, BLOCK), dtype=self.integer)
        return block + self.integer(limit), random.integers(limit, size=-(-self.d // BLOCK), dtype=self.integer)

    def addend(self, drawn, start, work):
        block, words = drawn
        first, (rows, rest) = start // BLOCK, divmod(len(work), BLOCK)
        if rows:
            np.bitwise_xor(block, words[first : first + rows, None], out=work[: rows * BLOCK].reshape(rows, BLOCK))
        if rest:
            np.bitwise_xor(block[:rest], words[first + rows], out=work[rows * BLOCK :])
        return work


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
