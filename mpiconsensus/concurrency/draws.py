"""The random numbers of several replicas that are computed at once: each vertex draws what it would draw alone.

Under vmap a model sees one replica, and a draw would be one for all or one array for all. Draws answers dropout and
in-place Bernoulli draws instead, a row a vertex from a generator of that vertex.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

# Whether a mask is drawn for whole channels.
DROPOUTS = {F.dropout: False, F.dropout1d: True, F.dropout2d: True, F.dropout3d: True}


class Bernoulli(torch.autograd.Function):
    """Zeros and ones of `shape`, ones with probability p: under vmap one array a vertex, the g-th from generator g."""

    @staticmethod
    def forward(index, shape, p, dtype, generators):
        return _drawn(shape, p, dtype, generators[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def vmap(info, in_dims, index, shape, p, dtype, generators):
        return torch.stack([_drawn(shape, p, dtype, generator) for generator in generators]), 0


def _drawn(shape, p, dtype, generator):
    return torch.empty(shape, dtype=dtype, device=generator.device).bernoulli_(p, generator=generator)


class Draws(TorchFunctionMode):
    """Within it F.dropout, dropout1d to dropout3d and Tensor.bernoulli_(p) draw from `generators`, one a vertex.

    `index` is a number under vmap, any of this vertex: it says that each vertex has its own. On a CPU the masks are those
    of F.dropout after torch.manual_seed with the generator's seed, for tensors that are contiguous.
    bernoulli_ returns what it drew and leaves the tensor as it was.
    """

    def __init__(self, generators, index=None):
        super().__init__()
        self.generators = generators
        self.index = torch.zeros(()) if index is None else index

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in DROPOUTS:
            return self._dropout(DROPOUTS[func], *args, **kwargs)
        if func == torch.Tensor.bernoulli_ and "generator" not in kwargs and not any(isinstance(a, torch.Tensor) for a in args[1:]):
            return self._draw(*args, **kwargs)
        return func(*args, **kwargs)

    def _draw(self, like, p=0.5, shape=None):
        return Bernoulli.apply(self.index, tuple(like.shape if shape is None else shape), p, like.dtype, self.generators)

    def _dropout(self, channels, input, p=0.5, training=True, inplace=False):
        if not training or p == 0:
            return input
        shape = input.shape[:2] + (1,) * (input.dim() - 2) if channels else input.shape
        mask = self._draw(input, 1 - p, shape)
        if p < 1:
            mask = mask / (1 - p)
        return input.mul_(mask) if inplace else input * mask
