"""What the data preparation scripts share: arguments, raw files and their checks, the run from raw files to shards."""

import functools
import gzip
import hashlib
import math
import shlex
import signal
import sys
import tarfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from mpiconsensus.data import partition
from mpiconsensus.data.shards import Shard, already_written, write_shards
from mpiconsensus.errors import UserError
from mpiconsensus.limits import usable_cores

PIECE = 1 << 20  # bytes of a raw file that are read and hashed at a time


class Plan(NamedTuple):
    """The arguments of every script but RAW."""

    out: Path
    shards: int
    seed: int
    powers: list | None
    partition: str
    owners: Path | None
    force: bool


class Found(NamedTuple):
    """What a script reads: train and test are Shards or Streams; columns: name -> an id of each training sample."""

    train: object
    test: object
    facts: object
    columns: dict | None = None


def arguments(function):
    """Add RAW OUT --shards --partition --owners --powers --seed --force to a click command; it gets `raw` and a `plan`."""

    @functools.wraps(function)
    def wrapped(raw, **given):
        plan = Plan(**{name: given.pop(name) for name in Plan._fields})
        return function(raw=raw, plan=plan, **given)

    forms = "; ".join(f"{form.example}: {form.meaning}" for name, form in partition.FORMS.items() if name != "owners")
    options = [
        click.argument("raw", type=click.Path(path_type=Path)),
        click.argument("out", type=click.Path(path_type=Path)),
        click.option("--shards", type=click.IntRange(min=1), required=True, help="Number of shards: the vertices of the graph."),
        click.option("--partition", default="iid", show_default=True, metavar="FORM", help=f"Who gets which sample. {forms}."),
        click.option(
            "--owners",
            type=click.Path(path_type=Path),
            help="File of one id a training sample, .npy or text, a line each: an owner's samples stay together.",
        ),
        click.option(
            "--powers", default=None, callback=_powers, metavar="1,2,...", help="One positive number a shard; sizes are in proportion."
        ),
        click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the division."),
        click.option("--force", is_flag=True, help="Replace another set of shards at OUT, once this one is complete."),
    ]
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


class Share(click.FloatRange):
    """A share of the samples: a number between 0 and 1, neither of them."""

    def __init__(self):
        super().__init__(0, 1, min_open=True, max_open=True)

    def convert(self, value, parameter, context):
        share = super().convert(value, parameter, context)
        if math.isnan(share):
            self.fail(f"{share} is not in the range {self._describe_range()}.", parameter, context)
        return share


def raw_files(raw, folder, names, archive=None, optional=()):
    """Return ({path: bytes or memoryview}, {file name: sha256}) of the publishers' files `names`, and of those of `optional` that are there.

    RAW is their folder, one that holds it or the archive (a tar file), or the archive. A name NAME.gz may be unpacked.
    """
    raw = Path(raw)
    if raw.is_file():
        return _hashed(_members(raw, names, optional))
    if not raw.is_dir():
        raise UserError(f"{raw} is not there; RAW is the folder {folder}, or the one that holds it{f', or {archive}' if archive else ''}.")
    inside = raw / folder if (raw / folder).is_dir() else raw
    if archive and not (inside / names[0]).exists() and (raw / archive).is_file():
        return _hashed(_members(raw / archive, names, optional))
    paths = [inside / name for name in names] + [inside / name for name in optional if (inside / name).exists()]
    paths = [path.with_suffix("") if path.suffix == ".gz" and not path.exists() and path.with_suffix("").exists() else path for path in paths]
    # One behind the other in memory, so that what belongs together need not be copied there.
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    ends = np.cumsum(sizes)
    memory = memoryview(np.empty(sum(sizes), np.uint8))
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = list(pool.map(_read_into, paths, [memory[end - size : end] for end, size in zip(ends, sizes)]))
    return {path: content for path, (content, _) in zip(paths, found)}, {path.name: digest for path, (_, digest) in zip(paths, found)}


