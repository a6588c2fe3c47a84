"""Shards on disk: one HDF5 file a vertex, beside them test.h5 and manifest.json.

shard-0007.h5 (four digits, more where n > 10000) and test.h5:
    x     uint8 (N, C, H, W) or float32 (N, p), contiguous
    y     int64 (N,), class of a sample, 0..classes-1
    id    int64 (N,), index in the source, ascending
    attributes: format, version, dataset, split (train, test), vertex (-1 in test.h5), of, partition, seed,
    class_names, scale, mean, std, published_mean and published_std where there are any, sha256 of the bytes
    of x, y and id, one after another.
manifest.json says what the set is, how it was made, two sha256 of every file, that of its samples and, `frame_sha256`, that of its
bytes before and behind x (in version 1, which is read too, that of the whole file), and `labels`, the samples of each class in
each shard, with their `skew` (partition.skew). It is written last, into a
temporary directory that then takes the set's name: a directory with a manifest is complete.

A model sees (x * scale - mean) / std: scale is 1/255 for images of 8 bits, so that mean and std are in units
of [0, 1], and 1 for features. mean and std are computed per channel or feature over the whole training set.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from mpiconsensus.data.blockfile import BlockFile
from mpiconsensus.data.frame import layout, split_of
from mpiconsensus.data.manifest import FORMAT, Facts, as_recorded, file_name, read_manifest, recorded
from mpiconsensus.data.moments import moments
from mpiconsensus.data.shardfile import Shard, check_samples, refuse, sha256
from mpiconsensus.data.writer import Stream, file_sha256, is_set, write_shards
from mpiconsensus.errors import UserError
from mpiconsensus.limits import usable_cores

__all__ = ["Shard", "ShardSet", "Stream", "already_written", "moments", "open_shards", "write_shards"]


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

    def open(self, vertex):
        """Return (BlockFile of the shard of `vertex`, its recorded sha256), its samples not yet checked."""
        path, laid_out = self._place(vertex)
        with self._checked(path, vertex) as file:
            found = [_dataset(path, file, *wanted) for wanted in laid_out]
            offsets = [data.id.get_offset() for data in found]
            if None in offsets or file.userblock_size:
                refuse(path, "its datasets are not contiguous, as data.memory needs them")
            digest = self._recorded(path, file)
        return BlockFile(path, laid_out, offsets), digest

    def _place(self, vertex):
        """Return the path of a file and the layout of its datasets."""
        count = self.manifest["test_size"] if vertex < 0 else self.sizes[vertex]
        return self.directory / file_name(vertex, self.manifest["shards"]), layout(count, self.facts)

    def _recorded(self, path, file):
        """Return the sha256 of the samples, "" where file and manifest do not agree on it."""
        digest = self.manifest["files"][path.name]["samples_sha256"]
        return digest if _attribute(file, "sha256") == digest else ""

    def _read(self, vertex):
        path, laid_out = self._place(vertex)
        with self._checked(path, vertex) as file:
            shard = Shard(*(_dataset(path, file, *wanted)[()] for wanted in laid_out))
            digest = self._recorded(path, file)
        check_samples(path, shard, self.facts)
        if sha256(shard) != digest:
            refuse(path, "the samples do not have the sha256 that was recorded when they were written")
        return shard

    def has_frame(self, vertex):
        """Return whether the bytes of the file of `vertex` but for x, which `load` compares, are as they were written."""
        path, _ = self._place(vertex)
        digest = self.manifest["files"][path.name][recorded(self.manifest["version"])[1]]
        if self.manifest["version"] == 1:
            return file_sha256(path) == digest
        try:
            file, _ = self.open(vertex)
        except UserError:
            return False
        try:
            return file.frame_sha256() == digest
        finally:
            file.close()

    def is_whole(self, vertex):
        """Return whether every byte of the file of `vertex` is as it was written, reading it in pieces."""
        try:
            if self.manifest["version"] > 1:
                file, digest = self.open(vertex)
                try:
                    file.check(self.facts, digest)
                finally:
                    file.close()
            return self.has_frame(vertex)
        except UserError:
            return False

    @contextmanager
    def _checked(self, path, vertex):
        """Give the open file; raise UserError where it is not one of this vertex of this set."""
        expected = {"format": FORMAT, "version": self.manifest["version"], "dataset": self.facts.dataset, "split": split_of(vertex)}
        expected |= {"vertex": vertex, "of": self.manifest["shards"], "partition": self.manifest["partition"], "seed": self.manifest["seed"]}
        try:
            with h5py.File(path, "r", locking=False) as file:
                for name, value in expected.items():
                    found = _attribute(file, name)
                    if np.ndim(found) > 0 or found != value:
                        refuse(path, f"{name} is {found}, expected {value}")
                yield file
        except FileNotFoundError:
            refuse(path, "the file is missing")
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            # h5py answers damaged metadata with any of these.
            refuse(path, f"not a readable HDF5 file ({str(error).splitlines()[0]})")


def open_shards(directory):
    """Return the ShardSet of `directory`; raise UserError where its manifest is missing or wrong. Opens no shard."""
    return ShardSet(directory, read_manifest(directory))


def already_written(out, recipe, facts, n, force=False):
    """Return whether `out` is a complete set of n shards made by this very recipe; False where it is absent or empty.

    Every byte of its files is compared by checksum. Raise UserError where `out` holds anything else; with `force`, only where it holds
    what is no set of shards.
    """
    out = Path(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    advice = "choose another OUT, or replace this one with --force"
    if not (out / "manifest.json").is_file() or not is_set(out):
        raise UserError(f"{out} is there and is not a set of shards; choose another OUT, or remove this one.")
    try:
        _compare(out, as_recorded(recipe, facts, n), advice)
    except UserError:
        if force:
            return False
        raise
    return True


def _compare(out, wanted, advice):
    manifest = read_manifest(out)
    for name, value in wanted.items():
        if manifest.get(name) != value:
            short = "of other files" if name == "sources" else f"{manifest.get(name)!r}, asked for is {value!r}"
            raise UserError(f"{out} holds other shards: {name} is {short}; {advice}.")
    found, vertices = ShardSet(out, manifest), range(-1, manifest["shards"])
    with ThreadPoolExecutor(usable_cores()) as pool:
        for vertex, whole in zip(vertices, pool.map(found.is_whole, vertices)):
            if not whole:
                raise UserError(f"{out / file_name(vertex, manifest['shards'])} is missing or altered; {advice}.")


def _attribute(file, name):
    """Return an attribute, text as str: versions 1 and 2 of the format have text of any length, which h5py decodes itself."""
    found = file.attrs.get(name)
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def _dataset(path, file, name, shape, dtype):
    data = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    # Links, virtual and external data would read files that this vertex does not own.
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        refuse(path, f"it holds no dataset {name!r} of its own")
    if data.shape != shape or data.dtype != np.dtype(dtype):
        refuse(path, f"{name} is {data.dtype} {data.shape}, expected {np.dtype(dtype)} {shape}")
    return data
