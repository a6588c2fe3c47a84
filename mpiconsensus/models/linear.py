"""Logistic regression of two classes with one weight vector and no bias.

z = (0, a.x),  p(class 1) = 1 / (1 + exp(-a.x))         x: the sample, flattened to p numbers

Cross entropy is then log(1 + exp(-y a.x)) with y = -1 for class 0 and +1 for class 1: the problem that papers on optimisation
name so.
Parameters: p.
"""

import math

import torch
from torch import nn


class Linear(nn.Module):
    """Map samples (B, *shape) to logits (B, 2), the first of them 0."""

    def __init__(self, shape, classes):
        super().__init__()
        self.inner = nn.Linear(math.prod(shape), 1, bias=False)

    def forward(self, x):
        z = self.inner(x.flatten(1))
        return torch.cat([torch.zeros_like(z), z], dim=1)
