"""DIANA: compressed differences to a gradient that is learnt.

    c_i = C(g_i(x) - h_i),   x <- x - a (h + (1/n) sum_i c_i),   h_i <- h_i + b c_i,   h <- h + b (1/n) sum_i c_i

b = 1 / zeta, h_i^0 = 0.

Sends: c_i to all, a step.  State: h_i, a vector a vertex, and their mean h.  Conserves: h = (1/n) sum_i h_i, up to rounding.
Assumes: C unbiased.  Step size: 1 / (L (1 + 6 (zeta - 1) / n)), for vertices that draw independently, as they do unless
compression.supports = shared: then errors do not average out, and n counts as 1.
Reference: Mishchenko, Gorbunov, Takac & Richtarik, Distributed learning with compressed gradient differences, 2019; the step
size after Horvath, Kovalev, Mishchenko, Richtarik & Stich, Stochastic distributed learning with gradient quantization, 2019.
"""

from mpiconsensus.algorithms.compressed.base import AmongAll


class Diana(AmongAll):
    name = "diana"
    formula = "c_i = C(g_i - h_i), x <- x - a (h + mean_i c_i), h_i <- h_i + c_i / zeta"
    reference = "Mishchenko, Gorbunov, Takac & Richtarik 2019"
    needs = "unbiased"
    independent = True
    settings = (*AmongAll.settings, "multiple", "smoothness")
    own = ("known",)
    common = ("mean",)

    def outgoing(self, i, gradient, rate):
        gradient -= self.known[i]

    def learns(self, i):
        return [(self.known[i], self.codec.alpha)]

    def received(self, mean, rate):
        direction = self.mean + mean
        self.mean += self.codec.alpha * mean
        return direction

    def rate(self, smoothness, n):
        return 1.0 / (smoothness[0] * (1 + 6 * (self.codec.constant - 1) / self.averaging(n)))
