"""Which models draw random numbers when they train.

Their generator must be reseeded for every vertex and step, or what one vertex draws depends on who drew before it.
"""

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

KNOWN = ("torch", "torchvision", "mpiconsensus")


def is_stochastic(module):
    """Return whether a training forward of `module` draws random numbers.

    Known are the modules of torch, torchvision and this package. One of another package that computes by itself
    counts as drawing: to reseed a generator in vain costs little, not to reseed it costs reproducibility.
    """
    return any(_draws(part) for part in module.modules())


def _draws(part):
    if isinstance(part, (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)):
        return True
    if isinstance(part, _DropoutNd) or type(part).__name__ == "StochasticDepth":
        return part.p > 0
    if type(part).forward.__module__.split(".")[0] not in KNOWN:
        return True
    # Attention, recurrent and dense layers call the functional dropout with one of these probabilities.
    rates = (getattr(part, word, None) for word in ("dropout", "attention_dropout", "drop_rate"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)
