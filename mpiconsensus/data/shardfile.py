"""One shard's file: the layout of its datasets, what its samples must be, and its bytes written in one pass."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from mpiconsensus.data.manifest import FORMAT, VERSION
from mpiconsensus.errors import UserError


class Shard(NamedTuple):
    """Samples in memory: x uint8 (N, C, H, W) or float32 (N, p), y int64 (N,), id int64 (N,)."""

    x: np.ndarray
    y: np.ndarray
    id: np.ndarray

    def take(self, rows):
        """Return a copy of the samples at `rows`."""
        return Shard(self.x[rows], self.y[rows], self.id[rows])


def split_of(vertex):
    return "test" if vertex < 0 else "train"


def layout(count, facts):
    """Return [(name, shape, dtype)] of the datasets of a file with `count` samples."""
    dtype = "<f4" if len(facts.shape) == 1 else "|u1"
    return [("x", (count, *facts.shape), dtype), ("y", (count,), "<i8"), ("id", (count,), "<i8")]


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
    digest = hashlib.sha256()
    for array in shard:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def refuse(path, fact):
    raise UserError(f"{path}: {fact}; copy the file again, or make the shards again with data_prep/.")


class ShardFile:
    """A shard's file under way: `append` blocks of x, then `finish`. Plain writes, and every byte of x is hashed once.

    HDF5 lays the file out in memory, without the samples: it cannot close a file that a full disk cut short, and
    samples need not be in memory together. `facts` are final but for mean and std. `heads` is a dict that the files of a set share:
    those of one length begin alike, and HDF5 takes milliseconds to lay out one.
    """

    def __init__(self, path, vertex, of, count, facts, recipe, heads):
        self.path, self._facts = Path(path), facts
        self._attributes = {"format": FORMAT, "version": VERSION, "dataset": facts.dataset, "split": split_of(vertex)}
        self._attributes |= {"vertex": vertex, "of": of, "partition": recipe["partition"], "seed": recipe["seed"]}
        self._layout = layout(count, facts)
        self._left = self.bytes_of_x
        key = count, split_of(vertex)
        if key not in heads:
            heads[key] = self._laid_out("0" * 64)[:2]
        self.size, self._head = heads[key]
        self._samples = hashlib.sha256()
        self.path.write_bytes(self._head)

    def append(self, x):
        """Write a block of x (b, ...), the samples that follow those already there."""
        x = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        self._left -= len(x)
        self._samples.update(x)
        self._write(x)

    def finish(self, y, ids, mean, std):
        """Write what comes behind x and return the file's digests, as a manifest has them."""
        self._facts = self._facts._replace(mean=mean, std=std)
        for values in (y, ids):
            self._samples.update(np.ascontiguousarray(values))
        digest = self._samples.hexdigest()
        _, head, tail = self._laid_out(digest, y, ids)
        if head != self._head or self._left:
            raise RuntimeError(f"{self.path}: {self._left} bytes of x are missing, or HDF5 {h5py.version.hdf5_version} lays the file out otherwise")
        self._write(tail)
        return {"frame_sha256": hashlib.sha256(head + tail).hexdigest(), "samples_sha256": digest}

    @property
    def bytes_of_x(self):
        _, shape, dtype = self._layout[0]
        return math.prod(shape) * np.dtype(dtype).itemsize

    def _write(self, content):
        with open(self.path, "ab", buffering=0) as file:
            view = memoryview(content)
            while len(view):
                view = view[file.write(view) :]

    def _laid_out(self, digest, *arrays):
        """Return (bytes of the file, those before x, those behind it); y and id are left out where not given."""
        memory, places = _Extents(), []
        facts = self._facts
        blank = np.zeros(facts.shape[0])
        attributes = self._attributes | {"class_names": list(facts.class_names), "scale": facts.scale}
        attributes |= {"mean": facts.mean if len(facts.mean) else blank, "std": facts.std if len(facts.std) else blank, "sha256": digest}
        if facts.published_mean is not None:
            attributes |= {"published_mean": facts.published_mean, "published_std": facts.published_std}
        # v110: attributes may pass 64 KB (the mean of 10,000 features).
        with h5py.File(memory, "w", libver="v110") as file:
            for name, shape, dtype in self._layout:
                places.append(file.create_dataset(name, shape, dtype, dcpl=_reserved()).id.get_offset())
            for name, value in attributes.items():
                _attribute(file.id, name, value)
        start, end = places[0], places[0] + self.bytes_of_x
        for place, values in zip(places[1:], arrays):
            memory.parts[place] = np.ascontiguousarray(values).tobytes()
        return memory.size, memory.bytes(0, start), memory.bytes(end, memory.size) if arrays else b""


def _attribute(file, name, value):
    """Write an attribute that is not there yet; h5py's `attrs` takes five times as long, a good part of making a small shard."""
    text = isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str))
    values = np.asarray(value, h5py.string_dtype() if text else None)
    space = h5py.h5s.create_simple(values.shape) if values.ndim else h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5a.create(file, name.encode(), h5py.h5t.py_create(values.dtype, logical=True), space).write(values)


def _reserved():
    """Return creation properties of a contiguous dataset that has its place at once and is not written."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return properties


class _Extents:
    """A file for HDF5 that keeps what is written, place -> bytes, and has holes where nothing is."""

    def __init__(self):
        self.parts, self.size, self._at = {}, 0, 0

    def seek(self, offset, whence=0):
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self):
        return self._at

    def truncate(self, size):
        self.size = size

    def flush(self):
        pass

    def write(self, content):
        self.parts[self._at] = bytes(content)
        self._at += len(content)
        self.size = max(self.size, self._at)
        return len(content)

    def read(self, count):
        content = self.bytes(self._at, self._at + count)
        self._at += count
        return content

    def readinto(self, buffer):
        buffer[:] = self.read(len(buffer))
        return len(buffer)

    def bytes(self, start, end):
        """Return the bytes from `start` to `end`, zero in the holes."""
        content = bytearray(end - start)
        # In the order of writing: later parts lie over earlier ones.
        for place, part in self.parts.items():
            low, high = max(place, start), min(place + len(part), end)
            if low < high:
                content[low - start : high - start] = part[low - place : high - place]
        return bytes(content)
