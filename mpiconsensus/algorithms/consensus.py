"""Average consensus, with a period, several rounds and vertices of unequal power.

    x_i^{k+1/2} = x_i^k - a_k g_i(x_i^k)                     at vertices i whose training period divides k
    x_i^{k+1}   = sum_j W[i,j] x_j^{k+1/2}, r times          at steps k that the period q divides (k from 0)

Order cta combines first and takes the gradient at the mixed point; dpsgd is x <- W x - a g(x), the gradient at the
unmixed point, and exchanges while it computes.
delay = 1 (order atc, r = 1): the round of step k is started behind its gradient and finished behind that of k + 1,

    x_i^{k+2} = y_i^{k+1} + sum_j (V - I)[i,j] y_j^k,  V = (1 - t) I + t W,  y = x^{k+1/2}

so that whoever is late by less than a gradient keeps nobody waiting. The mean is kept. A mode of W at l becomes the
two roots of z^2 - z + t (1 - l) = 0: t = 1 diverges where l < 0, so t is the damping whose slowest mode is fastest
(weights.damping). With a period q > 1 a round is done ahead of the next one: z = l, and t = 1.
Unequal periods q_t: mix = "mutual", an edge acts when both its ends mix and its lost weight goes to the diagonal (the
mean is kept); mix = "thesis", a vertex that mixes takes its row of W (rows sum to 1, columns need not: the mean drifts).
On a graph that changes W is that of the j-th exchange, counted from 0: every exchange has its turn, whatever the period.

Sends: a row over each acting edge, both ways (an arc: one way), a round.  State: none (delay: the row under way).
Assumes: rows of W sum to 1, supported on the graph. Where columns do not, the mean drifts, which is told and logged.
Reference: Xiao & Boyd, Fast linear iterations for distributed averaging, Systems & Control Letters 2004; order dpsgd:
Lian et al., Can decentralized algorithms outperform centralized algorithms?, NeurIPS 2017, algorithm 1.
"""

import numpy as np

from mpiconsensus import config, weights
from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.errors import UserError
from mpiconsensus.schedule import full, masked


class Consensus(Algorithm):
    name = "consensus"
    formula = "x_i <- sum_j W[i,j] (x_j - a g_j), r rounds at steps that the period q divides"
    reference = "Xiao & Boyd 2004; Lian et al. 2017 (order dpsgd)"
    keys = ("order", "period", "rounds", "mix", "delay")
    orders = ("atc", "cta", "dpsgd")

    def __init__(self, setting):
        super().__init__(setting)
        self.periods = config.per_vertex("algorithm.period", setting.options.period, self.n)
        self._rounds = {}
        self._rows = setting.rows
        _require_rows(setting.rows)
        self.delayed = bool(setting.options.delay)
        if self.delayed:
            self._delay(setting)

    def _delay(self, setting):
        order, rounds = setting.options.order, setting.options.rounds
        if order != "atc" or rounds != 1:
            raise UserError(f"algorithm.delay = 1 is for order atc with one round a step, not order {order} with {rounds}; dpsgd overlaps without it.")
        if self.setting.varying:
            raise UserError("algorithm.delay = 1 is for a graph that stays; take algorithm.delay = 0, or order dpsgd to overlap.")
        if min(self.periods) == 1:
            self.damping = weights.damping(full(setting.rows).matrix())
            self._rows = weights.rows((1 - self.damping) * np.eye(self.n) + self.damping * full(setting.rows).matrix())

    def describe(self):
        damped = f" (W damped by {self.damping:g})" if hasattr(self, "damping") else ""
        drifts = "" if full(self._rows).keeps_mean else "; the columns of W do not sum to 1: the mean drifts"
        return super().describe() + damped + drifts

    def rounds(self, k):
        mixes = tuple(k % q == 0 for q in self.periods)
        if self.setting.varying:
            return self._changing(k, mixes)
        if mixes not in self._rounds:
            rows = self._rows
            round_ = full(rows) if all(mixes) else masked(rows, mixes, self.setting.options.mix)
            self._rounds[mixes] = (round_,) * self.setting.options.rounds if round_.rows else ()
        return self._rounds[mixes]

    def _changing(self, k, mixes):
        """Return the rounds of a graph that changes: with one period the exchanges of a step follow those of the last."""
        if not any(mixes):
            return ()
        options, everyone = self.setting.options, all(mixes)
        first = (k // self.periods[0] if len(set(self.periods)) == 1 else k) * options.rounds
        found = (self.setting.varying.round(first + r, None if everyone else mixes, options.mix) for r in range(options.rounds))
        return tuple(round_ for round_ in found if round_.rows)


def _require_rows(rows):
    for i, (_, ws) in enumerate(rows):
        if abs(ws.sum() - 1.0) > 1e-9:
            raise UserError(
                f"algorithm.name = consensus needs rows of weights that sum to 1, row {i} sums to {ws.sum():.6g}; take "
                "algorithm.name = push-sum, or weights such as uniform."
            )
