"""Multilayer perceptron: affine maps with ReLU between them.

h_0 = x,  h_l = max(0, A_l h_{l-1} + b_l),  z = A h_L + b       x: the sample, flattened to p numbers

Parameters: the sum of (inputs + 1) * outputs over its affine maps.  No hidden layer makes it logistic regression.
"""

import math

from torch import nn


class MLP(nn.Sequential):
    """Map samples (B, *shape) to logits (B, classes) through hidden layers of the widths `hidden`."""

    def __init__(self, shape, classes, hidden=(64,)):
        layers = [nn.Flatten()]
        width = math.prod(shape)
        for wider in hidden:
            layers += [nn.Linear(width, wider), nn.ReLU(inplace=True)]
            width = wider
        super().__init__(*layers, nn.Linear(width, classes))
