"""EF21: each vertex sends the compressed difference between its gradient and what the others know of it.

    x <- x - a (1/n) sum_i h_i,   then   c_i = C(v_i - h_i),   h_i <- h_i + c_i,   v_i = g_i(x)

h_i^0 = g_i(x^0), sent as it is. On batches this is EF21-SGD. ef21-sgdm puts v_i <- (1 - eta) v_i + eta g_i(x) in the
place of the gradient, v_i^0 = g_i(x^0): with eta = 1 it is ef21.

Sends: c_i to all, a step; the first step a gradient.  State: h_i (and v_i), a vector a vertex, and the mean of all h_i.
Conserves: the mean that all ranks keep is (1/n) sum_i h_i, up to rounding.
Assumes: C contractive; an unbiased one is divided by its zeta.
Step size: 1 / (L + L' sqrt(beta / theta)), theta = 1 - sqrt(1 - alpha), beta = (1 - alpha) / theta, L' = sqrt(mean_i L_i^2): it
is careful, and multiples of it are what wins.
Reference: Richtarik, Sokolov & Fatkhullin, EF21: a new, simpler, theoretically better, and practically faster error
feedback, NeurIPS 2021, algorithm 2 and theorem 1; momentum: Fatkhullin, Tyurin & Richtarik, Momentum provably improves error
feedback!, NeurIPS 2023, algorithm 1.
"""

import math

import numpy as np

from mpiconsensus.algorithms.compressed.base import AmongAll


def contractive_rate(smoothness, alpha):
    """Return the step size above."""
    theta = 1 - math.sqrt(1 - alpha)
    return 1.0 / (smoothness[0] + smoothness[1] * math.sqrt((1 - alpha) / theta / theta))


class EF21(AmongAll):
    name = "ef21"
    formula = "x <- x - a mean_i h_i, h_i <- h_i + C(g_i - h_i)"
    reference = "Richtarik, Sokolov & Fatkhullin 2021"
    needs = "contractive"
    settings = (*AmongAll.settings, "multiple", "smoothness")
    own = ("known",)
    common = ("mean",)
    collects = "mean"

    def dense(self, k):
        return k == 0

    def uncompressed(self, i, gradient):
        self.known[i] = gradient

    def outgoing(self, i, gradient, rate):
        gradient -= self.known[i]

    def learns(self, i):
        return [(self.known[i], 1.0)]

    def rate(self, smoothness, n):
        return contractive_rate(smoothness, self.contraction())


class EF21SGDM(EF21):
    name = "ef21-sgdm"
    formula = "ef21 with v_i <- (1 - eta) v_i + eta g_i for g_i"
    reference = "Fatkhullin, Tyurin & Richtarik 2023"
    settings = (*EF21.settings, "eta")
    own = ("known", "momentum")

    def uncompressed(self, i, gradient):
        super().uncompressed(i, gradient)
        self.momentum[i] = gradient

    def outgoing(self, i, gradient, rate):
        momentum, eta = self.momentum[i], self.options.eta
        if eta == 1.0:
            momentum[:] = gradient
        else:
            gradient -= momentum
            gradient *= eta
            momentum += gradient
        np.subtract(momentum, self.known[i], out=gradient)
