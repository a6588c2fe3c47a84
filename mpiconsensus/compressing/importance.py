"""Weights of importance, learned while a run goes on: a gradient more a step, at the point that the weighted step would reach."""

import numpy as np

from mpiconsensus.compress.importance import Importance
from mpiconsensus.errors import UserError


class Weights:
    """Importance of the parameters at each hosted vertex. codecs: one a vertex, told of its weights.

    trial(i, move): returns the gradient of hosted vertex i's last batch at its parameters plus `move`, (d,). smoothness: L of the
    loss, which the scale-free step of mirror descent needs; None where options.importance_eta says the step.
    """

    def __init__(self, codecs, options, trial, smoothness):
        low, high = bounds(options)
        eta = options.importance_eta or None
        made = [Importance(codec.count, options.importance_scale, eta, low, high) for codec in codecs]
        self.codecs, self.trial, self.smoothness, self.importance = codecs, trial, smoothness, made
        for i in range(len(codecs)):
            self._tell(i)

    def learn(self, i, gradient, rate):
        """Take a step of mirror descent at hosted vertex i from its gradient (d,), which stays."""
        importance, gradient = self.importance[i], gradient.copy()
        move = -rate * importance.weights * gradient
        importance.step(gradient, self.trial(i, move), rate, self.smoothness)
        self._tell(i)

    def _tell(self, i):
        self.codecs[i].reweigh(self.importance[i].weights)

    def state_dict(self, i):
        return self.importance[i].state_dict()

    def load_state_dict(self, i, state):
        self.importance[i].load_state_dict(state)
        self._tell(i)


def adaptive(codec):
    """Return whether a compressor chooses by importance."""
    return any(hasattr(compressor, "weights") for _, compressor in codec.sections)


def bounds(options):
    """Return (low, high) of the weights; UserError for wrong ones."""
    given = options.importance_bounds
    if not given:
        return 0.0, np.inf
    if len(given) != 2 or not 0 < given[0] <= given[1]:
        raise UserError(f"compression.importance_bounds = {given}: give two numbers a <= b above 0, for example [0.5, 2.0], or none.")
    return tuple(given)
