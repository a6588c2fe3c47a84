"""Batches of a shard that is larger than its memory, read block by block.

A block is a run of samples that lie one behind the other in the file. Every pass puts the blocks in a random order and
cuts it into windows of several blocks; the samples of a window are shuffled together. One window is in use while the next
is read into other memory. Nothing depends on when a read ends: the order of samples is a function of (seed, vertex, pass)
and of the layout, which comes from the shard's size, the bound, the batch size and the fraction held out.

A sample goes into the place that the shuffled order gives it while it is still in the cache, so that a batch is a run of the window,
not copied.

Array legend: N samples of the shard, b samples of a block, B batch, g number of a window, counted over all passes.
"""

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.randomness import generator

BLOCK = 4 << 20  # bytes of a block, at most: a stripe or more of a parallel file system
BLOCKS = 8  # of a window, at least
# What a sample of a window takes beside its bytes: label, id, its place in the order and the drawing of that.
BESIDE = 32


class Layout(NamedTuple):
    """rows: samples of a block; blocks of the shard; windows of a pass; resident: bytes that are held, at most."""

    rows: int
    blocks: int
    windows: int
    resident: int

    @property
    def most(self):
        """Samples of a window, at most."""
        return -(-self.blocks // self.windows) * self.rows


def shard_bytes(count, sample):
    """Return the bytes of `count` samples of `sample` bytes, with label and id."""
    return count * (sample + 16)


def plan(count, sample, bound, batch_size, held, what):
    """Return the Layout of a shard of `count` samples of `sample` bytes, `held` of them held out, in `bound` bytes.

    Raise UserError, which names the vertex by `what`, where the bound has no room.
    """
    batch_size = min(batch_size, count - held)
    fixed = shard_bytes(batch_size, sample) + shard_bytes(held, sample)
    least = fixed + 2 * max(batch_size, BLOCKS) * (sample + BESIDE)
    if least > bound:
        cause = "evaluation.validation_fraction" if shard_bytes(held, sample) > bound / 2 else "training.batch_size"
        raise UserError(
            f"data.memory = {bound / 2**20:.3g} MiB is too little for {what}: batches of {batch_size} and {held} samples held out, "
            f"{sample} bytes each, need {least / 2**20:.3g} MiB; raise data.memory, or lower {cause}."
        )
    most = (bound - fixed) // 2 // (sample + BESIDE)
    rows = max(1, min(BLOCK // sample, most // BLOCKS))
    blocks = -(-count // rows)
    found = Layout(rows, blocks, -(-blocks // (most // rows)), 0)
    return found._replace(resident=fixed + 2 * found.most * (sample + BESIDE))


class StreamLoader:
    """Batches of B = min(batch_size, samples that stay), as a pure function of (seed, vertex, count), like data.loader.Loader.

    file: a BlockFile; layout: of `plan`; held: rows that are held out, ascending; reader: a prefetch.Reader;
    empty(shape, dtype) makes the memory of a batch. What is left over of a pass sits out, as with Loader.
    """

    def __init__(self, file, layout, batch_size, seed, vertex, held, reader, empty=np.empty):
        self.file, self.layout, self.seed, self.vertex, self.held = file, layout, seed, vertex, held
        stay = file.count - len(held)
        self.batch_size = min(batch_size, stay)
        self.batches_per_pass = stay // self.batch_size
        starts = np.arange(layout.blocks + 1) * layout.rows
        starts[-1] = file.count
        self._starts, self._lengths = starts, np.diff(starts)
        self._kept = self._lengths - np.diff(np.searchsorted(held, starts))
        self._divided = (None, None)  # the last pass that was asked for, and its windows
        # Window g lies in slot g % 2, so that the next one never comes into the memory of the one in use.
        self._slots = [file.empty(layout.most, empty), file.empty(layout.most, empty)]
        self._across = file.empty(self.batch_size, empty)  # a batch of two windows
        self._reader, self._readings = reader, {}
        self._pass, self._bounds = None, None  # the pass in use, and where its windows begin and end
        self._count, self._shown = 0, self._across

    def batch(self, count):
        """Return (x, y) of the count-th batch that this vertex ever draws, from 0; x (B, ...), y (B,) int64.

        Both are memory of this loader, which the next call may overwrite: do not write to them. Wait for the reader where it is behind; raise
        TrainingError where the file cannot be read.
        """
        number, position = divmod(count, self.batches_per_pass)
        if number != self._pass:
            self._pass, ends = number, np.cumsum([self._kept[part].sum() for part in self._blocks(number)]).tolist()
            self._bounds = [0, *ends]
        self._count, at, filled = count, position * self.batch_size, 0
        while filled < self.batch_size:
            window = bisect_right(self._bounds, at) - 1
            g, start = number * self.layout.windows + window, self._bounds[window]
            first, end = at - start, min(at + self.batch_size - filled, self._bounds[window + 1]) - start
            self._wait(g)
            found = [values[first:end] for values in self._slots[g % 2]]
            if end - first == self.batch_size:
                self._shown = found
            else:
                self._shown = self._across
                for values, out in zip(found, self._across):
                    out[filled : filled + end - first] = values
            at, filled = at + end - first, filled + end - first
        return self._shown[0], self._shown[1]

    def shown(self):
        """Return (ids of the samples of the last batch, (B,), number of its pass)."""
        return self._shown[2], self._count // self.batches_per_pass

    def _blocks(self, number):
        """Return the blocks of each window of a pass."""
        found, windows = self._divided
        if found != number:
            order = generator(self.seed, "blocks", self.vertex, number).permutation(self.layout.blocks)
            windows = np.array_split(order, self.layout.windows)
            self._divided = number, windows
        return windows

    def _wait(self, g):
        """Return when window g is in its slot; the window behind it is under way from then on."""
        if g not in self._readings:
            self._start(g)
        self._readings[g].wait()
        if g + 1 not in self._readings:
            self._start(g + 1)

    def _start(self, g):
        # The thread works in order: what else was to come into this slot has come before, and is overwritten.
        self._readings = {other: reading for other, reading in self._readings.items() if other % 2 != g % 2}
        self._readings[g] = self._reader.start(lambda: self._read(g), self.file.path)

    def _read(self, g):
        """Read window g into its slot, in its shuffled order; rows that are held out come behind those that stay."""
        number, window = divmod(g, self.layout.windows)
        blocks, lengths = self._blocks(number)[window], self._lengths
        stays = np.ones(lengths[blocks].sum(), bool)
        starts = np.cumsum(lengths[blocks]) - lengths[blocks]
        for block, start in zip(blocks, starts) if len(self.held) else ():
            low, high = np.searchsorted(self.held, self._starts[block : block + 2])
            stays[start + self.held[low:high] - self._starts[block]] = False
        kept = generator(self.seed, "window", self.vertex, g).permutation(np.flatnonzero(stays))
        places = np.empty(len(stays), np.int64)
        places[kept] = np.arange(len(kept))
        places[~stays] = np.arange(len(kept), len(stays))
        self.file.scatter(list(zip(self._starts[blocks].tolist(), lengths[blocks].tolist())), places, self._slots[g % 2])
