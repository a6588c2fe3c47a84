"""Divide Fashion-MNIST into HDF5 shards."""

import struct
from pathlib import Path

import click
import common
import numpy as np

from mpiconsensus.data.manifest import Facts
from mpiconsensus.errors import UserError

SPLITS = ("train", "t10k")
FACTS = Facts(
    dataset="fashion-mnist",
    shape=(1, 28, 28),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    scale=1 / 255,
    augment="none",
    licence="MIT, Zalando SE",
    citation="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking "
    "Machine Learning Algorithms, arXiv:1708.07747, 2017",
    prepared_by="data_prep/fashion_mnist.py",
    published_mean=(0.28604,),
    published_std=(0.35302,),
)


@click.command()
@click.argument("raw", type=click.Path(path_type=Path))
@common.arguments
@common.reports_errors
def main(raw, out, shards, seed, powers):
    """Divide Fashion-MNIST into HDF5 shards at OUT.

    RAW is the folder fashion-mnist (train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two of
    t10k), or the folder that holds it.
    """
    folder = common.folder_of_raw(raw, "fashion-mnist")
    names = [f"{split}-{kind}-ubyte.gz" for split in SPLITS for kind in ("images-idx3", "labels-idx1")]
    contents = {folder / name: common.read_raw(folder / name) for name in names}
    common.prepare(out, contents, FACTS, read, shards, seed, powers)


def read(contents, facts):
    """Return (train, test, facts) of the files' contents, path -> bytes."""
    arrays = {path: idx(path, common.unzip(path, content)) for path, content in contents.items()}
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
    return found["train"], found["t10k"], facts


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


if __name__ == "__main__":
    main()
