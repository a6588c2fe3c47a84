"""One-shot averaging: train apart, average once.

    x_i <- (1/n) sum_j x_j                                   after the last step

Sends: 2 (n-1)/n rows a vertex in all.  State: none.  Assumes: nothing of the graph.
Reference: Zinkevich, Weimer, Smola & Li, Parallelized stochastic gradient descent, NeurIPS 2010, algorithm 3.
"""

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.schedule import MEAN


class OneShot(Algorithm):
    name = "one-shot"
    formula = "x_i <- mean_j x_j after the last step"
    reference = "Zinkevich et al. 2010"

    def rounds(self, k):
        return (MEAN,) if k == self.setting.total_steps - 1 else ()
