"""Divide CIFAR-100, binary version, fine labels, into HDF5 shards."""

import cifar
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
    **cifar.FACTS,
)


@click.command()
@common.arguments
@common.reports_errors
def main(raw, plan):
    """Divide CIFAR-100 into HDF5 shards at OUT, labelled with the 100 fine classes.

    RAW is the archive cifar-100-binary.tar.gz, the folder cifar-100-binary (train.bin, test.bin, and
    fine_label_names.txt where it is there), or a folder that holds one of them. Columns: label, coarse (one of 20
    superclasses).
    """
    contents, sources = cifar.raw_files(raw, "cifar-100-binary", "cifar-100-python", list(RECORDS), [NAMES])
    common.prepare(plan, sources, FACTS, lambda: read(contents))


def read(contents):
    """Return the Found of the files' contents, path -> bytes."""
    found, facts, columns = {}, FACTS, {}
    for path, content in contents.items():
        if path.name == NAMES:
            facts = facts._replace(class_names=_names(path, content))
        else:
            # A record begins with the coarse label, then the fine one.
            labels, pixels = cifar.records(path, content, 2, facts.classes, RECORDS[path.name])
            found[path.name] = common.samples(pixels, labels[:, 1])
            columns[path.name] = labels[:, 0]
    return common.Found(found["train.bin"], found["test.bin"], facts, {"coarse": columns["train.bin"]})


def _names(path, content):
    names = tuple(bytes(content).decode("utf-8", errors="replace").split())
    if len(names) != 100:
        raise UserError(
            f"{path} holds {len(names)} names, not 100; download it again, or remove it to do without names."
        )
    return names


if __name__ == "__main__":
    main()
