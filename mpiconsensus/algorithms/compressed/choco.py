"""CHOCO: gossip of compressed differences to what the neighbours know.

    x_i^{1/2} = x_i - a g_i(x_i)                                            (choco-gossip: x_i, nothing is trained)
    q_i = C(x_i^{1/2} - y_i),   y_i <- y_i + q_i,   s_i <- s_i + sum_j W[i,j] q_j
    x_i = x_i^{1/2} + gamma (s_i - y_i)                                     y_i^0 = s_i^0 = 0

y_i is what all neighbours know of x_i, s_i = sum_j W[i,j] y_j. gamma = 0 in the job stands for the step of theory, which is
far below what works; tune it.

Sends: q_i over each edge, both ways, a step.  State: y_i and s_i, two vectors a vertex, whatever its neighbours.
Conserves: the mean of x_i, where W's columns sum to 1, but for the gradients.
Assumes: W doubly stochastic, the graph undirected and fixed; C contractive, an unbiased one is divided by its zeta.
With C = identity and gamma = 1 this is consensus, order atc.
Reference: Koloskova, Stich & Jaggi, Decentralized stochastic optimization and gossip algorithms with compressed communication,
ICML 2019, algorithms 1 and 2 (choco-gossip 1, choco-sgd 2), in the form that keeps one sum a vertex.
"""

from mpiconsensus.algorithms.compressed.base import OnGraph


class ChocoSGD(OnGraph):
    name = "choco-sgd"
    formula = "x_i <- x_i - a g_i; y_i <- y_i + C(x_i - y_i); x_i <- x_i + gamma sum_j W[i,j] (y_j - y_i)"
    reference = "Koloskova, Stich & Jaggi 2019"
    own = ("known", "around")

    def vector(self, i, part, x):
        """Return what hosted vertex i compresses for a part, behind the optimizer's step."""
        return x - self.known[i]

    def learns(self, i, part):
        """Return [(array, factor)]: what hosted vertex i's own message of a part is added to."""
        return [(self.known[i], 1.0)]

    def hears(self, i, part):
        """Return what the messages of a part of the neighbours of hosted vertex i, and its own, are added to, by their weights."""
        return self.around[i]

    def behind(self, i, x):
        """Change x of hosted vertex i, behind all messages, in place."""
        x += self.gamma * (self.around[i] - self.known[i])


class ChocoGossip(ChocoSGD):
    name = "choco-gossip"
    formula = "y_i <- y_i + C(x_i - y_i); x_i <- x_i + gamma sum_j W[i,j] (y_j - y_i); nothing is trained"

    def trains(self, k, vertex):
        return False
