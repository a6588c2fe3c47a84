"""Rows at fixed places of an HDF5 file, written around HDF5: its own structures stay as they were laid out."""

import os
import re

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
