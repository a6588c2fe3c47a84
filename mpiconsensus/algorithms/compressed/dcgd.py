"""Distributed compressed gradient descent.

    x <- x - a (1/n) sum_i C(g_i(x))

Sends: C(g_i) to all, a step.  State: none.  Conserves: replicas that start equal stay equal.
Assumes: C unbiased for convergence to a point whose gradient vanishes. With a biased C and unequal shards it stalls where
the compressed gradients cancel: a defect of the method, which ef14 and ef21 mend.
Reference: Khirirat, Feyzmahdavian & Johansson, Distributed learning with compressed gradients, 2018, section IV.
"""

from mpiconsensus.algorithms.compressed.base import AmongAll


class DCGD(AmongAll):
    name = "dcgd"
    formula = "x <- x - a mean_i C(g_i)"
    reference = "Khirirat, Feyzmahdavian & Johansson 2018"
    settings = (*AmongAll.settings, "multiple", "smoothness")

    def outgoing(self, i, gradient, rate):
        pass

    def rate(self, smoothness, n):
        """1 / L, that of gradient descent."""
        return 1.0 / smoothness[0]
