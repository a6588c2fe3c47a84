"""Weights of importance, sought anew at each step: a gradient more for each step of mirror descent, where the weighted step would go."""

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
        self.inner = options.importance_steps
        for compressor in (c for codec in codecs for _, c in codec.sections if hasattr(c, "normalised")):
            compressor.normalised = options.importance_normalised
        for i in range(len(codecs)):
            self._tell(i)

    def learn(self, i, gradient, rate):
        """Seek the weights of this step at hosted vertex i, from equal ones, by its gradient (d,), which stays."""
        importance, gradient = self.importance[i], gradient.copy()
        importance.restart()
        for _ in range(self.inner):
            move = -rate * importance.weights * gradient
            importance.step(gradient, self.trial(i, move), rate, self.smoothness)
        self._tell(i)

    def _tell(self, i):
        self.codecs[i].reweigh(self.importance[i].weights)


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


def trial_gradient(trainer, i, move):
    """Return the gradient of the last batch of a trainer's hosted vertex i at its parameters plus `move`, (d,); all else stays."""
    block, codec = trainer.block, trainer.stepper.codecs[i]
    row, gradient = block.parameters(i), block.gradients[i]
    kept = [(tensor, tensor.clone()) for tensor in (row, gradient, *block.modules[i].buffers())]
    host = row.cpu()
    codec.scatter(codec.gather(host) + move, host)
    row.copy_(host)
    trainer.backward(i, *trainer.last_batch[i], trainer.k)
    found = codec.gather(gradient.cpu()).copy()
    for tensor, values in kept:
        tensor.copy_(values)
    return found
