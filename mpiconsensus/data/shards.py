"""Shards on disk: one HDF5 file a vertex, beside them test.h5 and manifest.json.

shard-0007.h5 (four digits, more where n > 10000) and test.h5:
    x     uint8 (N, C, H, W) or float32 (N, p), contiguous
    y     int64 (N,), class of a sample, 0..classes-1
    id    int64 (N,), index in the source, ascending
    attributes: format, version, dataset, split (train, test), vertex (-1 in test.h5), of, partition, seed,
    class_names, scale, mean, std, published_mean and published_std where there are any, sha256 of the bytes
    of x, y and id, one after another.
manifest.json says what the set is, how it was made, and the sha256 of every file. It is written last, into a
temporary directory that then takes the set's name: a directory with a manifest is complete.

A model sees (x * scale - mean) / std: scale is 1/255 for images of 8 bits, so that mean and std are in units
of [0, 1], and 1 for features. mean and std are computed per channel or feature over the whole training set.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from mpiconsensus.data.manifest import FORMAT, VERSION, Facts, check_manifest, file_name, read_manifest
from mpiconsensus.errors import UserError


class Shard(NamedTuple):
    """Samples in memory: x uint8 (N, C, H, W) or float32 (N, p), y int64 (N,), id int64 (N,)."""

    x: np.ndarray
    y: np.ndarray
    id: np.ndarray

    def take(self, rows):
        """Return a copy of the samples at `rows`."""
        return Shard(self.x[rows], self.y[rows], self.id[rows])


class ShardSet:
    """A directory of shards whose manifest has been checked; a shard's file is opened when it is loaded."""

    def __init__(self, directory, manifest):
        self.directory = Path(directory)
        self.manifest = manifest
        self.facts = Facts.from_json(manifest)
        self.sizes = manifest["sizes"]

    def load(self, vertex):
        """Return the Shard of `vertex`, reading its file alone; raise UserError where it is not as recorded."""
        return self._read(vertex)

    def load_test(self):
        """Return the test samples as a Shard; raise UserError where the file is not what it should be."""
        return self._read(-1)

    def _read(self, vertex):
        n = self.manifest["shards"]
        count = self.manifest["test_size"] if vertex < 0 else self.sizes[vertex]
        path = self.directory / file_name(vertex, n)
        expected = {"format": FORMAT, "version": VERSION, "dataset": self.facts.dataset, "split": _split(vertex)}
        expected |= {"vertex": vertex, "of": n, "partition": self.manifest["partition"], "seed": self.manifest["seed"]}
        try:
            with h5py.File(path, "r", locking=False) as file:
                for name, value in expected.items():
                    found = file.attrs.get(name)
                    if np.ndim(found) > 0 or found != value:
                        _refuse(path, f"{name} is {found}, expected {value}")
                shard = Shard(
                    *(
                        _read_dataset(path, file, name, shape, dtype)
                        for name, shape, dtype in _layout(count, self.facts)
                    )
                )
                digest = file.attrs.get("sha256")
        except FileNotFoundError:
            _refuse(path, "the file is missing")
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            # h5py answers damaged metadata with any of these.
            _refuse(path, f"not a readable HDF5 file ({str(error).splitlines()[0]})")
        _check_samples(path, shard, self.facts)
        if not _sha256(shard) == digest == self.manifest["files"][path.name]["samples_sha256"]:
            _refuse(path, "the samples do not have the sha256 that was recorded when they were written")
        return shard


def open_shards(directory):
    """Return the ShardSet of `directory`; raise UserError where its manifest is missing or wrong. Opens no shard."""
    return ShardSet(directory, read_manifest(directory))


def write_shards(out, recipe, facts, train, test, parts):
    """Write one shard a part, the test set and the manifest to the directory `out`, all or nothing.

    `recipe` says how the set is made: partition, seed, powers, sources (file name -> sha256), options.
    `train` and `test` are Shards, `parts` row indices of `train`, ascending, one array a vertex. The mean and
    std of `facts` are computed here. Return the manifest. Raise UserError where samples do not fit `facts`,
    where `out` holds something, and where the disk is full.
    """
    out = Path(out).resolve()
    _check_samples(out, train, facts)
    _check_samples(out, test, facts)
    mean, std = moments(train.x, facts.scale)
    facts = facts._replace(mean=mean, std=std)
    manifest = {"format": FORMAT, "version": VERSION, **_recipe(recipe, facts, len(parts)), **facts.to_json()}
    manifest |= {"sizes": [len(part) for part in parts], "test_size": len(test.y), "files": {}}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        try:
            for vertex in [*range(len(parts)), -1]:
                shard = test if vertex < 0 else train.take(parts[vertex])
                name = file_name(vertex, len(parts))
                content, samples = _encode(shard, vertex, manifest, facts)
                (temporary / name).write_bytes(content)
                manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "samples_sha256": samples}
            check_manifest(out, manifest)
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            # mkdtemp makes private directories; the set gets what mkdir would have given.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)
            os.rename(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{out}: the shards cannot be written ({reason}); nothing was left there. "
            f"Free space, or choose another OUT."
        ) from None
    return manifest


