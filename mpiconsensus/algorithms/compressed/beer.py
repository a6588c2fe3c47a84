"""BEER: gradient tracking over compressed differences.

    v_i <- v_i + gamma (t_i - z_i) + g_i(x_i) - g_i(x_i before),     z_i <- z_i + C(v_i - z_i),   t_i = sum_j W[i,j] z_j
    x_i <- x_i + gamma (s_i - y_i) - a v_i,                          y_i <- y_i + C(x_i - y_i),   s_i = sum_j W[i,j] y_j

all in each line with the sums of the step before; v_i^0 = g_i(x_i^0), y_i^0 = z_i^0 = 0. The optimizer steps along v_i.

Sends: two messages over each edge, both ways, a step.  State: v_i, z_i, t_i, y_i, s_i and the last gradient: six vectors a vertex.
Conserves: (1/n) sum_i v_i = (1/n) sum_i g_i, the mean of the trackers is that of the gradients.
Assumes: W doubly stochastic, the graph undirected and fixed; C contractive, an unbiased one is divided by its zeta. Shards may
differ as they like: there is no bound on how unlike the gradients are.
Reference: Zhao, Li, Li, Richtarik & Chi, BEER: fast O(1/T) rate for decentralized nonconvex optimization with communication
compression, NeurIPS 2022, algorithm 1.
"""

from mpiconsensus.algorithms.compressed.base import OnGraph


class Beer(OnGraph):
    name = "beer"
    formula = "v_i <- v_i + gamma (W z - z)_i + g_i - g_i before; x_i <- x_i + gamma (W y - y)_i - a v_i; y, z follow x, v compressed"
    reference = "Zhao, Li, Li, Richtarik & Chi 2022"
    own = ("tracker", "known_tracker", "around_tracker", "known", "around", "before")
    parts = ("x", "v")

    def ahead(self, i, x, gradient):
        """Change x and the gradient of hosted vertex i, before the optimizer's step, in place."""
        self.tracker[i] += self.gamma * (self.around_tracker[i] - self.known_tracker[i]) + (gradient - self.before[i])
        self.before[i] = gradient
        gradient[:] = self.tracker[i]
        x += self.gamma * (self.around[i] - self.known[i])

    def vector(self, i, part, x):
        return x - self.known[i] if part == 0 else self.tracker[i] - self.known_tracker[i]

    def learns(self, i, part):
        return [((self.known if part == 0 else self.known_tracker)[i], 1.0)]

    def hears(self, i, part):
        return (self.around if part == 0 else self.around_tracker)[i]

    def behind(self, i, x):
        pass
