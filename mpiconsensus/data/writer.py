"""A directory of shards, written all or nothing, from samples in memory or from a source that streams them.

Array legend: N samples, b samples of a block.
"""

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpiconsensus.data import partition
from mpiconsensus.data.frame import Frame, layout, split_of
from mpiconsensus.data.manifest import FORMAT, VERSION, as_recorded, check_manifest, file_name
from mpiconsensus.data.moments import Moments, moments
from mpiconsensus.data.shardfile import Shard, ShardFile, check_finite, check_labels, check_samples, refuse
from mpiconsensus.errors import UserError
from mpiconsensus.limits import usable_cores
from mpiconsensus.outputs import synchronise

WAITING = 4  # files that the disk is asked to write at a time
PIECE = 1 << 20  # bytes that are copied, hashed and written at a time: they stay in the cache


class Stream(NamedTuple):
    """Samples read while they are written: y int64 (N,); `blocks()` yields x (b, ...), N in all; id is 0, 1, ...

    Whatever its size, a block and the labels are all that is in memory.
    """

    y: np.ndarray
    blocks: Callable

    @property
    def id(self):
        return np.arange(len(self.y), dtype=np.int64)


def write_shards(out, recipe, facts, train, test, parts, force=False, progress=None):
    """Write one shard a part, the test set and the manifest to the directory `out`, all or nothing, and onto the disk.

    `recipe` says how the set is made: partition, seed, powers, sources (file name -> sha256), options.
    `train` and `test` are Shards or Streams, `parts` row indices of `train`, ascending, one array a vertex. The mean
    and std of `facts` are computed here. `progress(bytes, of)` is called as samples are written. With `force` a set
    of shards that is there is replaced, once the other is complete. Return the manifest. Raise UserError where
    samples do not fit `facts`, where `out` holds something, and where the disk is full.
    """
    out = Path(out).resolve()
    for samples in (train, test):
        check_labels(out, samples.y, samples.id, facts)
        if isinstance(samples, Shard):
            check_samples(out, samples, facts)
    n = len(parts)
    counts = partition.histogram(parts, train.y, facts.classes)
    manifest = {"format": FORMAT, "version": VERSION, **as_recorded(recipe, facts, n)}
    rows = dict(enumerate(parts)) | {-1: np.arange(len(test.y))}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _aside(out) as temporary, ExitStack() as frames:
            files = _begun(temporary, rows, n, facts, recipe, frames)
            _require_room(out, sum(file.size for file in files.values()))
            told = _Told(progress, sum(file.bytes_of_x for file in files.values()))
            mean, std, digests = _write(out, facts, train, test, files, rows, told)
            facts = facts._replace(mean=mean, std=std)
            manifest |= facts.to_json() | {"sizes": [len(part) for part in parts], "test_size": len(test.y)}
            manifest |= {"labels": counts.tolist(), "skew": partition.skew(counts).round(6).tolist(), "files": digests}
            check_manifest(out, manifest)
            (temporary / "manifest.json").write_text(_text(manifest), encoding="utf-8")
            synchronise(temporary / "manifest.json")
            # mkdtemp makes private directories; the set gets what mkdir would have given.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)
            with suppress(OSError):  # a file system that does not synchronise directories
                synchronise(temporary)
            _put_in_place(temporary, out, force)
            with suppress(OSError):
                synchronise(out.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{out}: the shards cannot be written ({reason}); nothing was left there. "
            f"Free space, or choose another OUT."
        ) from None
    return manifest


