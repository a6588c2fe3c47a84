"""Divide CIFAR-10, binary version, into HDF5 shards."""

import cifar
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
    **cifar.FACTS,
)


@click.command()
@common.arguments
@common.reports_errors
def main(raw, plan):
    """Divide CIFAR-10 into HDF5 shards at OUT.

    RAW is the archive cifar-10-binary.tar.gz, the folder cifar-10-batches-bin (data_batch_1.bin to
    data_batch_5.bin and test_batch.bin), or a folder that holds one of them. Columns: label, batch.
    """
    contents, sources = cifar.raw_files(raw, "cifar-10-batches-bin", "cifar-10-batches-py", [*TRAIN, TEST])
    common.prepare(plan, sources, FACTS, lambda: read(contents))


def read(contents):
    """Return the Found of the files' contents, path -> bytes."""
    lengths = {path: len(content) for path, content in contents.items() if path.name in TRAIN}
    for path, length in lengths.items():
        if length != max(lengths.values()):
            raise UserError(
                f"{path} has {length} bytes, another training batch {max(lengths.values())}: "
                f"it is truncated; download it again."
            )
    pieces = {path.name: cifar.records(path, content, 1, FACTS.classes, RECORDS) for path, content in contents.items()}
    label, pixels = (cifar.joined(arrays) for arrays in zip(*(pieces[name] for name in TRAIN)))
    test_label, test_pixels = pieces[TEST]
    train = common.samples(pixels, label[:, 0])
    batch = np.repeat(np.arange(1, len(TRAIN) + 1), len(label) // len(TRAIN))
    return common.Found(train, common.samples(test_pixels, test_label[:, 0]), FACTS, {"batch": batch})


if __name__ == "__main__":
    main()
