"""A regulariser that is bounded and not convex: training.nonconvex.

r(x) = c sum_j x_j^2 / (1 + x_j^2),    grad r(x)_j = 2 c x_j / (1 + x_j^2)^2

Zeros, as the padding of a row holds them, add nothing.
Reference: Richtarik, Sokolov and Fatkhullin, EF21: A new, simpler, theoretically better, and practically faster error feedback,
NeurIPS 2021, experiments.
"""


def nonconvex(x, c):
    """Return (values (m,), gradients (m, p)) of r at the rows x (m, p), a tensor."""
    squares = x.square()
    below = squares + 1
    return c * (squares / below).sum(1), 2 * c * x / below.square()
