"""Where a job's samples come from: the embedded data sets, divided virtually, or a directory of shards."""

import math
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np

from mpiconsensus.data import partition
from mpiconsensus.data.manifest import Facts
from mpiconsensus.data.moments import moments
from mpiconsensus.data.shards import Shard, open_shards
from mpiconsensus.data.stream import shard_bytes
from mpiconsensus.errors import UserError, require_choice

# Name -> the file in embedded/, and whether its test samples are training samples too.
EMBEDDED = {"digits": ("digits", False), "mushrooms": ("mushrooms", False), "mushrooms-all": ("mushrooms", True)}


class Source:
    """A data set divided over n vertices; see `open_source`.

    name, shape ((C, H, W) or (p,)), classes, class_names, licence, citation; sizes: training samples a vertex;
    augment: one of data.augment.KINDS. A model sees (x * scale - mean) / std: scale is a float, mean and
    std are float32, one a channel or feature. partition: its spec; labels: training samples of each class at each
    vertex, int64 (n, classes), or None where an old set of shards does not say.
    """

    def __init__(self, facts, sizes, data, read, spec, labels, open_file=None):
        self.name, self.shape = facts.dataset, facts.shape
        self.classes, self.class_names = facts.classes, facts.class_names
        self.licence, self.citation = facts.licence, facts.citation
        self.scale = facts.scale
        self.sizes, self.partition, self.labels = list(sizes), spec, labels
        self.mean, self.std = _moments(facts, data.normalize)
        self.augment = facts.augment if data.augment == "auto" else data.augment
        if self.augment != "none" and len(self.shape) != 3:
            raise UserError(
                f"data.augment = {self.augment!r} needs images, {self.name} has {self.shape[0]} features; "
                f"choose auto or none."
            )
        self._read, self._open = read, open_file

    @property
    def sample_bytes(self):
        """Bytes of x of a sample."""
        return math.prod(self.shape) * (1 if len(self.shape) == 3 else 4)

    def streams(self, vertex, bound):
        """Return whether the shard of `vertex` is larger than `bound` bytes; embedded data are small, and 0 is no bound."""
        return self._open is not None and 0 < bound < shard_bytes(self.sizes[vertex], self.sample_bytes)

    def open(self, vertex):
        """Return (BlockFile of the training samples of `vertex`, their recorded sha256); UserError where it is not as recorded."""
        return self._open(vertex)

    def load(self, vertex):
        """Return the training samples of `vertex` as a Shard, reading nothing that other vertices own."""
        if not 0 <= vertex < len(self.sizes):
            raise ValueError(f"vertex {vertex} of {len(self.sizes)}")
        return self._read(vertex)

    def load_test(self):
        """Return the test samples as a Shard."""
        return self._read(-1)


def open_source(data, n, powers, seed):
    """Return the Source of the job table `data` (dataset, shards, partition, normalize, augment) for n vertices; local.

    Embedded data are divided by `partition.assign(data.partition, ...)`; shards are divided already, and
    must be n, in proportion to `powers` where these are given, by `data.partition` where it is not the default. Raise
    UserError where they are not, and where files are not what they should be.
    """
    if data.shards:
        return _open_shards(data, n, powers)
    require_choice("data.dataset", data.dataset, EMBEDDED)
    return _open_embedded(data, n, powers, seed)


def open_test(data):
    """Return (Source, test samples as a Shard) of the job table `data`, whatever the number of shards; local."""
    n = len(open_shards(data.shards).sizes) if data.shards else 1
    # How training samples are divided does not matter here.
    source = open_source(SimpleNamespace(**vars(data) | {"partition": "iid"}), n, None, 0)
    return source, source.load_test()


