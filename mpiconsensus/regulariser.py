"""A regulariser that is bounded and not convex: training.nonconvex.

r(x) = c sum_j x_j^2 / (1 + x_j^2),    grad r(x)_j = 2 c x_j / (1 + x_j^2)^2

Zeros, as the padding of a row holds them, add nothing.
Reference: Richtarik, Sokolov and Fatkhullin, EF21: A new, simpler, theoretically better, and practically faster error feedback,
NeurIPS 2021, experiments.
"""


def add_nonconvex(x, c, gradient):
    """Return the value of r at x (p,), a tensor, and add its gradient to `gradient` (p,)."""
    squares = x.square()
    below = squares + 1
    gradient.addcdiv_(x, below.square(), value=2 * c)
    return squares.div_(below).sum().mul_(c)
