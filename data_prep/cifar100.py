"""Divide CIFAR-100, binary version, fine labels, into HDF5 shards."""

from pathlib import Path

import click
import common

from mpiconsensus.data.manifest import Facts
from mpiconsensus.errors import UserError

RECORDS = {"train.bin": 50000, "test.bin": 10000}
NAMES = "fine_label_names.txt"
FACTS = Facts(
    dataset="cifar100",
    class_names=tuple(str(number) for number in range(100)),
    prepared_by="data_prep/cifar100.py",
    **common.CIFAR,
)


@click.command()
@click.argument("raw", type=click.Path(path_type=Path))
@common.arguments
@common.reports_errors
def main(raw, out, shards, seed, powers):
    """Divide CIFAR-100 into HDF5 shards at OUT, labelled with the 100 fine classes.

    RAW is the folder cifar-100-binary (train.bin, test.bin, and fine_label_names.txt where it is there), or
    the folder that holds it.
    """
    folder = common.folder_of_raw(raw, "cifar-100-binary")
    contents = {folder / name: common.read_raw(folder / name) for name in RECORDS}
    if (folder / NAMES).exists():
        contents[folder / NAMES] = common.read_raw(folder / NAMES)
    common.prepare(out, contents, FACTS, read, shards, seed, powers)


def read(contents, facts):
    """Return (train, test, facts) of the files' contents, path -> bytes."""
    found = {}
    for path, content in contents.items():
        if path.name == NAMES:
            facts = facts._replace(class_names=_names(path, content))
        else:
            # A record begins with the coarse label, then the fine one.
            label, pixels = common.records(path, content, 2, facts.classes, RECORDS[path.name])
            found[path.name] = common.samples(pixels, label)
    return found["train.bin"], found["test.bin"], facts


def _names(path, content):
    names = tuple(content.decode("utf-8", errors="replace").split())
    if len(names) != 100:
        raise UserError(
            f"{path} holds {len(names)} names, not 100; download it again, or remove it to do without names."
        )
    return names


if __name__ == "__main__":
    main()
