"""Divide a LIBSVM text file into HDF5 shards of dense float32 features."""

import codecs
from pathlib import Path

import click
import common
import numpy as np

from mpiconsensus.data.manifest import Facts
from mpiconsensus.errors import UserError
from mpiconsensus.limits import memory

LARGEST = float(np.finfo(np.float32).max)


@click.command()
@common.arguments
@click.option("--test", type=click.Path(path_type=Path), help="LIBSVM file of the test samples; else they are drawn.")
@click.option(
    "--test-fraction",
    type=common.Share(),
    help="Share of RAW drawn as test samples; 0.2 where --test is not given either.",
)
@common.reports_errors
def main(raw, plan, test, test_fraction):
    """Divide the LIBSVM text file RAW into HDF5 shards at OUT.

    A line is `label index:value index:value ...`, indices ascend from 1, absent values are 0; or, in all lines,
    `label value value ...`. What is behind a # is a comment. Any two or more labels become classes 0, 1, ... in ascending order. The name of the data
    set is the file's. Columns: label, and the features from 1.
    """
    if test is not None and test_fraction is not None:
        raise UserError("--test and --test-fraction exclude one another; give one of them.")
    if test_fraction is None:
        test_fraction = 0.2
    paths = [raw] if test is None else [raw, test]
    contents = {path: common.read_raw(path, "RAW is a file of LIBSVM text, and so is --test") for path in paths}
    if len({path.name for path in paths}) != len(paths):
        raise UserError(
            f"{raw} and {test} have the same name; training and test samples must be two files, rename one."
        )
    facts = Facts(raw.stem, (), (), 1.0, "none", "that of the source", "that of the source", "data_prep/libsvm.py")
    options = {"test": test.name} if test is not None else {"test_fraction": test_fraction}

    def read():
        tables = [parse(path, content) for path, content in contents.items()]
        return divide_test(tables, paths, facts, test_fraction, plan.seed)

    common.prepare(plan, common.digests(contents), facts, read, **options)


def divide_test(tables, paths, facts, fraction, seed):
    """Return the Found of one parsed file, or of two, of which the second is the test set."""
    values = np.unique(tables[0][0])
    if len(values) < 2:
        raise UserError(f"{paths[0]} holds the one label {values[0]:g}; two or more are needed.")
    features = max(columns.max(initial=0) + 1 for _, _, columns, _ in tables)
    facts = facts._replace(shape=(int(features),), class_names=tuple(repr(float(value)).removesuffix(".0") for value in values))
    shards = []
    needed = 4 * int(features) * sum(len(labels) for labels, _, _, _ in tables)
    if needed > memory() / 2:
        raise UserError(
            f"{paths[0]}: the largest index is {features}; its samples as dense rows take {needed / 1e9:.3g} GB, this machine has "
            f"{memory() / 1e9:.3g} GB. Number the features without gaps, or take fewer samples."
        )
    for (labels, rows, columns, entries), path in zip(tables, paths):
        unknown = np.setdiff1d(labels, values)
        if len(unknown):
            raise UserError(
                f"{path} holds label {unknown[0]:g}, which {paths[0]} does not; "
                f"the labels there are {', '.join(facts.class_names[:10])}."
            )
        x = np.zeros((len(labels), features), np.float32)
        x[rows, columns] = entries
        shards.append(common.samples(x, np.searchsorted(values, labels)))
    if len(shards) == 1:
        kept, held = common.split_off(len(shards[0].y), fraction, seed)
        shards = [shards[0].take(kept), shards[0].take(held)]
    columns = {str(index): values for index, values in enumerate(shards[0].x.T, start=1)}
    return common.Found(*shards, facts, columns)


def parse(path, content):
    """Return (labels (N,), rows, columns, values) of a text: float64, int64, int64, float32; columns from 0.

    Empty lines are skipped. Raise UserError that names the line for anything else.
    """
    if content[:2] == b"\x1f\x8b" or content[:3] == b"BZh" or content[:6] == b"\xfd7zXZ\0":
        raise UserError(f"{path} is compressed; unpack it first (gunzip, bunzip2 or unxz).")
    labels, rows, columns, values = [], [], [], []
    dense, width = None, 0
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        line = line.partition(b"#")[0]
        words = line.split()
        if not words:
            continue
        if dense is None:
            dense = b":" not in line and len(line.replace(b",", b" ").split()) > 1
        try:
            if b"_" in line:
                # Python would read 1_0 as 10.
                raise ValueError("'_' stands in no number")
            if dense:
                words = line.replace(b",", b" ").split()
                if len(words) != (width := width or len(words)):
                    raise ValueError(f"{len(words) - 1} values, {width - 1} in the first line")
                words[1:] = [b"%d:%b" % item for item in enumerate(words[1:], start=1)]
            labels.append(_finite(words[0]))
            before = 0
            for word in words[1:]:
                index, _, value = word.partition(b":")
                index = int(index)
                if index == 0:
                    raise ValueError("index 0: indices begin at 1; of a file that counts from 0, add 1 to all")
                if not before < index < 2**31:
                    raise ValueError(f"index {index} after {before}: indices ascend from 1, and are below 2^31")
                before = index
                rows.append(len(labels) - 1)
                columns.append(index - 1)
                values.append(_finite(value))
        except ValueError as error:
            form = "label value value ..." if dense else "label index:value index:value ..."
            raise UserError(f"{path}, line {number}: {error}; a line is `{form}`.") from None
    if not labels:
        raise UserError(f"{path} holds no line; download it again.")
    return np.array(labels), np.array(rows, np.int64), np.array(columns, np.int64), np.array(values, np.float32)


def _finite(word):
    value = float(word)
    # False for nan, too.
    if not abs(value) <= LARGEST:
        raise ValueError(f"{value} is not a finite float32 number")
    return value


if __name__ == "__main__":
    main()
