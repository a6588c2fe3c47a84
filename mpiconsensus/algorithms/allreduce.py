"""AllReduce-SGD: the synchronous data-parallel baseline.

    x_i <- x_i - a step of the optimizer along (1/n) sum_j g_j(x_j)

All replicas stay equal when they start equal. Averaging gradients is the same as averaging parameters at every step
(local-sgd, tau = 1) for SGD with or without momentum, not for Adam or with clipping, which acts on the average here.

Sends: 2 (n-1)/n gradients a vertex and step (a ring's bytes).  State: none.  Assumes: nothing of the graph.
Reference: Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017, section 3.
"""

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.errors import UserError


class AllReduce(Algorithm):
    name = "allreduce"
    formula = "g <- mean_j g_j before the optimizer, at every step"
    reference = "Goyal et al. 2017"
    averages_gradients = True

    def __init__(self, setting):
        super().__init__(setting)
        if set(self.train_every) != {1}:
            raise UserError(
                "algorithm.name = allreduce averages the gradients of all vertices at every step; it needs equal powers and "
                "algorithm.train_every = 1. For unequal vertices take algorithm.name = consensus."
            )

    def rounds(self, k):
        return ()
