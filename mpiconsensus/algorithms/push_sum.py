"""Stochastic gradient push: averaging over directed and changing graphs.

    x_i^{k+1/2} = x_i^k - a_k g_i(z_i^k)                     the gradient at the de-biased point
    x_i^{k+1}   = sum_j A_k[i,j] x_j^{k+1/2}
    w_i^{k+1}   = sum_j A_k[i,j] w_j^k,   w^0 = 1            the push-sum weight
    z_i^{k+1}   = x_i^{k+1} / w_i^{k+1}

at steps k that the period q divides; elsewhere x, w stay. A's columns sum to 1, its rows need not: a vertex has to know
whom it sends to, not who sends to it. Every rank knows A_k, and so w: no weight is sent. The rows hold z, whose rounds are
sum_j (A_k[i,j] w_j^k / w_i^{k+1}) z_j and whose learning rate at vertex i is a_k / w_i^k, so that what is trained,
evaluated and saved is de-biased.

Sends: a row over each arc, one way, a round.  State: none; w follows from (seed, k).
Assumes: A column-stochastic with a positive diagonal, supported on a graph that is strongly connected over a period.
Conserves: sum_i w_i z_i = sum_i x_i. Where A is doubly stochastic w = 1, and this is consensus.
Differs from the paper in: momentum and weight decay act on z, as at a single vertex.
Reference: Assran, Loizou, Ballas & Rabbat, Stochastic gradient push for distributed deep learning, ICML 2019,
algorithm 1; the weights after Kempe, Dobra & Gehrke, Gossip-based computation of aggregate information, FOCS 2003.
"""

import numpy as np

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.errors import UserError
from mpiconsensus.schedule import Round

SETTLED = 1e-15  # relative change of w below which it stays: half a unit in the last place is 1.1e-16, a sum has several


class PushSum(Algorithm):
    name = "push-sum"
    formula = "x_i <- sum_j A[i,j] (x_j - a g_j(z_j)), w_i <- sum_j A[i,j] w_j, z_i = x_i / w_i; columns of A sum to 1"
    reference = "Assran, Loizou, Ballas & Rabbat 2019"
    keys = ("period",)

    def __init__(self, setting):
        super().__init__(setting)
        self.period = self.one_period("period")
        columns = np.zeros(self.n)
        for js, ws in setting.rows:
            np.add.at(columns, js, ws)
        worst = int(np.abs(columns - 1.0).argmax())
        if abs(columns[worst] - 1.0) > 1e-9:
            raise UserError(
                f"algorithm.name = push-sum needs columns of weights that sum to 1, column {worst} sums to {columns[worst]:.6g}; "
                "take topology.weights = push-sum."
            )
        self._weights = [np.ones(self.n)]  # w before each exchange, up to where it stays
        self._settled = False
        self._rounds = {}

    def weights(self, j):
        """Return w (n,) before exchange j."""
        while j >= len(self._weights) and not self._settled:
            w = self._weights[-1]
            next_ = np.array([ws @ w[js] for js, ws in self._rows(len(self._weights) - 1)])
            self._settled = self.setting.varying is None and bool(np.abs(next_ / w - 1.0).max() <= SETTLED * self.n)
            if not self._settled:
                self._weights.append(next_)
        return self._weights[min(j, len(self._weights) - 1)]

    def pace(self, k, vertex):
        return 1.0 / float(self.weights(-(-k // self.period))[vertex])

    def rounds(self, k):
        j, rest = divmod(k, self.period)
        if rest or self.n == 1:
            return ()
        before, after = self.weights(j), self.weights(j + 1)
        key = len(self._weights) if before is after else j
        if key not in self._rounds:
            self._rounds.clear()
            self._rounds[key] = Round(self.n, {i: (js, ws * before[js] / after[i]) for i, (js, ws) in enumerate(self._rows(j))})
        return (self._rounds[key],)

    def _rows(self, j):
        return self.setting.varying.rows_at(j) if self.setting.varying else self.setting.rows
