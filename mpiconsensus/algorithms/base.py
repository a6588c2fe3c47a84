"""What a synchronous algorithm is: who trains at step k, and the rounds that follow."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

from mpiconsensus import config
from mpiconsensus.errors import UserError

# Keys of [algorithm] that every algorithm reads, or refuses by itself.
EVERYWHERE = ("name", "order", "train_every", "delay")


class Setting(NamedTuple):
    """What a schedule is made from. rows: of W, as weights.rows gives them; edges: (m, 2); options: job.algorithm.

    directed: the edges are arcs (sender, receiver). varying: the schedule.Varying of a graph that changes, else None;
    rows are then the average over its exchanges. compression: job.compression.
    """

    n: int
    rows: list
    edges: np.ndarray
    options: object
    powers: list
    seed: int
    total_steps: int
    directed: bool = False
    varying: object = None
    compression: object = None

    @classmethod
    def of(cls, wiring, options, powers, seed, total_steps, compression=None):
        return cls(wiring.n, wiring.rows, wiring.edges, options, powers, seed, total_steps, wiring.directed, wiring.varying, compression)


class Algorithm(ABC):
    """A schedule: a pure function of (seed, k) that every rank evaluates alike, with no message.

    name, formula, reference: shown by `mpiconsensus algorithms`. keys: the keys of [algorithm] that mean something
    here, told in the head of a run; settings: those of [compression]. orders: values of algorithm.order that do. averages_gradients: the gradients of all
    vertices are averaged before the optimizer. delayed: a step mixes with the round of the step before, see run_delayed.
    asynchronous: there are no rounds, see algorithms.asynchronous. compressed: nor here, see algorithms.compressed.
    """

    name = formula = reference = ""
    keys = settings = ()
    orders = ("atc",)
    averages_gradients = False
    delayed = False
    asynchronous = False
    compressed = False

    def __init__(self, setting):
        self.setting, self.n = setting, setting.n
        options = setting.options
        if options.order not in self.orders:
            raise UserError(
                f"algorithm.order = {options.order} means nothing for {self.name}, which allows {', '.join(self.orders)}; "
                "take algorithm.name = consensus or gossip, or order = atc."
            )
        if options.delay and "delay" not in self.keys:
            raise UserError(f"algorithm.delay = {options.delay} is for consensus and push-sum; {self.name} has none: take algorithm.delay = 0.")
        self.train_every = train_every(options.train_every, setting.powers, self.n)

    def pace(self, k, vertex):
        """Return the factor of the learning rate of `vertex` at step k."""
        return 1.0

    def trains(self, k, vertex):
        """Return whether `vertex` takes a gradient step at step k."""
        return k % self.train_every[vertex] == 0

    @property
    def depth(self):
        """Buffers that a vertex needs: its row, the one that a round writes, and a row that late readers still read."""
        return 3 if self.delayed else 2

    @abstractmethod
    def rounds(self, k):
        """Return the tuple of rounds of step k, in order; empty where nothing is exchanged."""

    def describe(self):
        """Return the algorithm and the keys that matter to it, in one line."""
        told = [f"{key} {getattr(self.setting.options, key)}" for key in self.keys]
        told += [f"{key} {getattr(self.setting.compression, key)}" for key in self.settings]
        return ": ".join([self.name, ", ".join(told)] if told else [self.name])

    def unused(self):
        """Return the keys of [algorithm] and [compression] that were changed and mean nothing here, as "algorithm.key = value"."""
        tables = {"algorithm": (self.setting.options, (*self.keys, *EVERYWHERE)), "compression": (self.setting.compression, self.settings)}
        told = []
        for key in config.KEYS:
            table, _, word = key.name.partition(".")
            options, meant = tables.get(table, (None, ()))
            if options is not None and word not in meant and getattr(options, word) != key.default:
                told.append(f"{key.name} = {getattr(options, word)}")
        return told

    def one_period(self, key):
        """Return the value of algorithm.`key`, which must be one number for this algorithm."""
        value = getattr(self.setting.options, key)
        if isinstance(value, list):
            raise UserError(f"algorithm.{key} = {value}: a list, one a vertex, is for consensus; {self.name} takes one number.")
        return value


def train_every(value, powers, n):
    """Return the list of n training periods: as given, or from the powers where 0 (the strongest trains every step)."""
    if value == 0:
        powers = config.per_vertex("hetero.powers", list(powers) or 1.0, n)
        if min(powers) <= 0:
            raise UserError(f"hetero.powers = {powers}: every power must be above 0.")
        return [max(1, round(max(powers) / power)) for power in powers]
    periods = config.per_vertex("algorithm.train_every", value, n)
    if min(periods) < 1:
        raise UserError(f"algorithm.train_every = {value}: entries of a list must be at least 1; 0 alone means: from hetero.powers.")
    return periods