def _open_shards(data, n, powers):
    shards = open_shards(data.shards)
    found = len(shards.sizes)
    prepare = f"`python {shards.facts.prepared_by or 'data_prep/...'} RAW OUT --shards {n}"
    if found != n:
        raise UserError(
            f"data.shards = {data.shards!r} holds {found} shards, the graph has {n} vertices; "
            f"divide the data again with {prepare}`, "
            f"or choose a graph of {found} vertices, for example --set topology.graph=ring:{found}."
        )
    _check_division(data, shards.manifest, n, powers, prepare)
    labels = shards.manifest.get("labels")
    return Source(
        shards.facts, shards.sizes, data, lambda vertex: shards.load_test() if vertex < 0 else shards.load(vertex),
        shards.manifest["partition"], None if labels is None else np.array(labels, np.int64), shards.open,
    )  # fmt: skip


def _check_division(data, manifest, n, powers, prepare):
    """Raise UserError where shards are not divided as the job says."""
    spec, asked = manifest["partition"], data.partition
    if asked not in ("iid", spec):
        raise UserError(
            f"data.partition = {asked!r}, the shards in {data.shards!r} are divided by {spec!r}; divide the data again with "
            f"{prepare} --partition {asked}`, or leave data.partition out."
        )
    if not powers:
        return
    if spec in partition.EXACT:
        fits = partition.sizes(sum(manifest["sizes"]), n, powers) == manifest["sizes"]
    else:
        given = partition.check_powers(manifest["powers"] or [1.0] * n, n)
        powers = partition.check_powers(powers, n)
        fits = all(math.isclose(a * given[0], b * powers[0], rel_tol=1e-12) for a, b in zip(powers, given))
    if not fits:
        listed = ",".join(f"{power:g}" for power in powers)
        division = "" if spec == "iid" else f" --partition {spec}"
        raise UserError(
            f"data.shards = {data.shards!r} is not divided in proportion to hetero.powers; divide the data again with "
            f"{prepare}{division} --powers {listed}`, or leave hetero.powers empty."
        )


def _open_embedded(data, n, powers, seed):
    stem, everything = EMBEDDED[data.dataset]
    path = Path(__file__).parent / "embedded" / f"{stem}.h5"
    with h5py.File(path, "r", locking=False) as file:
        facts = Facts(**{name: _plain(file.attrs[name]) for name in Facts._fields if name in file.attrs})._replace(dataset=data.dataset)
        training = _training(file, everything)
    y = training.y
    if everything:
        mean, std = moments(training.x.astype(np.float32), facts.scale)
        facts = facts._replace(mean=mean, std=std)
    spec = data.partition
    name, column = partition.parse(spec)
    if name == "owners" or (name == "by" and column != "label"):
        raise UserError(f"data.partition = {spec!r}: {data.dataset} has no such column; by:label goes by class.")
    parts = partition.assign(spec, y, n, seed, powers, y)

    def read(vertex):
        with h5py.File(path, "r", locking=False) as file:
            shard = _training(file, everything).take(parts[vertex]) if vertex >= 0 else _split(file, "test")
        return shard._replace(x=shard.x.astype(np.uint8 if len(facts.shape) == 3 else np.float32, copy=False))

    return Source(facts, [len(part) for part in parts], data, read, spec, partition.histogram(parts, y, facts.classes))


def _split(file, name):
    # The files are small and compressed: whole reads are quicker than picking rows out of them.
    x, y, sample = (file[name][field][()] for field in Shard._fields)
    return Shard(x, y.astype(np.int64), sample.astype(np.int64))


def _training(file, everything):
    """Return the training samples of an embedded file, in ascending id; everything: the test samples among them."""
    shard = _split(file, "train")
    if not everything:
        return shard
    both = Shard(*map(np.concatenate, zip(shard, _split(file, "test"), strict=True)))
    return both.take(np.argsort(both.id))


def _plain(value):
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value


def _moments(facts, normalize):
    """Return (mean, std), float32, as the key data.normalize asks."""
    mean, std = facts.mean, facts.std
    if normalize == "published" and facts.published_mean is not None:
        mean, std = facts.published_mean, facts.published_std
    elif normalize == "none":
        mean, std = np.zeros(facts.shape[0]), np.ones(facts.shape[0])
    return np.asarray(mean, np.float32), np.asarray(std, np.float32)