def _read_into(path, memory):
    """Return (the part of `memory` that the file fills, its sha256); raise UserError as read_raw."""
    done, digest = 0, hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            # What has just been read is still in the cache.
            while count := file.readinto(memory[done : done + PIECE]):
                digest.update(memory[done : done + count])
                done += count
    except OSError:
        done = 0
    if not done:
        content = read_raw(path)
        return content, digests({path: content})[path.name]
    check_head(path, bytes(memory[:512]))
    return memory[:done], digest.hexdigest()


def _hashed(contents):
    return contents, digests(contents)


def _members(archive, names, optional):
    if not tarfile.is_tarfile(archive):
        read_raw(archive)
        raise UserError(f"{archive} is not a tar archive; RAW is the publishers' archive, complete, or the folder in it.")
    contents = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and name in (*names, *optional):
                    contents[archive / name] = tar.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{archive} is not a complete archive ({error}); download it again.") from None
    for name in names:
        if archive / name not in contents:
            raise UserError(f"{archive} holds no {name}; RAW is the publishers' archive with all its files.")
    return contents


def read_raw(path, advice="RAW is the publishers' folder with all its files"):
    """Return the bytes of a raw file; raise UserError where it is missing, with `advice`, or empty, or a web page."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {advice}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    check_head(path, content[:512])
    return content


def check_head(path, head):
    """Raise UserError where the first bytes of a file say that it is empty or a web page."""
    if not head:
        raise UserError(f"{path} is empty; download it again.")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path} is a web page, not data; download it again, and look at it in a browser to see why.")


def unzip(path, content):
    """Return the decompressed `content` of the gzip file `path`; raise UserError where it is damaged."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a complete gzip file ({error}); download it again.") from None


