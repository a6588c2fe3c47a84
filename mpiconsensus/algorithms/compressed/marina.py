"""MARINA: compressed differences of gradients, and now and then the gradients themselves.

    with probability p:  h = (1/n) sum_i g_i(x);   else  h <- h + (1/n) sum_i C(g_i(x) - g_i(x before));   x <- x - a h

All draw the same coin. p = 0 in the job stands for the share of a message's bits in a gradient's.

Sends: C of the difference to all, a step, or the gradient.  State: the last gradient, a vector a vertex, and h.
Assumes: C unbiased, and gradients of whole shards: with batches a difference is of two batches, and what does not cancel stays in h.
Step size: 1 / (L + L' sqrt((1 - p) (zeta - 1) / (p n))), for vertices that draw independently, as they do unless
compression.supports = shared: then n counts as 1.
Reference: Gorbunov, Burlachenko, Li & Richtarik, MARINA: faster non-convex distributed learning with compression, ICML 2021,
algorithm 1 and theorem 2.1.
"""

import math

from mpiconsensus.algorithms.compressed.base import AmongAll
from mpiconsensus.compress.base import FLOAT_BITS
from mpiconsensus.randomness import generator


class Marina(AmongAll):
    name = "marina"
    formula = "with probability p h = mean_i g_i, else h <- h + mean_i C(g_i - g_i before); x <- x - a h"
    reference = "Gorbunov, Burlachenko, Li & Richtarik 2021"
    needs = "unbiased"
    independent = True
    whole_shards = True
    settings = (*AmongAll.settings, "multiple", "smoothness", "dense_probability")
    own = ("before",)
    common = ("mean",)
    collects = "mean"

    def open(self, codec, hosted, dtype):
        super().open(codec, hosted, dtype)
        self.p = self.options.dense_probability or min(1.0, codec.bits / (FLOAT_BITS * codec.count))

    def dense(self, k):
        return k == 0 or generator(self.setting.seed, "marina", 0, k).random() < self.p

    def uncompressed(self, i, gradient):
        self.before[i] = gradient

    def outgoing(self, i, gradient, rate):
        difference = gradient - self.before[i]
        self.before[i] = gradient
        gradient[:] = difference

    def rate(self, smoothness, n):
        return 1.0 / (smoothness[0] + smoothness[1] * math.sqrt((1 - self.p) * (self.codec.constant - 1) / (self.p * self.averaging(n))))
