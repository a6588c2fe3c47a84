"""What MNIST and Fashion-MNIST share: images and labels in idx files."""

import struct

import common
import numpy as np

from mpiconsensus.errors import UserError

SPLITS = ("train", "t10k")
NAMES = [f"{split}-{kind}-ubyte.gz" for split in SPLITS for kind in ("images-idx3", "labels-idx1")]


def prepare(raw, plan, folder, facts):
    """Divide the four files of `folder` into shards."""
    contents, sources = common.raw_files(raw, folder, NAMES)
    common.prepare(plan, sources, facts, lambda: read(contents, facts))


def read(contents, facts):
    """Return the Found of the files' contents, path -> bytes."""
    arrays = {path: idx(path, content if path.suffix != ".gz" else common.unzip(path, content)) for path, content in contents.items()}
    found = {}
    for split in SPLITS:
        (images, x), (labels, y) = ((path, array) for path, array in arrays.items() if path.name.startswith(split))
        if x.ndim != 3 or x.shape[1:] != facts.shape[1:]:
            raise UserError(f"{images} holds an array {x.shape}, expected images of 28 x 28; download it again.")
        if y.shape != x.shape[:1]:
            raise UserError(
                f"{labels} holds labels {y.shape}, {images.name} holds {len(x)} images; download both again."
            )
        if y.max() >= facts.classes:
            raise UserError(
                f"{labels} holds label {y.max()}, labels are 0 to {facts.classes - 1}: "
                f"it is altered; download it again."
            )
        found[split] = common.samples(x[:, None], y)
    return common.Found(found["train"], found["t10k"], facts)


def idx(path, content):
    """Return the uint8 array of an idx file's content; raise UserError where header and length do not agree.

    The header: two zero bytes, type (8: uint8), number of axes, then the length of each axis, big-endian.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise UserError(f"{path} is not an idx file of bytes (it starts with {content[:4].hex()}); download it again.")
    axes, start = content[3], 4 + 4 * content[3]
    shape = struct.unpack_from(f">{axes}I", content, 4) if len(content) >= start else ()
    if axes == 0 or 0 in shape or len(content) - start != np.prod(shape, dtype=np.float64):
        raise UserError(
            f"{path} holds {len(content)} bytes, its header promises an array {shape}: "
            f"it is truncated or altered; download it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
