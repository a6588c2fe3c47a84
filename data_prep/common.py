"""What the data preparation scripts share: arguments, checks of raw files, the run from raw files to shards."""

import functools
import gzip
import hashlib
import signal
import sys
import zlib
from pathlib import Path

import click
import numpy as np

from mpiconsensus.data import partition
from mpiconsensus.data.shards import Shard, already_written, write_shards
from mpiconsensus.errors import UserError

# What CIFAR-10 and CIFAR-100 have in common, as keywords of Facts.
CIFAR = {
    "shape": (3, 32, 32),
    "scale": 1 / 255,
    "augment": "crop-flip",
    "licence": "none stated by the publisher; research use, cite the report",
    "citation": "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009",
    "published_mean": (0.485, 0.456, 0.406),
    "published_std": (0.229, 0.224, 0.225),
}


def arguments(function):
    """Add the arguments of every script, OUT --shards --seed --powers, to a click command."""
    options = [
        click.argument("out", type=click.Path(path_type=Path)),
        click.option(
            "--shards", type=click.IntRange(min=1), required=True, help="Number of shards: the vertices of the graph."
        ),
        click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the division."),
        click.option(
            "--powers",
            default=None,
            callback=_powers,
            metavar="1,2,...",
            help="One positive number a shard; sizes are in proportion.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def folder_of_raw(raw, name):
    """Return the publishers' folder `name`: RAW itself, or the folder of that name in RAW."""
    raw = Path(raw)
    if not raw.is_dir():
        raise UserError(f"{raw} is not a folder; RAW is the folder {name}, or the one that holds it.")
    return raw / name if (raw / name).is_dir() else raw


def read_raw(path):
    """Return the bytes of a raw file; raise UserError where it is missing, empty, or a web page."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; RAW is the publishers' folder with all its files.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    if not content:
        raise UserError(f"{path} is empty; download it again.")
    if content[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path} is a web page, not data; download it again, and look at it in a browser to see why.")
    return content


def unzip(path, content):
    """Return the decompressed `content` of the gzip file `path`; raise UserError where it is damaged."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a complete gzip file ({error}); download it again.") from None


def records(path, content, label_bytes, classes, published):
    """Return (label, pixels) of a file of CIFAR records; label uint8 (N,), pixels uint8 (N, 3, 32, 32), a view.

    A record is `label_bytes` labels, of which the last counts, and 3072 pixels. Raise UserError for a file
    that is not whole records with labels below `classes`; say so where there are not `published` of them.
    """
    size = label_bytes + 3072
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
        say(f"note: {path} holds {len(table)} records, the published file {published}.")
    return label, table[:, label_bytes:].reshape(-1, 3, 32, 32)


def samples(x, y):
    """Return the Shard of all samples in the order of the source: id is 0, 1, ..."""
    return Shard(x, y.astype(np.int64), np.arange(len(y), dtype=np.int64))


def prepare(out, contents, facts, read, shards, seed, powers, **options):
    """Divide a data set into `shards` shards at `out`; return at once where that is done already.

    `contents` maps the path of a raw file to its bytes; `read(contents)` returns the train and test Shards and
    the facts that it has found out, or None for `facts`. `options` are further choices that made the set.
    """
    powers = partition.check_powers(powers, shards)
    sources = {Path(path).name: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    recipe = {"partition": "iid", "seed": seed, "powers": powers, "sources": sources, "options": options}
    if already_written(out, recipe, facts, shards):
        click.echo(f"{out} holds these {shards} shards of {facts.dataset} already; every file is as it was written.")
        return
    say(f"reading {', '.join(sources)}")
    train, test, facts = read(contents, facts)
    parts = partition.divide(len(train.y), shards, seed, powers)
    say(f"writing {shards} shards to {out}")
    manifest = write_shards(out, recipe, facts, train, test, parts)
    smallest, largest = min(manifest["sizes"]), max(manifest["sizes"])
    each = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    click.echo(
        f"{facts.dataset}: {len(train.y)} training samples in {shards} shards of {each}, {len(test.y)} test samples, "
        f"{facts.classes} classes, shape {'x'.join(map(str, facts.shape))}; in {out}"
    )
    click.echo(f"train on them: mpirun -n {shards} mpiconsensus train --set data.shards={out}")


def say(text):
    """Print a progress line on standard error."""
    click.echo(text, err=True)


def reports_errors(function):
    """Wrap a script's function: a UserError becomes one line and exit code 2, SIGTERM an interrupt that cleans up."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            return function(*args, **kwargs)
        except UserError as error:
            say(f"error: {error}")
            sys.exit(2)
        except MemoryError:
            say("error: the data do not fit into memory; use a machine with more, or fewer rows.")
            sys.exit(2)
        except KeyboardInterrupt:
            say("interrupted; nothing was written.")
            sys.exit(130)
        finally:
            signal.signal(signal.SIGTERM, before)

    return wrapped


def _interrupt(signum, frame):
    raise KeyboardInterrupt


def _powers(context, parameter, text):
    try:
        return [float(word) for word in text.split(",")] if text else None
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of numbers such as 1,2,2.") from None