def file_sha256(path):
    """Return the sha256 of a file's bytes, "" where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _text(manifest):
    """Return the manifest as JSON, one line a key, a file or a vertex."""

    def lines(value):
        if isinstance(value, dict) and value:
            return "{\n  " + ",\n  ".join(f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n }"
        if isinstance(value, list) and value and isinstance(value[0], list):
            return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        return json.dumps(value)

    return "{\n " + ",\n ".join(f"{json.dumps(key)}: {lines(value)}" for key, value in manifest.items()) + "\n}\n"


def is_set(out):
    """Return whether a directory holds nothing but shards, test.h5 and manifest.json."""
    return all(path.name in ("manifest.json", "test.h5") or path.match("shard-*.h5") for path in out.iterdir())


def _put_in_place(temporary, out, force):
    if not (force and out.is_dir() and any(out.iterdir())):
        return os.rename(temporary, out)
    if not is_set(out):
        raise UserError(f"{out} holds more than shards; choose another OUT, or remove this one.")
    with _aside(out) as replaced:
        os.rename(out, replaced / "set")
        os.rename(temporary, out)


@contextmanager
def _aside(out):
    """Give a temporary directory beside `out`, removed at the end unless renamed; remove those of runs that died.

    A directory is locked by the run that writes it, so that what is not locked is a leftover.
    """
    prefix = f".{out.name}.partial-"
    for leftover in out.parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(OSError), _locked(leftover):
            shutil.rmtree(leftover)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    lock = os.open(temporary, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(lock)


@contextmanager
def _locked(directory):
    """Hold the lock of a directory; raise OSError where another process has it, or the file system has no locks."""
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _require_room(out, needed):
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise UserError(
            f"{out}: the shards take {needed / 1e6:.2f} MB, {out.parent} has {free / 1e6:.2f} MB free; nothing was left there. "
            f"Free space, or choose another OUT."
        )


class _Told:
    """Bytes written so far, told to `progress(bytes, of)`, which may be None."""

    def __init__(self, progress, total):
        self._progress, self._total, self._done, self._lock = progress, total, 0, threading.Lock()

    def add(self, count):
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(self._done, self._total)


def _begun(directory, rows, n, facts, recipe, stack):
    """Return {vertex: ShardFile} for the samples at `rows`, {vertex: array}; what HDF5 holds for them goes with `stack`."""
    frames, files = {}, {}
    for vertex, own in rows.items():
        key = len(own), split_of(vertex)
        if key not in frames:
            frames[key] = stack.enter_context(closing(Frame(*key, n, facts, recipe)))
        files[vertex] = ShardFile(directory / file_name(vertex, n), vertex, frames[key])
    return files


def _write(out, facts, train, test, files, rows, told):
    """Write {vertex: ShardFile} with the samples at {vertex: rows}, onto the disk; return (mean, std, {file name: checksums}).

    A file of samples in memory is written in one go, and the disk takes it while the next ones are made.
    """
    def in_order(samples, vertices):
        return _append_in_order(out, samples, facts, files, {vertex: rows[vertex] for vertex in vertices}, told)

    def complete(vertex):
        samples, file, own = test if vertex < 0 else train, files[vertex], rows[vertex]
        if isinstance(samples, Shard):
            step = max(1, PIECE * len(own) // file.size)
            for start in range(0, len(own), step):
                block = samples.x[own[start : start + step]]
                file.append(block)
                told.add(block.nbytes)
        digests = file.finish(samples.y[own], samples.id[own], mean, std)
        return digests, disk.submit(synchronise, file.path)

    if isinstance(train, Stream):
        mean, std = in_order(train, range(len(files) - 1)).result(facts.scale)
    else:
        mean, std = moments(train.x, facts.scale)
    if isinstance(test, Stream):
        in_order(test, [-1])
    # On all cores, as hashing, copying and writing leave the interpreter to others; the longest file, often the test set, first.
    order = sorted(files, key=lambda vertex: -files[vertex].size)
    cores, disk = ThreadPoolExecutor(usable_cores()), ThreadPoolExecutor(WAITING)
    try:
        found = dict(zip(order, cores.map(complete, order)))
        for _, synchronised in found.values():
            synchronised.result()
    finally:
        cores.shutdown(cancel_futures=True)
        disk.shutdown(cancel_futures=True)
    return mean, std, {files[vertex].path.name: found[vertex][0] for vertex in files}


def _append_in_order(out, stream, facts, files, rows_of, told):
    """Append x of a Stream to {vertex: ShardFile}, as {vertex: rows} says; return the Moments of all of it."""
    vertex_of = np.empty(len(stream.y), np.int64)
    for vertex, rows in rows_of.items():
        vertex_of[rows] = vertex
    (_, (_, *shape), dtype), *_ = layout(0, facts)
    sums, done = Moments(), 0
    for x in stream.blocks():
        if x.dtype != np.dtype(dtype) or list(x.shape[1:]) != shape or done + len(x) > len(stream.y):
            refuse(out, f"x is {x.dtype} {x.shape} behind sample {done} of {len(stream.y)}, expected {np.dtype(dtype)} {shape}")
        check_finite(out, x)
        sums.add(x)
        owner = vertex_of[done : done + len(x)]
        for vertex in np.unique(owner):
            files[vertex].append(x[owner == vertex])
        done += len(x)
        told.add(x.nbytes)
    if done != len(stream.y):
        refuse(out, f"the source gave {done} of {len(stream.y)} samples")
    return sums

