"""What a compressor is: a map C of vectors onto messages of fewer bits, and its class.

Unbiased, U(zeta): E C(x) = x and E |C(x)|^2 <= zeta |x|^2. Contractive, with alpha: E |C(x) - x|^2 <= (1 - alpha) |x|^2.
A compressor in U(zeta) divided by zeta is contractive with alpha = 1 / zeta; methods that need that divide by `scale`.

d elements, k of them kept, b bits of a float.
"""

from abc import ABC, abstractmethod

import numpy as np


FLOAT_BITS = 32  # b of the formulas, whatever the arithmetic


class Compressor(ABC):
    """C for vectors of d elements of a dtype, float32 or float64, with their shape where it is a tensor's.

    unbiased: its class. constant: zeta or alpha for the worst x; None where there is none for all x. shared: the message has
    no indices, because all ranks draw the same support from a shared generator: messages can be summed as they are.
    bits: of a message by the formula of the literature; a message's own length is what goes over the wire.
    """

    name = formula = ""
    unbiased = False
    shared = False
    draws = False  # whether it uses random numbers

    def __init__(self, d, dtype=np.float32, shape=None):
        self.d, self.dtype, self.shape = d, np.dtype(dtype), tuple(shape) if shape else (d,)
        self.b = FLOAT_BITS

    @property
    @abstractmethod
    def constant(self):
        """zeta where unbiased, else alpha."""

    @property
    @abstractmethod
    def bits(self):
        """Bits of a message by formula."""

    @abstractmethod
    def encode(self, x, random):
        """Return the message of x (d,), an array of uint8; random: a numpy Generator, unused where nothing is drawn."""

    @abstractmethod
    def decode(self, message, out, random):
        """Write C(x) into out (d,); random: a Generator in the state that `encode` was given, for shared supports."""

    @property
    def scale(self):
        """The factor that makes C contractive."""
        return 1.0 / self.constant if self.unbiased else 1.0

    @property
    def alpha(self):
        """The contraction of scale * C."""
        return 1.0 / self.constant if self.unbiased else self.constant

    def decoded(self, x, random):
        """Return C(x) of a compressor that keeps a state: encoded once, decoded without."""
        out = np.empty(self.d, self.dtype)
        self.decode(self.encode(np.ascontiguousarray(x, self.dtype), random), out, random)
        return out

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


def joined(*parts):
    """Return arrays one after the other as bytes."""
    return np.concatenate([np.ascontiguousarray(part).view(np.uint8).reshape(-1) for part in parts])
