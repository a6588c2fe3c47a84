"""HDF5 files on a disk that may refuse: rows written to fixed places around HDF5, and a file that HDF5 writes through us."""

import io
import os
import re
from contextlib import contextmanager

import h5py
import numpy as np

from mpiconsensus.description import label


def told(error, otherwise="HDF5 refuses it"):
    """Return the system's words for an OSError in one line; h5py's run over several, with the number inside."""
    number = re.search(r"errno = (\d+)", str(error))
    number = int(number[1]) if number else error.errno
    return os.strerror(number) if number else otherwise


def sync(fd):
    """Have the disk keep what was written."""
    getattr(os, "fdatasync", os.fsync)(fd)


def write(fd, block, offset):
    """Write an array to a place of the file, whatever number of calls that takes."""
    view = memoryview(block).cast("B") if block.size else b""
    while len(view):
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def copy(source, start, target, offset, size, piece=1 << 20):
    """Copy bytes of one file to a place of another."""
    for at in range(0, size, piece):
        write(target, np.frombuffer(os.pread(source, min(piece, size - at), start + at), "u1"), offset + at)


def reserve(file, name, shape, dtype, unit, meaning):
    """Create a contiguous dataset whose place in the file is fixed at once and left sparse; return the place."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = file.create_dataset(name, shape, dtype, dcpl=layout)
    label(dataset, unit, meaning)
    return dataset.id.get_offset()


@contextmanager
def created(path, **options):
    """Yield a new HDF5 file at `path`, which is whole when the block is left; raise OSError where the disk refuses it.

    options: as of h5py.File. HDF5 is not told of a refusal: it cannot give up a file that it cannot write, and says so at length.
    """
    with _Sink(path) as sink:
        try:
            with h5py.File(sink, "w", **options) as file:
                yield file
        finally:
            if sink.refused:
                raise sink.refused from None


class _Sink(io.RawIOBase):
    """The file object behind HDF5. refused: the first OSError of a write; what is written from then on is lost."""

    def __init__(self, path):
        super().__init__()
        self.refused, self.at, self.end = None, 0, 0
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)

    def seek(self, offset, whence=os.SEEK_SET):
        self.at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.end}[whence]
        return self.at

    def write(self, data):
        self._try(write, self.fd, np.frombuffer(data, "u1"), self.at)
        self.at += len(data)
        self.end = max(self.end, self.at)
        return len(data)

    def readinto(self, buffer):
        found = os.pread(self.fd, len(buffer), self.at)
        buffer[:] = found + bytes(len(buffer) - len(found))
        self.at += len(buffer)
        return len(buffer)

    def truncate(self, size=None):
        self.end = self.at if size is None else size
        self._try(os.ftruncate, self.fd, self.end)
        return self.end

    def close(self):
        if not self.closed:
            os.close(self.fd)
        super().close()

    def readable(self):
        return True

    writable = seekable = readable

    def _try(self, function, *words):
        try:
            if not self.refused:
                function(*words)
        except OSError as error:
            self.refused = error
