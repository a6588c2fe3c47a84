"""Parts of a graph with exact sizes and few edges between them: METIS, what it leaves uneven moved, what gains exchanged.

G. Karypis, V. Kumar, A fast and high quality multilevel scheme for partitioning irregular graphs, SIAM J. Sci. Comput. 20,
1998. Exchanges: B. W. Kernighan, S. Lin, An efficient heuristic procedure for partitioning graphs, 1970.

n vertices, m edges, K parts.
"""

import numpy as np

SEEDS = 8
SMALL = 512  # vertices up to which as many starts of METIS are tried, and exchanges of any two vertices
EXCHANGED = 1000  # vertices of the starts that exchanges improve, at least one start: half a second
AHEAD = 8  # exchanges that may lose before one makes up for them
NEVER = -(1 << 30)


def partition(n, edges, counts):
    """Return the part of each vertex, (n,) int64: counts[k] vertices are in part k, and few of the (m, 2) edges cross.

    An edge that is there twice, as two opposite arcs are, counts twice. The same input gives the same parts.
    """
    counts = np.asarray(counts)
    in_order = np.repeat(np.arange(len(counts)), counts)
    if len(counts) == 1 or len(counts) == n or not len(edges):
        return in_order
    graph = Links(n, edges)
    seeds = range(SEEDS if n <= SMALL else 1)
    starts = [in_order, *(graph.even(graph.metis(counts, seed, way), counts) for seed in seeds for way in (False, True))]
    if n <= SMALL:
        random = np.random.default_rng(0)
        starts += [random.permutation(in_order) for _ in seeds]
        starts = map(graph.exchange, sorted(starts, key=graph.cut)[: 1 + EXCHANGED // n])
    return min(starts, key=graph.cut)


class Links:
    """The edges of each vertex, compressed: ends[first[v] : first[v + 1]] are joined to v, by as many edges as `weights`."""

    def __init__(self, n, edges):
        both, weights = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0, return_counts=True)
        self.n, self.starts, self.ends, self.weights = n, both[:, 0], both[:, 1], weights
        self.first = np.searchsorted(self.starts, np.arange(n + 1))

    def cut(self, part):
        """Return how many edges cross."""
        return int(self.weights[part[self.starts] != part[self.ends]].sum()) // 2

    def metis(self, counts, seed, recursive=False):
        """Return METIS's parts, whose sizes may differ from the counts."""
        import pymetis

        first, ends, weights = (a.astype(np.int32) for a in (self.first, self.ends, self.weights))
        found = pymetis.part_graph(
            len(counts), pymetis.CSRAdjacency(first, ends), eweights=weights, tpwgts=(counts / counts.sum()).tolist(),
            recursive=recursive, options=pymetis.Options(seed=seed, ufactor=1),
        )  # fmt: skip
        return np.array(found.vertex_part, dtype=np.int64)

    def even(self, part, counts):
        """Move vertices from parts that have too many to ones that have too few, the least loss first; return the parts."""
        part = part.copy()
        near = self._near(part, len(counts))
        while (excess := np.bincount(part, minlength=len(counts)) - counts).any():
            givers, takers = np.flatnonzero(excess[part] > 0), np.flatnonzero(excess < 0)
            gain = near[np.ix_(givers, takers)] - near[givers, part[givers]][:, None]
            row, column = np.unravel_index(gain.argmax(), gain.shape)
            vertex, old, new = givers[row], part[givers[row]], takers[column]
            around = slice(self.first[vertex], self.first[vertex + 1])
            near[self.ends[around], old] -= self.weights[around]
            near[self.ends[around], new] += self.weights[around]
            part[vertex] = new
        return part

    def exchange(self, part):
        """Exchange vertices of different parts two by two, each once, while that helps within AHEAD exchanges; repeat from there."""
        joined = np.zeros((self.n, self.n), np.int32)
        joined[self.starts, self.ends] = self.weights
        while True:
            trial, free, gained, best = part.copy(), np.ones(self.n, bool), 0, (0, part, 0)
            for number in range(1, self.n // 2 + 1):
                near = joined @ np.eye(part.max() + 1, dtype=np.int32)[trial]
                gain = (near - near[np.arange(self.n), trial][:, None])[:, trial]  # of moving a vertex (row) to another's part
                allowed = (trial[:, None] != trial) & free[:, None] & free
                both = np.where(allowed, gain + gain.T - 2 * joined, NEVER)
                i, j = np.unravel_index(both.argmax(), both.shape)
                if both[i, j] == NEVER or number > best[2] + AHEAD:
                    break
                trial[i], trial[j] = trial[j], trial[i]
                free[i] = free[j] = False
                gained += int(both[i, j])
                if gained > best[0]:
                    best = gained, trial.copy(), number
            if not best[0]:
                return part
            part = best[1]

    def _near(self, part, parts):
        """Return (n, K): how many edges join each vertex to each part."""
        near = np.zeros((self.n, parts), np.int64)
        np.add.at(near, (self.starts, part[self.ends]), self.weights)
        return near
