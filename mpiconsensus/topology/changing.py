"""Graphs that change from exchange to exchange, each a pure function of (seed, k). n vertices, m edges, k exchange.

numpy alone, and small when pickled: they travel from the rank that built them to ranks without networkx.
"""

import numpy as np

from mpiconsensus.randomness import generator


class Changing:
    """`at(k)` are the edges of exchange k, (m_k, 2) int64, read-only; the latest k's are kept.

    `period`: exchanges after which the graphs come again; None: never.
    """

    period = None

    def __init__(self):
        self._latest = None, None

    def at(self, k):
        if self._latest[0] != k:
            edges = self._edges(k)
            edges.flags.writeable = False
            self._latest = k, edges
        return self._latest[1]

    def __getstate__(self):
        return {**self.__dict__, "_latest": (None, None)}


class OnePeerExponential(Changing):
    """Arcs (i, i + 2^(k mod L) mod n), L = ceil(log2 n): each vertex sends to one and receives from one.

    With weights 1/2, L exchanges average exactly where n is a power of 2. Reference: Assran, Loizou, Ballas, Rabbat,
    "Stochastic gradient push for distributed deep learning", ICML 2019, appendix A; Ying et al., "Exponential graph is
    provably efficient for decentralized deep training", NeurIPS 2021, section 4.
    """

    def __init__(self, n):
        super().__init__()
        self.n, self.period = n, max(1, (n - 1).bit_length())

    def _edges(self, k):
        if self.n == 1:
            return np.zeros((0, 2), dtype=np.int64)
        sender = np.arange(self.n)
        return np.stack([sender, (sender + (1 << k % self.period)) % self.n], axis=1)


class Matchings(Changing):
    """A maximal matching a graph: edges in random order, each taken unless one before it has a vertex of it."""

    def __init__(self, n, edges, seed):
        super().__init__()
        self.n, self.seed, self._base = n, seed, edges

    def _edges(self, k):
        order = generator(self.seed, "matching", step=k).permutation(len(self._base))
        chosen = order[greedy(self.n, self._base[order])]
        return self._base[np.sort(chosen)]


def greedy(n, edges):
    """Return the positions of the edges that a pass in their order takes, each unless a taken one has a vertex of it.

    All at once: an edge that is the first at both its ends is one that the pass takes; then those that touch it fall away,
    and so on, O(log m) times for a random order (Blelloch, Fineman, Shun, "Greedy sequential maximal independent set and
    matching are parallel on average", SPAA 2012).
    """
    left, ends, taken = np.arange(len(edges)), edges, []
    first = np.empty(n, dtype=np.int64)
    free = np.ones(n, dtype=bool)
    while len(left):
        # Of several values assigned to one index the last stays: descending, so the smallest position.
        first[ends[::-1].ravel()] = np.repeat(left[::-1], 2)
        take = (first[ends] == left[:, None]).all(axis=1)
        taken.append(left[take])
        free[ends[take]] = False
        kept = free[ends].all(axis=1)
        left, ends = left[kept], ends[kept]
    return np.concatenate(taken) if taken else left


class Sequence(Changing):
    """Given graphs in turn: graph k mod their number."""

    def __init__(self, graphs):
        super().__init__()
        self._graphs, self.period = graphs, len(graphs)

    def _edges(self, k):
        return self._graphs[k % self.period]
