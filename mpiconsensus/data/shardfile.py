"""One shard's file: what its samples must be, and its bytes written in one pass."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpiconsensus.data.frame import layout
from mpiconsensus.data.manifest import VERSION, recorded
from mpiconsensus.errors import UserError


class Shard(NamedTuple):
    """Samples in memory: x uint8 (N, C, H, W) or float32 (N, p), y int64 (N,), id int64 (N,)."""

    x: np.ndarray
    y: np.ndarray
    id: np.ndarray

    def take(self, rows):
        """Return a copy of the samples at `rows`."""
        return Shard(self.x[rows], self.y[rows], self.id[rows])


def check_samples(path, shard, facts):
    """Raise UserError unless shapes, dtypes, labels and features are what `facts` say."""
    for (name, shape, dtype), values in zip(layout(len(shard.y), facts), shard):
        if values.shape != shape or values.dtype != np.dtype(dtype):
            refuse(path, f"{name} is {values.dtype} {values.shape}, expected {np.dtype(dtype)} {shape}")
    check_labels(path, shard.y, shard.id, facts)
    check_finite(path, shard.x)


def check_labels(path, y, ids, facts):
    """Raise UserError unless there are labels, all below the number of classes, and ids that ascend."""
    if len(y) == 0:
        refuse(path, "it holds no sample")
    low, high = y.min(), y.max()
    if low < 0 or high >= facts.classes:
        refuse(path, f"labels go from {low} to {high}, allowed are 0 to {facts.classes - 1}")
    if np.any(np.diff(ids) <= 0):
        refuse(path, "id does not ascend")


def check_finite(path, x):
    """Raise UserError where features are not finite."""
    if x.dtype != np.uint8 and not np.isfinite(x).all():
        refuse(path, "x holds features that are not finite")


def sha256(shard):
    """Return the sha256 of the bytes of x, y and id, one after another."""
    found = hashlib.sha256()
    for array in shard:
        found.update(array if array.flags.c_contiguous else array.copy())
    return found.hexdigest()


def refuse(path, fact):
    raise UserError(f"{path}: {fact}; copy the file again, or make the shards again with data_prep/.")


class ShardFile:
    """A shard's file under way: `append` blocks of x, then `finish`. Plain writes, and every byte is hashed once."""

    def __init__(self, path, vertex, frame):
        self.path, self._vertex, self._frame = Path(path), vertex, frame
        self.size, self.bytes_of_x = frame.size, frame.bytes_of_x
        self._left = self.bytes_of_x
        self._samples = hashlib.sha256()
        self.path.write_bytes(frame.head)

    def append(self, x):
        """Write a block of x (b, ...), the samples that follow those already there."""
        x = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        self._left -= len(x)
        self._samples.update(x)
        self._write(x)

    def finish(self, y, ids, mean, std):
        """Write what comes behind x and return the file's checksums, as a manifest has them."""
        if self._left:
            raise RuntimeError(f"{self.path}: {self._left} bytes of x are missing")
        for values in (y, ids):
            self._samples.update(np.ascontiguousarray(values))
        digest = self._samples.hexdigest()
        tail = self._frame.tail(self._vertex, digest, y, ids, mean, std)
        self._write(tail)
        frame = hashlib.sha256()
        frame.update(self._frame.head)
        frame.update(tail)
        return dict(zip(recorded(VERSION), (digest, frame.hexdigest()), strict=True))

    def _write(self, content):
        with open(self.path, "ab", buffering=0) as file:
            view = memoryview(content)
            while len(view):
                view = view[file.write(view) :]
