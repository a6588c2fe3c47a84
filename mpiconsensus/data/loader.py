"""Batches of one vertex's shard, drawn without replacement; and the part of a shard held out for choosing.

Array legend: N samples of the shard, B batch.
"""

import numpy as np

from mpiconsensus.data.partition import hold_out
from mpiconsensus.randomness import generator


class Loader:
    """Batches of B = min(batch_size, N) samples of a shard, as a pure function of (seed, vertex, count).

    A pass over the shard is a random permutation cut into N // B batches. The N % B samples that are left
    over sit out this pass; every pass has a permutation of its own, so that others do in the next. A batch that is the whole
    shard is in the shard's order.
    empty(shape, dtype) makes the memory of a batch.
    """

    def __init__(self, shard, batch_size, seed, vertex, empty=np.empty):
        self.shard, self.seed, self.vertex = shard, seed, vertex
        self.batch_size = min(batch_size, len(shard.y))
        self.batches_per_pass = len(shard.y) // self.batch_size
        self._x = empty((self.batch_size, *shard.x.shape[1:]), shard.x.dtype)
        self._y = empty((self.batch_size,), shard.y.dtype)
        self._pass, self._order = None, None

    def batch(self, count):
        """Return (x, y) of the count-th batch that this vertex ever draws, from 0; x (B, ...), y (B,) int64.

        Both are buffers of this loader, which the next call overwrites, or the shard's own memory: do not write to them.
        """
        if self.batch_size == len(self.shard.y):
            self._rows, self._pass = slice(None), count
            return self.shard.x, self.shard.y
        number, position = divmod(count, self.batches_per_pass)
        if number != self._pass:
            self._order = generator(self.seed, "shuffle", self.vertex, number).permutation(len(self.shard.y))
            self._pass = number
        rows = self._order[position * self.batch_size : (position + 1) * self.batch_size]
        # mode="clip": with the default, "raise", numpy fills a copy of the buffer first.
        np.take(self.shard.x, rows, axis=0, out=self._x, mode="clip")
        np.take(self.shard.y, rows, out=self._y, mode="clip")
        self._rows = rows
        return self._x, self._y

    def shown(self):
        """Return (ids of the samples of the last batch, (B,), number of its pass)."""
        return self.shard.id[self._rows], self._pass

    def replace(self, rows, samples):
        """Put other samples in the place of those at `rows` of the shard; `samples` has x, y and id, a record a row."""
        for name in self.shard._fields:
            getattr(self.shard, name)[rows] = samples[name]


def held_count(count, fraction):
    """Return how many of `count` samples are held out; see split."""
    return min(max(1, round(fraction * count)), count - 1) if fraction > 0 else 0


def split(shard, fraction, seed, vertex):
    """Return (train, held_out): round(fraction * N) random samples of the shard held out, in ascending id.

    With a fraction above 0 at least one sample is held out and at least one stays; a shard of one sample
    stays whole. With fraction 0 `train` is the shard itself, not a copy.
    """
    count = len(shard.y)
    held = held_count(count, fraction)
    if held == 0:
        return shard, shard.take(slice(0, 0))
    kept, held_rows = hold_out(count, held, seed, vertex)
    return shard.take(kept), shard.take(held_rows)
