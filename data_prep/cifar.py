"""What CIFAR-10 and CIFAR-100 share: where their files are, and how records become samples."""

from pathlib import Path

import common
import numpy as np

from mpiconsensus.errors import UserError

# As keywords of Facts.
FACTS = {
    "shape": (3, 32, 32),
    "scale": 1 / 255,
    "augment": "crop-flip",
    "licence": "none stated by the publisher; research use, cite the report",
    "citation": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009",
    "published_mean": (0.485, 0.456, 0.406),
    "published_std": (0.229, 0.224, 0.225),
}
PIXELS = 3072


def raw_files(raw, folder, pickled, names, optional=()):
    """Return what common.raw_files does of the binary version's files; raise UserError for the Python version, folder `pickled`.

    That one is pickled, and unpickling a file runs what its author put there.
    """
    raw = Path(raw)
    number = folder.split("-")[1]
    binary, python = (f"cifar-{number}-{kind}.tar.gz" for kind in ("binary", "python"))
    there = any(path.exists() for path in (raw / folder / names[0], raw / names[0], raw / binary))
    if raw.name in (pickled, python) or (not there and ((raw / pickled).exists() or (raw / python).exists())):
        raise UserError(
            f"{raw} is the Python version, which is pickled: reading it could run code of whoever made it. "
            f"Download {binary}, the same samples as plain bytes, from the same page."
        )
    return common.raw_files(raw, folder, names, binary, optional)


def records(path, content, label_bytes, classes, published):
    """Return (labels, pixels) of a file of records: uint8 (N, label_bytes) and uint8 (N, 3, 32, 32), views.

    A record is `label_bytes` labels, of which the last is the class, and 3072 pixels. Raise UserError for a file
    that is not whole records with classes below `classes`; say so where there are not `published` of them.
    """
    size = label_bytes + PIXELS
    if len(content) % size:
        raise UserError(
            f"{path} has {len(content)} bytes, not a multiple of the {size} of a record: "
            f"it is truncated or altered; download it again."
        )
    table = np.frombuffer(content, np.uint8).reshape(-1, size)
    label = table[:, label_bytes - 1]
    if label.max() >= classes:
        row = int(np.argmax(label >= classes))
        raise UserError(
            f"{path}: record {row} has label {label[row]}, labels are 0 to {classes - 1}: "
            f"it is altered; download it again."
        )
    if len(table) != published:
        common.say(f"note: {path} holds {len(table)} records, the published file {published}.")
    return table[:, :label_bytes], table[:, label_bytes:].reshape(-1, 3, 32, 32)


def joined(arrays):
    """Return arrays (N, ...) of one shape and type one under the other; a view where memory has them so, else a copy."""
    first, at = arrays[0], arrays[0].__array_interface__["data"][0]
    for array in arrays:
        if array.__array_interface__["data"][0] != at or array.strides != first.strides:
            return np.concatenate(arrays)
        at += len(array) * array.strides[0]
    # All lie in the memory that the first one keeps alive.
    return np.lib.stride_tricks.as_strided(first, (sum(map(len, arrays)), *first.shape[1:]), first.strides, writeable=False)
