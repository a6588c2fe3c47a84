"""The bytes of a shard's file before and behind x, as HDF5 lays them out."""

import math
import threading

import h5py
import numpy as np

from mpiconsensus.data.manifest import FORMAT, VERSION


def split_of(vertex):
    return "test" if vertex < 0 else "train"


def layout(count, facts):
    """Return [(name, shape, dtype)] of the datasets of a file with `count` samples."""
    dtype = "<f4" if len(facts.shape) == 1 else "|u1"
    return [("x", (count, *facts.shape), dtype), ("y", (count,), "<i8"), ("id", (count,), "<i8")]


class Frame:
    """Files of `count` samples of one set and split: `head`, the bytes before x, and `tail` of each, those behind it; `size` of a file.

    In memory and without the samples: HDF5 cannot close a file that a full disk cut short, and samples need not be in memory
    together. To lay out a file takes it milliseconds, to change what differs from one file to the next a tenth of one.
    """

    def __init__(self, count, split, of, facts, recipe):
        self._memory, self._lock = _Extents(), threading.Lock()
        blank = np.zeros(facts.shape[0])
        attributes = {"format": FORMAT, "version": VERSION, "dataset": facts.dataset, "split": split}
        attributes |= {"vertex": -1, "of": of, "partition": recipe["partition"], "seed": recipe["seed"]}
        attributes |= {"class_names": list(facts.class_names), "scale": facts.scale, "mean": blank, "std": blank}
        attributes["sha256"] = "0" * 64
        if facts.published_mean is not None:
            attributes |= {"published_mean": facts.published_mean, "published_std": facts.published_std}
        # v110: attributes may pass 64 KB (the mean of 10,000 features).
        self._file, places = h5py.File(self._memory, "w", libver="v110"), []
        for name, shape, dtype in layout(count, facts):
            places.append(self._file.create_dataset(name, shape, dtype, dcpl=_reserved()).id.get_offset())
        for name, value in attributes.items():
            _attribute(self._file.id, name, value)
        self._file.flush()
        _, shape, dtype = layout(count, facts)[0]
        self.bytes_of_x = math.prod(shape) * np.dtype(dtype).itemsize
        self.size, self._places = self._memory.size, places
        self.head = self._memory.bytes(0, places[0])

    def tail(self, vertex, digest, y, ids, mean, std):
        """Return the bytes behind x in the file of `vertex`; digest: the sha256 of its samples."""
        start = self._places[0] + self.bytes_of_x
        with self._lock:
            for name, value in (("vertex", vertex), ("mean", mean), ("std", std), ("sha256", digest)):
                h5py.h5a.open(self._file.id, name.encode()).write(_encoded(value))
            self._file.flush()
            content = bytearray(self._memory.bytes(start, self.size))
            if self._memory.size != self.size or self._memory.bytes(0, self._places[0]) != self.head:
                raise RuntimeError(f"HDF5 {h5py.version.hdf5_version} lays out file {vertex} otherwise than the one before it")
        for place, values in zip(self._places[1:], (y, ids), strict=True):
            content[place - start : place - start + values.nbytes] = np.ascontiguousarray(values).tobytes()
        return bytes(content)

    def close(self):
        self._file.close()


def _attribute(file, name, value):
    """Write an attribute that is not there yet; h5py's `attrs` takes five times as long, a good part of making a small shard."""
    values = _encoded(value)
    space = h5py.h5s.create_simple(values.shape) if values.ndim else h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5a.create(file, name.encode(), h5py.h5t.py_create(values.dtype, logical=True), space).write(values)


def _encoded(value):
    """Return an attribute's value as an array; text of fixed length, in UTF-8.

    Text of any length lies in a heap that moves when it is changed, and that alone of HDF5's own data has no checksum: one wrong
    bit in it can keep HDF5 2.0 reading for ever.
    """
    if not (isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str))):
        return np.asarray(value)
    values = np.char.encode(value, "utf-8")
    return np.asarray(values, h5py.string_dtype("utf-8", max(1, values.dtype.itemsize)))


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
        self.parts.pop(self._at, None)  # what is written last lies above
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
