"""Local SGD, also called periodic averaging.

    x_i <- (1/n) sum_j x_j                                   after the steps k for which tau divides k + 1

tau = 1 is parallel SGD.

Sends: 2 (n-1)/n rows a vertex at an average (a ring's bytes).  State: none.  Assumes: nothing of the graph.
Reference: Stich, Local SGD converges fast and communicates little, ICLR 2019, algorithm 1.
"""

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.schedule import MEAN


class LocalSGD(Algorithm):
    name = "local-sgd"
    formula = "x_i <- mean_j x_j after steps k with tau | k + 1; tau = 1 is parallel SGD"
    reference = "Stich 2019"
    keys = ("tau",)

    def rounds(self, k):
        return () if (k + 1) % self.setting.options.tau else (MEAN,)
