"""Compressors that keep few levels of every element: QSGD, TernGrad, scaled sign, and shorter floats."""

import math

import numpy as np

from mpiconsensus.compress import bits
from mpiconsensus.compress.base import PIECE, Compressor, joined, pack_signs, put_signs, unpack_signs

ROW = 1024  # elements that are summed in their own precision


class QSGD(Compressor):
    """norm * sign(x) * l / s, l one of the two levels around s |x| / norm, at random. Alistarh et al. 2017, section 3.1."""

    name = "qsgd"
    formula = "|x|_2 sign(x_i) level_i / s, the level rounded at random; Alistarh et al. 2017"
    unbiased = draws = True
    MOST = 1 << 24  # levels

    def __init__(self, d, dtype=np.float32, shape=None, s=16):
        super().__init__(d, dtype, shape)
        self.s = s
        self.width = s.bit_length()

    @property
    def constant(self):
        return 1 + min(self.d / self.s**2, math.sqrt(self.d) / self.s)

    @property
    def bits(self):
        return self.b + self.d * (1 + math.ceil(math.log2(self.s + 1)))

    @property
    def longest(self):
        return self.dtype.itemsize + bits.packed_bytes(1, self.d) + bits.packed_bytes(self.width, self.d)

    def encode(self, x, random):
        largest = np.abs(x).max()
        # of the smallest and the largest numbers the squares are 0 and infinite
        norm = largest * np.linalg.norm(x / largest) if 0 < largest < np.inf else largest
        levels = np.zeros(self.d, np.int64)
        if 0 < norm < np.inf:
            # a hair below s, so that the largest level is s
            levels = np.minimum(np.floor(self.s * (np.abs(x) / norm) + random.random(self.d)), self.s).astype(np.int64)
        return joined(np.array([norm], self.dtype), pack_signs(x), bits.pack(levels, self.width))

    def decode(self, message, out, random):
        head = self.dtype.itemsize
        norm, message = message[:head].copy().view(self.dtype)[0], message[head:]
        signs = -(-self.d // 8)
        levels = bits.unpack(message[signs:], self.width, self.d)
        np.multiply(levels, norm / self.s, out=out, casting="unsafe")
        put_signs(message[:signs], out)


class TernGrad(Compressor):
    """max|x| sign(x_i) with probability |x_i| / max|x|, else 0. Wen et al. 2017, equation 4, without clipping, which is biased."""

    name = "terngrad"
    formula = "max|x| sign(x_i) with probability |x_i| / max|x|, else 0; Wen et al. 2017"
    unbiased = draws = True
    DIGITS = 5  # of base 3 in a byte: 3^5 = 243

    @property
    def constant(self):
        return (1 + math.sqrt(self.d)) / 2

    @property
    def bits(self):
        return self.b + self.d * math.log2(3)

    @property
    def longest(self):
        return self.dtype.itemsize - (-self.d // self.DIGITS)

    def encode(self, x, random):
        size = np.abs(x)
        largest = size.max(initial=0)
        digits = np.zeros(-(-self.d // self.DIGITS) * self.DIGITS, np.uint8)
        if largest != 0:
            # of numbers that are not finite, those go through
            chosen = random.random(self.d) * largest < size if largest < np.inf else ~np.isfinite(x)
            digits[: self.d] = chosen * (1 + np.signbit(x).astype(np.uint8))
        weights = 3 ** np.arange(self.DIGITS)
        return joined(np.array([largest], self.dtype), (digits.reshape(-1, self.DIGITS) @ weights).astype(np.uint8))

    def decode(self, message, out, random):
        head = self.dtype.itemsize
        largest = message[:head].copy().view(self.dtype)[0]
        digits = message[head:, None] // 3 ** np.arange(self.DIGITS) % 3
        out[:] = np.array([0, largest, -largest], self.dtype)[digits.reshape(-1)[: self.d]]


class Sign(Compressor):
    """(|x|_1 / d) sign(x): contractive with |x|_1^2 / (d |x|_2^2), which is 1 / d at worst. Karimireddy et al. 2019, section 4."""

    name = "sign"
    formula = "(|x|_1 / d) sign(x); Karimireddy et al. 2019"

    @property
    def constant(self):
        return 1.0 / self.d

    @property
    def bits(self):
        return self.d + self.b

    @property
    def longest(self):
        return self.dtype.itemsize + bits.packed_bytes(1, self.d)

    def encode(self, x, random):
        message = np.empty(self.longest, np.uint8)
        head, total, piece = self.dtype.itemsize, 0.0, min(self.d, PIECE)
        work, negative = np.empty(piece, self.dtype), np.empty(piece, bool)
        for start in range(0, self.d, PIECE):
            part = x[start : start + PIECE]
            total += _sum(np.abs(part, out=work[: len(part)]))
            signs = np.packbits(np.signbit(part, out=negative[: len(part)]), bitorder="little")
            message[head + start // 8 :][: len(signs)] = signs
        message[:head].view(self.dtype)[0] = total / self.d
        return message

    def decode(self, message, out, random):
        head, whole = self.dtype.itemsize, out.view(f"u{self.dtype.itemsize}")
        size = message[:head].copy().view(whole.dtype)[0]
        for start in range(0, self.d, PIECE):
            part = whole[start : start + PIECE]
            part[:] = unpack_signs(message[head + start // 8 :], len(part))
            np.left_shift(part, whole.dtype.type(8 * head - 1), out=part)
            np.bitwise_or(part, size, out=part)


def _sum(x):
    """Return the sum of x as a float: of rows that are short, so that the error is small, in fewer passes than numpy's pairwise sum."""
    whole = len(x) // ROW * ROW
    return float(np.einsum("ij->i", x[:whole].reshape(-1, ROW)).sum(dtype=np.float64) + x[whole:].sum(dtype=np.float64))


class Cast(Compressor):
    """The nearest number of a shorter float, ties to even; a number beyond its range becomes its largest one."""

    def __init__(self, d, dtype=np.float32, shape=None):
        super().__init__(d, dtype, shape)

    @property
    def bits(self):
        return 16 * self.d

    @property
    def longest(self):
        return 2 * self.d


class Half(Cast):
    """11 bits of significand; below 2^-14 fewer, so that alpha has no bound there."""

    name = "fp16"
    formula = "the nearest float of 16 bits, 5 of exponent"
    constant = None

    def encode(self, x, random):
        return np.clip(x, -65504, 65504).astype(np.float16).view(np.uint8)

    def decode(self, message, out, random):
        out[:] = message.view(np.float16)


class Bfloat(Cast):
    """8 bits of significand: a relative error of 2^-8 at most."""

    name = "bf16"
    formula = "the nearest float of 16 bits, 8 of exponent"
    constant = 1 - 2.0**-16
    LARGEST = (2 - 2.0**-7) * 2.0**127

    def encode(self, x, random):
        import torch  # whose conversion is the fast one

        whole, short = torch.from_numpy(x), torch.empty(self.d, dtype=torch.bfloat16)
        for start in range(0, self.d, PIECE):
            short[start : start + PIECE] = whole[start : start + PIECE].clamp(-self.LARGEST, self.LARGEST)
        return short.view(torch.uint8).numpy()

    def decode(self, message, out, random):
        short = message.view(np.uint16)
        for start in range(0, self.d, PIECE):
            part = slice(start, start + PIECE)
            out[part] = np.left_shift(short[part], 16, dtype=np.uint32).view(np.float32)
