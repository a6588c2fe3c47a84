"""Error feedback: what a message left out is added to the next.

    c_i = C(e_i + a g_i),   e_i <- e_i + a g_i - c_i,   x <- x - (1/n) sum_i c_i          e_i^0 = 0

Sends: c_i to all, a step.  State: e_i, a vector a vertex.  Conserves: x - (1/n) sum_i e_i moves by a (1/n) sum_i g_i a step.
Assumes: C contractive; an unbiased one is divided by its zeta. The direction that the optimizer sees is sum_i c_i / (n a): with
momentum or Adam this is no longer the method of the paper.
Reference: Seide, Fu, Droppo, Li & Yu, 1-bit stochastic gradient descent, Interspeech 2014; with step sizes that change:
Karimireddy, Rebjock, Stich & Jaggi, Error feedback fixes SignSGD, ICML 2019, algorithm 2.
"""

from mpiconsensus.algorithms.compressed.base import AmongAll
from mpiconsensus.algorithms.compressed.ef21 import contractive_rate


class EF14(AmongAll):
    name = "ef14"
    formula = "c_i = C(e_i + a g_i), e_i <- e_i + a g_i - c_i, x <- x - mean_i c_i"
    reference = "Seide et al. 2014; Karimireddy et al. 2019"
    needs = "contractive"
    settings = (*AmongAll.settings, "multiple", "smoothness")
    own = ("error",)

    def outgoing(self, i, gradient, rate):
        gradient *= rate
        gradient += self.error[i]

    def left(self, i, rest):
        self.error[i] = rest

    def received(self, mean, rate):
        # The optimizer multiplies by the rate; where that is 0 no step can be taken.
        mean *= 1.0 / rate if rate else 0.0
        return mean

    def rate(self, smoothness, n):
        """That of ef21, with which it is compared."""
        return contractive_rate(smoothness, self.contraction())
