"""Compressors that choose by learned importance of the coordinates, and the mirror descent that learns it.

Khafizov & Beznosikov 2024: the weights w of a step are sought with f(x - gamma w * g) least over the simplex. w belongs to
whoever trains: `Importance` holds it, the operators choose by their `weights`, (d,), all 1 until they are given others.
"""

import numpy as np

from mpiconsensus.compress.sparse import Sparse, largest
from mpiconsensus.errors import UserError

SCALES = ("d", "max", "unit")


class Importance:
    """Weights of d coordinates by entropic mirror descent, in float64 and by their logarithms: none becomes 0 for good.

    scale: what is asked of the weights: their sum is d (all 1 is the plain step), their largest is 1, or their sum is 1, as
    in the paper, whose trial step is d times shorter. eta: the step of mirror descent; None takes the scale-free
    1 / (gamma^2 L d max|g|^2), which needs the smoothness L of f. low, high: `weights` are clipped to them.
    """

    def __init__(self, d, scale="d", eta=None, low=0.0, high=np.inf):
        if scale not in SCALES:
            raise UserError(f"scale {scale!r} of importance weights is not known; choose one of {', '.join(SCALES)}.")
        if not 0 <= low <= high:
            raise UserError(f"importance weights from {low} to {high}: the lower bound is at least 0 and below the upper one.")
        self.d, self.scale, self.eta, self.low, self.high = d, scale, eta, low, high
        self.restart()

    def restart(self):
        """Make all weights equal."""
        self.logarithms = np.full(self.d, -np.log(self.d))  # of the weights whose sum is 1

    @property
    def weights(self):
        """Return the weights (d,), float64, on their scale."""
        top = self.logarithms.max() if self.scale == "max" else 0.0
        return np.clip(np.exp(self.logarithms - top) * (self.d if self.scale == "d" else 1), self.low, self.high)

    def trial(self, x, gradient, gamma):
        """Return x - gamma w * g, where the gradient that `step` asks for is taken."""
        return x - gamma * self.weights * gradient

    def step(self, gradient, trial_gradient, gamma, smoothness=None):
        """Do a step of mirror descent: log w += eta gamma g * grad f(trial), then onto the simplex.

        gradient, trial_gradient: (d,) of f at x and at the trial point. smoothness: L, where eta is None. Without a
        gradient, or with one that is not finite, the weights stay.
        """
        gradient, trial_gradient = np.asarray(gradient, np.float64), np.asarray(trial_gradient, np.float64)
        largest_gradient = np.abs(gradient).max()
        if largest_gradient == 0 or not (np.isfinite(largest_gradient) and np.isfinite(trial_gradient).all()):
            return
        if self.eta is None and smoothness is None:
            raise UserError("importance weights without a step eta take one from the smoothness of f; give eta or the smoothness.")
        eta = self.eta if self.eta is not None else 1 / (gamma**2 * smoothness * self.d * largest_gradient**2)
        self.logarithms += eta * gamma * gradient * trial_gradient
        self.logarithms -= self.logarithms.max()
        self.logarithms -= np.log(np.exp(self.logarithms).sum())


class Weighted(Sparse):
    """k elements by the weights. No constant: the weights need not know the vector."""

    def __init__(self, d, dtype=np.float32, shape=None, k=1, inner=None):
        super().__init__(d, dtype, shape, k, inner)
        self.weights = np.broadcast_to(self.dtype.type(1), d)

    constant = None


class Importants(Weighted):
    name = "importance"
    formula = "the k largest |w_i x_i|, as they are; contracts for weights in [a, b]"

    @property
    def constant(self):
        """(a / b)^2 k / d for the weights as they are."""
        plain = super(Weighted, self).constant
        ratio = float(self.weights.min()) / float(self.weights.max())
        return plain * ratio**2 if plain is not None and ratio > 0 else None

    def select(self, x, random):
        return largest(self.weights * x, self.k)


class Stochastic(Weighted):
    """One after the other without replacement, by their weights: the k first of exponential times of rates w_i."""

    name = "md-stochastic"
    formula = "k elements drawn by w without replacement, as they are; Khafizov & Beznosikov 2024"
    draws = True

    def select(self, x, random):
        return largest(self.weights / random.standard_exponential(self.d, self.dtype), self.k)


class Greedy(Weighted):
    name = "md-greedy"
    formula = "the k largest w_i: x_i as they are; Khafizov & Beznosikov 2024"

    def select(self, x, random):
        return largest(self.weights, self.k)


class GreedyWeighted(Greedy):
    """normalised: what is sent is scaled by k / sum of the weights chosen, as the authors' code does and their paper does not."""

    name = "md-greedy-weighted"
    formula = "the k largest w_i: w_i x_i; Khafizov & Beznosikov 2024"
    normalised = False

    def values(self, x, chosen):
        weights = self.weights[chosen]
        total = float(weights.sum()) if self.normalised else 0.0  # 0 too where all weights chosen are
        return x[chosen] * (weights * self.dtype.type(self.k / total) if total else weights)


class WeightedGreedy(GreedyWeighted):
    name = "md-weighted-greedy"
    formula = "the k largest |w_i x_i|: w_i x_i; Khafizov & Beznosikov 2024"

    def select(self, x, random):
        return largest(self.weights * x, self.k)
