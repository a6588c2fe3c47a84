"""Logistic regression.

z = A x + b,  p(class c) = softmax(z)_c                 x: the sample, flattened to p numbers

Parameters: classes * (p + 1).  Two classes have two logits, so that cross entropy serves every model.
"""

import math

from torch import nn


class Logistic(nn.Sequential):
    """Map samples (B, *shape) to logits (B, classes) by one affine map."""

    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(math.prod(shape), classes))
