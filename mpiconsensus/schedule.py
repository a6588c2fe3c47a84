"""Rounds: the mixing matrices W_k of a step, as sparse rows, and the few ways to make them.

A synchronous decentralised algorithm is a local update and a schedule of mixing matrices (Koloskova, Loizou,
Boreiri, Jaggi, Stich, "A unified theory of decentralized SGD with changing topology and local updates", ICML 2020).
A schedule is a pure function of (seed, k) that every rank evaluates alike, with no message.
"""

from functools import cached_property

import numpy as np


class Round:
    """One round x_i <- sum_j W[i,j] x_j, simultaneous over i.

    rows: {i: (indices, weights)} for the vertices whose row is not the identity; indices int64 ascending, weights
    float64. Rounds are immutable; a schedule hands out the same object for the same matrix, so that plans are reused.
    closing: of a round that arrives a step late and whose rows are missing in the mean until then, how it is finished
    behind the last step; None where it may be left out.
    """

    closing = None

    def __init__(self, n, rows):
        self.n = n
        self.rows = {
            i: (np.asarray(js, np.int64), np.asarray(ws, np.float64))
            for i, (js, ws) in sorted(rows.items())
            if not (len(js) == 1 and js[0] == i and ws[0] == 1.0)
        }

    @cached_property
    def blends(self):
        """{i: [(j, share), ...]}: row i of W as interpolations, x <- x + share (x_j - x), one after the other.

        They read a row once and write the sum once less than products and sums do, and leave vertices that agree as
        they are, to the last bit. Positive weights come first, ascending by j, then negative ones: the weights so far,
        which a share is a part of, never vanish. The first share is 1.
        """
        return {i: blend(zip(js.tolist(), ws.tolist())) for i, (js, ws) in self.rows.items()}

    @cached_property
    def late_blends(self):
        """{i: [(j, share), ...]}: row i of W - I, as interpolations from a row that stands ahead with weight 1."""
        changes = {}
        for i, (js, ws) in self.rows.items():
            weights = dict(zip(js.tolist(), ws.tolist()))
            weights[i] = weights.get(i, 0.0) - 1.0
            changes[i] = blend(sorted(weights.items()), 1.0)
        return changes

    @cached_property
    def sources(self):
        """{i: [j, ...]}: the rows that row i of W names, as numbers of Python."""
        return {i: js.tolist() for i, (js, _) in self.rows.items()}

    @cached_property
    def vertices(self):
        """Ascending vertices whose row is not the identity."""
        return list(self.rows)

    @cached_property
    def readers(self):
        """{j: ascending vertices other than j whose row contains j}: the ones that j sends to."""
        readers = {}
        for i, (js, _) in self.rows.items():
            for j in js.tolist():
                if j != i:
                    readers.setdefault(j, []).append(i)
        return readers

    @cached_property
    def out_degree(self):
        """(n,) int64: vertices that each vertex sends its row to."""
        degree = np.zeros(self.n, np.int64)
        for j, readers in self.readers.items():
            degree[j] = len(readers)
        return degree

    @cached_property
    def keeps_mean(self):
        """Whether the columns sum to 1 (to 1e-12), so that the average over the vertices stays."""
        columns = np.ones(self.n)
        for i, (js, ws) in self.rows.items():
            columns[i] -= 1.0
            np.add.at(columns, js, ws)
        return bool(np.abs(columns - 1.0).max() <= 1e-12)

    def matrix(self):
        """Return W as a dense float64 (n, n) array."""
        w = np.eye(self.n)
        for i, (js, ws) in self.rows.items():
            w[i] = 0.0
            w[i, js] = ws
        return w


def blend(weights, total=0.0):
    """Return [(j, share)] of [(j, weight)], see `Round.blends`; total: the weight of what stands ahead."""
    weights = [(j, w) for j, w in weights if w]
    shares = []
    for j, w in [t for t in weights if t[1] > 0] + [t for t in weights if t[1] < 0]:
        total += w
        shares.append((j, w / total))
    return shares


class Mean:
    """The round J = 11'/n: every vertex takes the average over all; an ordered reduction, not a walk over edges."""

    keeps_mean = True

    def matrix(self, n):
        return np.full((n, n), 1.0 / n)


MEAN = Mean()


def full(rows):
    """Return the Round of all rows of W, given as the list of (indices, weights) of weights.rows."""
    return Round(len(rows), dict(enumerate(rows)))


class Varying:
    """The Rounds of a graph that changes: rows_at(j) -> the rows of the j-th exchange, as for `full`.

    period: exchanges after which they come again, None: never. A round that comes again is the same object, so that its
    plan is made once.
    """

    KEPT = 8

    def __init__(self, rows_at, period):
        self.rows_at, self.period = rows_at, period
        self._rounds = {}

    def round(self, j, mixes=None, how="mutual"):
        """Return the Round of exchange j; mixes: as for `masked`, None where every vertex mixes."""
        key = (j % self.period if self.period else j, mixes)
        if key not in self._rounds:
            if not self.period and len(self._rounds) >= self.KEPT:
                del self._rounds[next(iter(self._rounds))]
            rows = self.rows_at(key[0])
            self._rounds[key] = full(rows) if mixes is None else masked(rows, mixes, how)
        return self._rounds[key]


def masked(rows, mixes, how):
    """Return the Round in which only the vertices with mixes[i] True mix; rows as for `full`.

    how = "thesis": a vertex that mixes takes its row of W, the others keep theirs; columns need not sum to 1.
    how = "mutual": an edge acts when both its ends mix, its lost weight goes to the diagonal; symmetric W stays
    symmetric, so the mean is kept; with arcs rows sum to 1 and columns need not.
    """
    chosen = {}
    for i, (js, ws) in enumerate(rows):
        if not mixes[i]:
            continue
        if how == "mutual":
            acts = np.asarray(mixes)[js]
            lost = ws[~acts].sum()
            ws = np.where(js == i, ws + lost, ws)[acts]
            js = js[acts]
        chosen[i] = (js, ws)
    return Round(len(rows), chosen)


def pair_rounds(n, pairs):
    """Return the rounds that average the pairs (i, j) in order; neighbouring disjoint pairs share a round."""
    rounds, rows = [], {}
    for i, j in pairs:
        if i in rows or j in rows:
            rounds.append(Round(n, rows))
            rows = {}
        lo, hi = min(i, j), max(i, j)
        rows[i] = rows[j] = ([lo, hi], [0.5, 0.5])
    if rows:
        rounds.append(Round(n, rows))
    return tuple(rounds)
