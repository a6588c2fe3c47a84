"""Local SGD, also called periodic averaging.

    x_i <- (1/n) sum_j x_j                                   after the steps k for which tau divides k + 1

tau = 1 is parallel SGD. With a growth g the intervals between averages are tau, tau + g, tau + 2 g, ...: the average of
number m, from 1, comes after step m tau + g m (m - 1) / 2 - 1, so that T steps take about sqrt(2 T / g) averages.

Sends: 2 (n-1)/n rows a vertex at an average (a ring's bytes).  State: none.  Assumes: nothing of the graph.
Reference: Stich, Local SGD converges fast and communicates little, ICLR 2019, algorithm 1; intervals that grow by a constant:
Spiridonoff, Olshevsky & Paschalidis, Communication-efficient SGD: from local SGD to one-shot averaging, NeurIPS 2021.
"""

import math

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.schedule import MEAN


class LocalSGD(Algorithm):
    name = "local-sgd"
    formula = "x_i <- mean_j x_j after steps k with tau | k + 1; tau = 1 is parallel SGD"
    reference = "Stich 2019; Spiridonoff, Olshevsky & Paschalidis 2021 (growing intervals)"
    keys = ("tau", "tau_growth")

    def rounds(self, k):
        return (MEAN,) if self._averages(k + 1) else ()

    def _averages(self, steps):
        """Whether an average follows so many steps: steps = m tau + g m (m - 1) / 2 for a whole number m."""
        tau, growth = self.setting.options.tau, self.setting.options.tau_growth
        if not growth:
            return steps % tau == 0
        b = 2 * tau - growth
        root = math.isqrt(b * b + 8 * growth * steps)
        return root * root == b * b + 8 * growth * steps and (root - b) % (2 * growth) == 0