def digests(contents):
    """Return {file name: sha256} of {path: bytes}, hashed side by side."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(lambda content: hashlib.sha256(content).hexdigest(), contents.values())
        return dict(zip((Path(path).name for path in contents), found))


def samples(x, y):
    """Return the Shard of all samples in the order of the source: id is 0, 1, ..."""
    return Shard(x, y.astype(np.int64), np.arange(len(y), dtype=np.int64))


def split_off(count, fraction, seed):
    """Return (kept, held) rows: `fraction` of `count` samples held out as test samples, at least one of each."""
    if count < 2:
        raise UserError(f"{count} sample cannot be both training and test sample; give more data.")
    return partition.hold_out(count, min(max(1, round(fraction * count)), count - 1), seed)


def prepare(plan, sources, facts, read, **options):
    """Divide a data set into shards; return at once where that is done already.

    `sources` maps the name of a raw file to its sha256; `read()` returns a Found, with the facts that it has found out.
    `options` are further choices that made the set.
    """
    for name in (facts.dataset, *facts.class_names):
        if not name.isprintable():
            raise UserError(f"the name {name!r} cannot stand in a log or on a terminal; rename the file or folder, in letters of UTF-8.")
    spec = plan.partition
    if plan.owners is not None:
        if spec not in ("iid", "owners"):
            raise UserError(f"--owners and --partition {spec} exclude one another; give one of them.")
        spec = "owners"
        content = read_raw(plan.owners, "--owners is a file of one id a training sample")
        options["owners"] = hashlib.sha256(content).hexdigest()
    elif spec == "owners":
        raise UserError("--partition owners needs a file of owners: --owners FILE, one id a training sample.")
    name, column = partition.parse(spec)
    powers = partition.check_powers(plan.powers, plan.shards)
    recipe = {"partition": spec, "seed": plan.seed, "powers": powers, "sources": sources, "options": options}
    if already_written(plan.out, recipe, facts, plan.shards, plan.force):
        click.echo(f"{plan.out} holds these {plan.shards} shards of {facts.dataset} already; every file is as it was written.")
        return
    say(f"reading {', '.join(sources)}")
    train, test, facts, columns = read()
    note_empty(train.y, facts)
    ids = None
    if name == "owners":
        ids = owner_ids(plan.owners, content, len(train.y))
    elif name == "by":
        columns = {"label": train.y} | (columns or {})
        if column not in columns:
            raise UserError(f"partition {spec!r}: {facts.dataset} has no column {column!r}; it has {', '.join(list(columns)[:10])}{', ...' * (len(columns) > 10)}.")
        ids = columns[column]
        check_ids(f"column {column!r} of {facts.dataset}", ids)
    parts = partition.assign(spec, train.y, plan.shards, plan.seed, powers, ids)
    say(f"writing {plan.shards} shards to {plan.out}")
    manifest = write_shards(plan.out, recipe, facts, train, test, parts, plan.force, Progress())
    smallest, largest = min(manifest["sizes"]), max(manifest["sizes"])
    each = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    click.echo(
        f"{facts.dataset}: {len(train.y)} training samples in {plan.shards} shards of {each}, {len(test.y)} test samples, "
        f"{facts.classes} classes, shape {'x'.join(map(str, facts.shape))}; in {plan.out}"
    )
    click.echo(f"partition {spec}: label skew {np.mean(manifest['skew']):.3f} (mean), {max(manifest['skew']):.3f} (largest)")
    click.echo(f"train on them: mpirun -n {plan.shards} mpiconsensus train --set {shlex.quote(f'data.shards={plan.out}')}")


def note_empty(labels, facts):
    """Say which classes have no training sample."""
    missing = np.flatnonzero(np.bincount(labels, minlength=facts.classes) == 0)
    if len(missing):
        names = ", ".join(facts.class_names[label] for label in missing[:5]) + (", ..." if len(missing) > 5 else "")
        say(f"note: {len(missing)} of {facts.classes} classes have no training sample ({names}).")


def owner_ids(path, content, count):
    """Return one id a sample from the bytes of an .npy file of numbers or text, or of a text with a line each."""
    if Path(path).suffix == ".npy":
        try:
            ids = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} is not an .npy file of numbers or text ({error}); save one with numpy.save.") from None
    else:
        ids = np.array([line.strip() for line in content.decode("utf-8", errors="replace").splitlines()])
    if ids.shape != (count,):
        raise UserError(f"{path} holds ids {ids.shape}, there are {count} training samples; give one id each, in their order.")
    check_ids(path, ids)
    return ids


def check_ids(what, ids):
    """Raise UserError that names `what` where an id is no number or an empty text."""
    if ids.dtype.kind in "fcmM" and not np.isfinite(ids).all():
        raise UserError(f"{what}: the id of sample {int(np.argmin(np.isfinite(ids)))} is not a number; give every sample an owner.")
    if ids.dtype.kind in "US" and not np.char.str_len(ids).all():
        raise UserError(f"{what}: the id of sample {int(np.argmin(np.char.str_len(ids)))} is empty; give every sample an owner.")


class Progress:
    """Share done, rate and time left on standard error: in place on a terminal, else a line every ten seconds."""

    def __init__(self, unit="MB", scale=1e6):
        self.unit, self.scale, self.tty = unit, scale, sys.stderr.isatty()
        self.start = self.told = time.monotonic()

    def __call__(self, done, total):
        now = time.monotonic()
        ended = self.tty and done >= total
        if now - self.told < (0.5 if self.tty else 10) and not ended:
            return
        self.told, rate = now, done / max(now - self.start, 1e-9)
        line = f"{done / total:4.0%}  {rate / self.scale:.0f} {self.unit}/s  {(total - done) / rate:.0f} s left"
        click.echo(f"\r{line:40}" if self.tty else line, err=True, nl=ended or not self.tty)


def say(text):
    """Print a progress line on standard error."""
    click.echo(text, err=True)


def reports_errors(function):
    """Wrap a script's function: a UserError or a path that is refused becomes one line and exit code 2, SIGTERM an interrupt that cleans up."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            return function(*args, **kwargs)
        except UserError as error:
            say(f"error: {error}")
            sys.exit(2)
        except OSError as error:
            if error.filename is None:
                raise
            say(f"error: {error.filename} cannot be used ({error.strerror}).")
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
