"""What a compressor is: a map C of vectors onto messages of fewer bits, and its class.

Unbiased, U(zeta): E C(x) = x and E |C(x)|^2 <= zeta |x|^2. Contractive, with alpha: E |C(x) - x|^2 <= (1 - alpha) |x|^2.
A compressor in U(zeta) divided by zeta is contractive with alpha = 1 / zeta; methods that need that divide by `scale`.

d elements, k of them kept, b bits of a float.
"""

from abc import ABC, abstractmethod

import numpy as np

PIECE = 1 << 19  # elements that stay in the last cache from pass to pass; fewer cost more in calls than they save
FLOAT_BITS = 32  # b of the formulas, whatever the arithmetic


class Compressor(ABC):
    """C for vectors of d elements of a dtype, float32 or float64, with their shape where it is a tensor's.

    unbiased: its class. constant: zeta or alpha for the worst x; None where there is none for all x. shared: the message has
    no indices, because all ranks draw the same support from a shared generator. summable: it is floats that can be added up.
    bits: of a message by the formula of the literature; a message's own length is what goes over the wire.
    fixed: every message has `longest` bytes; else at most so many.
    """

    name = formula = ""
    unbiased = False
    shared = False
    fixed = True
    draws = False  # whether it uses random numbers

    def __init__(self, d, dtype=np.float32, shape=None):
        self.d, self.dtype, self.shape = d, np.dtype(dtype), tuple(shape) if shape else (d,)
        self.b = FLOAT_BITS

    @property
    def told(self):
        """The formula, in words."""
        return self.formula

    @property
    @abstractmethod
    def constant(self):
        """zeta where unbiased, else alpha."""

    @property
    @abstractmethod
    def bits(self):
        """Bits of a message by formula."""

    @property
    @abstractmethod
    def longest(self):
        """Bytes of the longest message."""

    @property
    def values_sent(self):
        """Values of this dtype in a message."""
        return self.longest // self.dtype.itemsize

    @property
    def summable(self):
        return self.shared

    @abstractmethod
    def encode(self, x, random):
        """Return the message of x (d,), an array of uint8; random: a numpy Generator, unused where nothing is drawn."""

    @abstractmethod
    def decode(self, message, out, random):
        """Write C(x) into out (d,); random: a Generator in the state that `encode` was given, for shared supports."""

    def add_to(self, message, targets, random):
        """Add C(x) times a factor to each of `targets`, a list of ((d,), factor); random as in `decode`."""
        decoded = np.empty(self.d, self.dtype)
        self.decode(message, decoded, random)
        for target, factor in targets:
            for start in range(0, self.d, PIECE):
                part = slice(start, start + PIECE)
                target[part] += self.dtype.type(factor) * decoded[part]

    def state_dict(self):
        """Return what is kept from message to message, arrays or None by name."""
        return {}

    def load_state_dict(self, state):
        """Take over what `state_dict` returned."""

    @property
    def scale(self):
        """The factor that makes C contractive."""
        return 1.0 / self.constant if self.unbiased else 1.0

    @property
    def alpha(self):
        """The contraction of scale * C."""
        return 1.0 / self.constant if self.unbiased else self.constant

    def __call__(self, x, random=None):
        """Return C(x), by way of the message; for tests and for small vectors."""
        x = np.ascontiguousarray(x, self.dtype).reshape(-1)
        state = random.bit_generator.state if random is not None else None
        message = self.encode(x, random)
        if state is not None:
            after = random.bit_generator.state
            random.bit_generator.state = state
        out = np.empty(self.d, self.dtype)
        self.decode(message, out, random)
        if state is not None:
            random.bit_generator.state = after
        return out


def floats(message, dtype):
    """Return the bytes of a message as floats: a view where they are aligned."""
    return message.view(dtype) if message.ctypes.data % dtype.itemsize == 0 else message.copy().view(dtype)


def pack_signs(x):
    """Return a bit an element, set where it is negative (or -0), uint8."""
    return np.packbits(np.signbit(x), bitorder="little")


def unpack_signs(message, count):
    """Return the `count` bits that `pack_signs` gave, uint8."""
    return np.unpackbits(message[: -(-count // 8)], count=count, bitorder="little")


def put_signs(message, out):
    """Set the sign bits of out (d,), which are 0, to those that `pack_signs` gave."""
    whole = out.view(f"u{out.itemsize}")
    top = 8 * out.itemsize - 1
    for start in range(0, len(out), PIECE):
        part = whole[start : start + PIECE]
        signs = unpack_signs(message[start // 8 :], len(part)).astype(whole.dtype)
        part |= np.left_shift(signs, whole.dtype.type(top), out=signs)


def joined(*parts):
    """Return arrays one after the other as bytes."""
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8).reshape(-1) for part in parts])