def already_written(out, recipe, facts, n):
    """Return whether `out` is a complete set of n shards made by this very recipe; False where it is absent or empty.

    Every file's sha256 is compared. Raise UserError where `out` holds anything else.
    """
    out = Path(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    advice = "choose another OUT, or remove this one"
    if not (out / "manifest.json").is_file():
        raise UserError(f"{out} is there and is not a set of shards; {advice}.")
    manifest = read_manifest(out)
    wanted = _recipe(recipe, facts, n)
    for name, value in wanted.items():
        if manifest.get(name) != value:
            short = "of other files" if name == "sources" else f"{manifest.get(name)!r}, asked for is {value!r}"
            raise UserError(f"{out} holds other shards: {name} is {short}; {advice}.")
    for name, digests in manifest["files"].items():
        try:
            same = hashlib.sha256((out / name).read_bytes()).hexdigest() == digests["sha256"]
        except OSError:
            same = False
        if not same:
            raise UserError(f"{out / name} is missing or altered; {advice}.")
    return True


def moments(x, scale):
    """Return (mean, std) of x * scale per channel or feature, float64; a std of 0 becomes 1, so that it divides.

    The std is that of the population. Images are summed in integers, features in float64.
    """
    # Blocks: the whole array in 8 bytes a value would take up to eight times its memory.
    blocks = [x[start : start + 1024] for start in range(0, len(x), 1024)]
    if x.dtype == np.uint8:
        values = np.arange(256, dtype=np.float64) * scale
        counts = sum(
            np.array([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(b, 1, 0)]) for b in blocks
        )
        shares = counts / counts.sum(axis=1, keepdims=True)
        mean = shares @ values
        variance = (shares * (values - mean[:, None]) ** 2).sum(axis=1)
    else:
        mean = x.mean(axis=0, dtype=np.float64) * scale
        variance = sum(((b.astype(np.float64) * scale - mean) ** 2).sum(axis=0) for b in blocks) / len(x)
    std = np.sqrt(variance)
    return mean, np.where(std > 0, std, 1.0)


def _recipe(recipe, facts, n):
    # Through JSON, so that what is compared later is what is written.
    return json.loads(json.dumps({"dataset": facts.dataset, "shards": n, **recipe}))


def _split(vertex):
    return "test" if vertex < 0 else "train"


def _layout(count, facts):
    """Yield (name, shape, dtype) of the datasets of a file with `count` samples."""
    dtype = "<f4" if len(facts.shape) == 1 else "|u1"
    return [("x", (count, *facts.shape), dtype), ("y", (count,), "<i8"), ("id", (count,), "<i8")]


def _encode(shard, vertex, manifest, facts):
    """Return (bytes of the HDF5 file, sha256 of its samples).

    The file is made in memory: HDF5 cannot close a file that a full disk cut short, plain writes fail cleanly.
    """
    buffer = io.BytesIO()
    samples = _sha256(shard)
    # v110: attributes may pass 64 KB (the mean of 10,000 features).
    with h5py.File(buffer, "w", libver="v110") as file:
        for (name, shape, dtype), values in zip(_layout(len(shard.y), facts), shard):
            file.create_dataset(name, shape, dtype, data=values)
        attributes = {"format": FORMAT, "version": VERSION, "dataset": facts.dataset, "split": _split(vertex)}
        attributes |= {"vertex": vertex, "of": manifest["shards"], "partition": manifest["partition"]}
        attributes |= {"seed": manifest["seed"], "class_names": list(facts.class_names), "scale": facts.scale}
        attributes |= {"mean": facts.mean, "std": facts.std, "sha256": samples}
        if facts.published_mean is not None:
            attributes |= {"published_mean": facts.published_mean, "published_std": facts.published_std}
        for name, value in attributes.items():
            file.attrs[name] = value
    return buffer.getbuffer(), samples


def _read_dataset(path, file, name, shape, dtype):
    data = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    # Links, virtual and external data would read files that this vertex does not own.
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        _refuse(path, f"it holds no dataset {name!r} of its own")
    if data.shape != shape or data.dtype != np.dtype(dtype):
        _refuse(path, f"{name} is {data.dtype} {data.shape}, expected {np.dtype(dtype)} {shape}")
    return data[()]


def _check_samples(path, shard, facts):
    """Raise UserError unless shapes, dtypes, labels and features are what `facts` say."""
    for (name, shape, dtype), values in zip(_layout(len(shard.y), facts), shard):
        if values.shape != shape or values.dtype != np.dtype(dtype):
            _refuse(path, f"{name} is {values.dtype} {values.shape}, expected {np.dtype(dtype)} {shape}")
    if len(shard.y) == 0:
        _refuse(path, "it holds no sample")
    low, high = shard.y.min(), shard.y.max()
    if low < 0 or high >= facts.classes:
        _refuse(path, f"labels go from {low} to {high}, allowed are 0 to {facts.classes - 1}")
    if np.any(np.diff(shard.id) <= 0):
        _refuse(path, "id does not ascend")
    if shard.x.dtype != np.uint8 and not np.isfinite(shard.x).all():
        _refuse(path, "x holds features that are not finite")


def _sha256(shard):
    digest = hashlib.sha256()
    for array in shard:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _refuse(path, fact):
    raise UserError(f"{path}: {fact}; copy the file again, or make the shards again with data_prep/.")
