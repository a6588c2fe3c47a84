"""Stochastic gradient push: averaging over directed and changing graphs.

    x_i^{k+1/2} = x_i^k - a_k g_i(z_i^k)                     the gradient at the de-biased point
    x_i^{k+1}   = sum_j A_k[i,j] x_j^{k+1/2}
    w_i^{k+1}   = sum_j A_k[i,j] w_j^k,   w^0 = 1            the push-sum weight
    z_i^{k+1}   = x_i^{k+1} / w_i^{k+1}

at steps k that the period q divides; elsewhere x, w stay. delay = 1 is overlap SGP: what is sent at step k arrives at k + 1,

    x_i^{k+1} = A_k[i,i] x_i^{k+1/2} + sum_{j != i} A_{k-1}[i,j] x_j^{k-1/2},   w alike

(A_k[i,i] = 1 where no round starts at k; nothing arrives where none started at k - 1), so that a message has a whole step
to travel behind the gradient. What is in flight is part of the sum: a run takes it in behind its last step.

A's columns sum to 1, its rows need not: a vertex has to know
whom it sends to, not who sends to it. Every rank knows A_k, and so w: no weight is sent. The rows hold z, whose rounds are
sum_j (A_k[i,j] w_j^k / w_i^{k+1}) z_j and whose learning rate at vertex i is a_k / w_i^k, so that what is trained,
evaluated and saved is de-biased.

Sends: a row over each arc, one way, a round.  State: none, w follows from (seed, k); with delay the row under way.
Assumes: A column-stochastic with a positive diagonal, supported on a graph that is strongly connected over a period.
Conserves: sum_i w_i z_i = sum_i x_i, with delay together with what is in flight. Where A is doubly stochastic w = 1 without
delay, and this is consensus.
Differs from the paper in: momentum and weight decay act on z, as at a single vertex; with delay a message is under way for one
step whatever the period, where the paper waits for it at the next round.
Reference: Assran, Loizou, Ballas & Rabbat, Stochastic gradient push for distributed deep learning, ICML 2019,
algorithms 1 and 2 (tau = 1); the weights after Kempe, Dobra & Gehrke, Gossip-based computation of aggregate information, FOCS 2003.
"""

from functools import cached_property

import numpy as np

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.errors import UserError
from mpiconsensus.schedule import Round, blend

SETTLED = 1e-15  # relative change of w below which it stays: half a unit in the last place is 1.1e-16, a sum has several

KEPT = 4  # exchanges of a changing graph whose rows are kept: a step looks at two


class Overlapped(Round):
    """A round that arrives a step late, at rows that stand ahead with weights of their own.

    rows: as of Round, weights in shares of mass, A[i,j] w_j; own: (n,) the mass that each vertex holds when it arrives.
    """

    def __init__(self, n, rows, own):
        super().__init__(n, rows)
        self.own = own

    @cached_property
    def late_blends(self):
        found = {}
        for i, (js, masses) in self.rows.items():
            arriving = [(j, mass) for j, mass in zip(js.tolist(), masses.tolist()) if j != i]
            found[i] = blend(arriving, float(self.own[i]))
        return found


class PushSum(Algorithm):
    name = "push-sum"
    formula = "x_i <- sum_j A[i,j] (x_j - a g_j(z_j)), w_i <- sum_j A[i,j] w_j, z_i = x_i / w_i; columns of A sum to 1"
    reference = "Assran, Loizou, Ballas & Rabbat 2019"
    keys = ("period", "delay")

    def __init__(self, setting):
        super().__init__(setting)
        self.period = self.one_period("period")
        self.delayed = bool(setting.options.delay)
        columns = np.zeros(self.n)
        for js, ws in setting.rows:
            np.add.at(columns, js, ws)
        worst = int(np.abs(columns - 1.0).argmax())
        if abs(columns[worst] - 1.0) > 1e-9:
            raise UserError(
                f"algorithm.name = push-sum needs columns of weights that sum to 1, column {worst} sums to {columns[worst]:.6g}; "
                "take topology.weights = push-sum."
            )
        # (w, what is in flight to each vertex) before each exchange, up to where they stay
        self._masses = [(np.ones(self.n), np.zeros(self.n))]
        self._settled = False
        self._rounds, self._exchanges = {}, {}

    def weights(self, k):
        """Return w (n,) ahead of step k."""
        j, rest = divmod(k, self.period)
        if not rest:
            return self._before(j)[0]
        if self.delayed and rest == 1:
            return self._kept(j)
        return self._before(j + 1)[0]

    def in_flight(self, k):
        """Return the weight (n,) that is under way to each vertex between steps k - 1 and k."""
        j, rest = divmod(k, self.period)
        if not rest:
            return self._before(j)[1]
        return self._sent(j) if self.delayed and rest == 1 else np.zeros(self.n)

    def pace(self, k, vertex):
        return 1.0 / float(self.weights(k)[vertex])

    def rounds(self, k):
        j, rest = divmod(k, self.period)
        if rest or self.n == 1:
            return ()
        before, after = self._before(j), self._before(j + 1)
        key = len(self._masses) if before is after else j
        if key not in self._rounds:
            self._rounds.clear()
            self._rounds[key] = self._late(j) if self.delayed else self._round(j, before[0], after[0])
        return (self._rounds[key],)

    def _round(self, j, before, after):
        return Round(self.n, {i: (js, ws * before[js] / after[i]) for i, (js, ws) in enumerate(self._rows(j))})

    def _late(self, j):
        """Return the Overlapped of exchange j; its `closing` is finished with no round behind it."""
        w = self._before(j)[0]
        rows = {i: (js, ws * w[js]) for i, (js, ws) in enumerate(self._rows(j))}
        there = self.weights(j * self.period + 1)
        round_ = Overlapped(self.n, rows, self._kept(j + 1) if self.period == 1 else there)
        round_.closing = Overlapped(self.n, rows, there)
        return round_

    def _before(self, j):
        """Return (w, what is in flight), (n,) each, before exchange j."""
        while j >= len(self._masses) and not self._settled:
            last = len(self._masses) - 1
            w, flight = self._masses[-1]
            overlaps = self.delayed and self.period == 1
            next_ = self._kept(last) + flight if overlaps else np.array([ws @ w[js] for js, ws in self._rows(last)])
            masses = next_, self._sent(last) if overlaps else flight
            stays = all((np.abs(a - b) <= SETTLED * self.n * b).all() for a, b in zip(masses, self._masses[-1]))
            self._settled = self.setting.varying is None and stays
            if not self._settled:
                self._masses.append(masses)
        return self._masses[min(j, len(self._masses) - 1)]

    def _kept(self, j):
        """Return the weight (n,) that vertices keep when exchange j starts."""
        return self._exchange(j)[1] * self._before(j)[0]

    def _sent(self, j):
        """Return the weight (n,) that exchange j sends to each vertex."""
        w = self._before(j)[0]
        return np.array([ws[js != i] @ w[js[js != i]] for i, (js, ws) in enumerate(self._rows(j))])

    def _rows(self, j):
        return self._exchange(j)[0]

    def _exchange(self, j):
        """Return the rows of A_j and its diagonal (n,); the latest exchanges are kept."""
        varying = self.setting.varying
        key = j if varying else 0
        if key not in self._exchanges:
            rows = varying.rows_at(j) if varying else self.setting.rows
            if len(self._exchanges) >= KEPT:
                del self._exchanges[min(self._exchanges)]
            self._exchanges[key] = rows, np.array([ws[js == i].sum() for i, (js, ws) in enumerate(rows)])
        return self._exchanges[key]
