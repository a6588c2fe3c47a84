"""Randomised gossip: b pair averages a step.

    x_i, x_j <- (x_i + x_j) / 2                              for b edges {i, j}, drawn with replacement, in order

at steps k that the period q divides. Pairs of neighbouring draws that share no vertex go into one round.

Sends: a row both ways over each drawn edge.  State: none; the edges of step k are drawn from (seed, k).
Assumes: a connected graph; W is not used.
Differs from the paper in: steps are synchronous, and the b edges are drawn uniformly over the edges.
Reference: Boyd, Ghosh, Prabhakar & Shah, Randomized gossip algorithms, IEEE Trans. Information Theory 2006, section II.
"""

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator
from mpiconsensus.schedule import pair_rounds


class Gossip(Algorithm):
    name = "gossip"
    formula = "x_i, x_j <- (x_i + x_j) / 2 for b edges drawn with replacement, at steps that q divides"
    reference = "Boyd, Ghosh, Prabhakar & Shah 2006"
    keys = ("order", "period", "pairs")
    orders = ("atc", "cta", "dpsgd")

    def __init__(self, setting):
        super().__init__(setting)
        self.period = self.one_period("period")
        if setting.directed or setting.varying:
            what = "changes" if setting.varying else "has arcs of one direction"
            raise UserError(f"algorithm.name = gossip draws pairs from the edges of a graph that stays, this one {what}; take algorithm.name = consensus.")

    def rounds(self, k):
        edges = self.setting.edges
        if k % self.period or not len(edges):
            return ()
        drawn = generator(self.setting.seed, "gossip", step=k).integers(len(edges), size=self.setting.options.pairs)
        return pair_rounds(self.n, edges[drawn].tolist())
