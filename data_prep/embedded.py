"""Make the embedded data sets of the package again, digits.h5 and mushrooms.h5, from their raw files."""

from pathlib import Path

import click
import common
import h5py
import libsvm
import numpy as np

from mpiconsensus.data.manifest import Facts
from mpiconsensus.data.partition import hold_out
from mpiconsensus.data.shards import Shard, moments
from mpiconsensus.errors import UserError

SEED = 1  # of the division into training and test samples
TEST = {"digits": 360, "mushrooms": 1625}  # a fifth
DIGITS = Facts(
    dataset="digits",
    shape=(1, 8, 8),
    class_names=tuple("0123456789"),
    scale=1 / 16,
    augment="none",
    licence="CC BY 4.0",
    citation="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, "
    "UCI Machine Learning Repository, 1998, doi:10.24432/C50P49",
    prepared_by="",
)
MUSHROOMS = Facts(
    dataset="mushrooms",
    shape=(112,),
    class_names=("poisonous", "edible"),
    scale=1.0,
    augment="none",
    licence="CC BY 4.0",
    citation="J. Schlimmer, Mushroom, UCI Machine Learning Repository, 1987, doi:10.24432/C5959T; "
    "binary features: C.-C. Chang, C.-J. Lin, "
    "LIBSVM: a library for support vector machines, ACM TIST 2:27, 2011",
    prepared_by="",
)
SOURCES = {
    "digits": "the 1,797 images of the test set of the UCI data, 8 x 8, values 0 to 16, "
    "in the order of scikit-learn's digits.csv",
    "mushrooms": "the file `mushrooms` of the LIBSVM data sets; label 1 is poisonous, 2 edible",
}


@click.command()
@click.argument("digits", type=click.Path(path_type=Path))
@click.argument("mushrooms", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False, exists=True))
@common.reports_errors
def main(digits, mushrooms, out):
    """Write digits.h5 and mushrooms.h5 to the folder OUT (mpiconsensus/data/embedded).

    DIGITS is scikit-learn's digits.csv or digits.csv.gz, MUSHROOMS the LIBSVM text file. A fifth of the
    samples, drawn with seed 1, is the test set; `id` is the row in the raw file.
    """
    images, labels = read_digits(digits)
    write(out, DIGITS, images, labels)
    features, labels = read_mushrooms(mushrooms)
    write(out, MUSHROOMS, features, labels)


def read_digits(path):
    """Return images uint8 (1797, 1, 8, 8), values 0 to 16, and labels int64 (1797,)."""
    content = common.read_raw(path)
    if content[:2] == b"\x1f\x8b":
        content = common.unzip(path, content)
    try:
        table = np.array([line.split(b",") for line in content.split()]).astype(np.float64)
    except ValueError as error:
        raise UserError(f"{path} is not a table of numbers ({error}).") from None
    if table.shape != (1797, 65) or table.min() < 0 or table[:, :64].max() > 16 or table[:, 64].max() > 9:
        raise UserError(
            f"{path} holds a table {table.shape}, expected 1797 rows of 64 values from 0 to 16 and a digit."
        )
    return table[:, :64].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64)


def read_mushrooms(path):
    """Return binary features float32 (8124, 112) and classes int64 (8124,)."""
    labels, rows, columns, values = libsvm.parse(path, common.read_raw(path))
    if len(labels) != 8124 or columns.max() != 111 or set(labels) != {1, 2} or set(values) != {1}:
        raise UserError(f"{path} is not the LIBSVM file `mushrooms`: 8124 rows, 112 binary features, labels 1 and 2.")
    features = np.zeros((8124, 112), np.float32)
    features[rows, columns] = 1
    return features, labels.astype(np.int64) - 1


def write(out, facts, x, y):
    """Write out/NAME.h5 with groups train and test, compressed: x in bytes, y, id; `facts` as attributes."""
    everything = Shard(x, y, np.arange(len(y)))
    kept, held = hold_out(len(y), TEST[facts.dataset], SEED)
    mean, std = moments(x[kept], facts.scale)
    path = Path(out) / f"{facts.dataset}.h5"
    with h5py.File(path, "w") as file:
        for name, value in facts._replace(mean=mean, std=std)._asdict().items():
            if value is not None:
                file.attrs[name] = list(value) if isinstance(value, tuple) else value
        file.attrs["source"] = SOURCES[facts.dataset]
        for split, rows in (("train", kept), ("test", held)):
            shard = everything.take(rows)
            smallest = {"x": np.uint8, "y": np.uint8, "id": np.uint16}
            for name, values in shard._asdict().items():
                file.create_dataset(
                    f"{split}/{name}",
                    data=values.astype(smallest[name]),
                    chunks=values.shape,
                    compression="gzip",
                    compression_opts=9,
                    shuffle=True,
                )
    click.echo(f"{path}: {len(kept)} training and {len(held)} test samples, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
