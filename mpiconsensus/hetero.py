"""Unequal machines, as the table [hetero] describes them: how long a gradient takes, and a row over an edge.

A pure function of (seed, vertex, step): an emulated run sleeps by it and the virtual clock counts by it, alike.
"""

from mpiconsensus import config
from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator

DRAWN = 256  # slow-downs of a vertex that are drawn at once


class Pace:
    """The pace of n vertices. hetero: the job's table; seed: training.seed. UserError for a list of another length, and a bandwidth below 1."""

    def __init__(self, hetero, n, seed):
        self.hetero, self.n, self.seed = hetero, n, seed
        if 0 < hetero.link_bandwidth < 1:
            raise UserError(f"hetero.link_bandwidth = {hetero.link_bandwidth:g} is not allowed; give 1 byte a second or more, or 0 for no bound.")
        self.speed = config.per_vertex("hetero.speed", hetero.speed, n)
        self._drawn = {}

    def factor(self, vertex, t):
        """Return how many times as long as at speed 1 the gradient of step t of a vertex takes."""
        slow = self.hetero.slowdown_factor if self._slow(vertex, t // self.hetero.slowdown_steps) else 1.0
        return slow / self.speed[vertex]

    def seconds(self, vertex, t, base_s):
        """Return the seconds of step t's gradient of a vertex, of which it takes base_s at speed 1."""
        return base_s * self.factor(vertex, t)

    @property
    def stretches(self):
        """Whether any gradient takes longer than it would."""
        hetero = self.hetero
        return bool(hetero.slowdown_probability or hetero.least_step_s) or any(speed != 1.0 for speed in self.speed)

    @property
    def has_links(self):
        """Whether anything is under way for longer than it would be."""
        return bool(self.hetero.link_delay_s or self.hetero.link_bandwidth)

    def delay(self, i, j, nbytes):
        """Return the seconds until nbytes that vertex i sends have arrived at vertex j."""
        hetero = self.hetero
        if i // hetero.node_size == j // hetero.node_size:
            return 0.0
        return hetero.link_delay_s + (nbytes / hetero.link_bandwidth if hetero.link_bandwidth else 0.0)

    def _slow(self, vertex, turn):
        if not self.hetero.slowdown_probability:
            return False
        block, place = divmod(turn, DRAWN)
        number, drawn = self._drawn.get(vertex, (None, None))
        if number != block:
            drawn = generator(self.seed, "slowdown", vertex, block).random(DRAWN)
            self._drawn[vertex] = block, drawn
        return drawn[place] < self.hetero.slowdown_probability
