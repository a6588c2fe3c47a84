"""Divide CIFAR-10, binary version, into HDF5 shards."""

from pathlib import Path

import click
import common
import numpy as np

from mpiconsensus.data.manifest import Facts
from mpiconsensus.errors import UserError

TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]
TEST = "test_batch.bin"
RECORDS = 10000
FACTS = Facts(
    dataset="cifar10",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    prepared_by="data_prep/cifar10.py",
    **common.CIFAR,
)


@click.command()
@click.argument("raw", type=click.Path(path_type=Path))
@common.arguments
@common.reports_errors
def main(raw, out, shards, seed, powers):
    """Divide CIFAR-10 into HDF5 shards at OUT.

    RAW is the folder cifar-10-batches-bin (the binary version: data_batch_1.bin to data_batch_5.bin and
    test_batch.bin), or the folder that holds it.
    """
    folder = common.folder_of_raw(raw, "cifar-10-batches-bin")
    contents = {folder / name: common.read_raw(folder / name) for name in [*TRAIN, TEST]}
    common.prepare(out, contents, FACTS, read, shards, seed, powers)


def read(contents, facts):
    """Return (train, test, facts) of the files' contents, path -> bytes."""
    lengths = {path: len(content) for path, content in contents.items() if path.name in TRAIN}
    for path, length in lengths.items():
        if length != max(lengths.values()):
            raise UserError(
                f"{path} has {length} bytes, another training batch {max(lengths.values())}: "
                f"it is truncated; download it again."
            )
    pieces = {path.name: common.records(path, content, 1, facts.classes, RECORDS) for path, content in contents.items()}
    label, pixels = (np.concatenate(arrays) for arrays in zip(*(pieces[name] for name in TRAIN)))
    test_label, test_pixels = pieces[TEST]
    return common.samples(pixels, label), common.samples(test_pixels, test_label), facts


if __name__ == "__main__":
    main()
