"""No compression: the elements as they are, the side that every compressor is set against."""

from mpiconsensus.compress.base import Compressor


class Identity(Compressor):
    """Both unbiased, with zeta = 1, and contractive, with alpha = 1."""

    name = "identity"
    formula = "x as it is"
    constant = 1.0
    unbiased = shared = True

    @property
    def bits(self):
        return self.b * self.d

    @property
    def longest(self):
        return self.d * self.dtype.itemsize

    def encode(self, x, random):
        return x.view("u1").copy()

    def decode(self, message, out, random):
        out[:] = message.view(self.dtype)
