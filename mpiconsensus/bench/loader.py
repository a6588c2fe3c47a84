"""Loading on this machine: batches drawn and augmented, against what a model step consumes and against plain indexing."""

import copy
from itertools import count, cycle
from types import SimpleNamespace

import numpy as np
import torch

from mpiconsensus import models
from mpiconsensus.bench import timing
from mpiconsensus.bench.step import one_vertex
from mpiconsensus.data.loader import Loader
from mpiconsensus.data.shards import open_shards
from mpiconsensus.data.source import open_source
from mpiconsensus.errors import UserError
from mpiconsensus.placement import Placement

LOADING, INDEXING, STEP = "Loader and Augment", "plain indexing", "model step"


def open_data(world, shards, dataset):
    """Return the Source of the options --shards (a directory, or None) and --dataset; UserError on every rank alike."""

    def load():
        n = len(open_shards(shards).sizes) if shards else world.size
        if n < world.size:
            raise UserError(f"{world.size} ranks were started for the {n} shards of {shards}; start at most {n} (mpirun -n {n}).")
        data = SimpleNamespace(shards=shards or "", dataset=dataset, partition="iid", normalize="published", augment="auto")
        return open_source(data, n, None, 1)

    return world.agree(load)


def measure(world, source, model, batch, repeats, say=lambda text: None):
    """Return the figures of one vertex a rank, all ranks at once; collective.

    {"sides": {name: figures, with samples_per_s of all ranks}, "share": seconds of loading in a second of training,
    "model", "samples", "batch"}. Loader and Augment are those of a run; the model step has a batch that lies ready.
    """
    vertex = Placement(len(source.sizes), world.size, world.rank).hosted[0]
    shard = world.agree(source.load, vertex)
    # Each rank takes its first vertex for the whole network: what is measured is one vertex, not its neighbours.
    own = copy.copy(source)
    own.sizes, own.load = [len(shard.y)], lambda _: shard
    name = models.default_name(source.name, source.shape) if model == "auto" else model
    trainer = world.agree(one_vertex, own, name, batch)
    loader, augment = Loader(shard, batch, 1, vertex), trainer.augment
    drawn = count()

    def load():
        number = next(drawn)
        images, labels = loader.batch(number)
        return augment.train(images, vertex, number, loader), torch.from_numpy(labels)

    size = loader.batch_size
    order = np.random.default_rng(vertex).permutation(len(shard.y))
    batches = cycle([order[at : at + size] for at in range(0, len(order) - size + 1, size)])

    def index():
        rows = next(batches)
        return shard.x[rows], shard.y[rows]

    ready = load()
    images, labels = ready[0], ready[1].numpy().copy()
    trainer.loaders = [SimpleNamespace(batch=lambda number: (None, labels))]
    trainer.augment = SimpleNamespace(train=lambda *of_batch: images)
    say(f"measuring  {LOADING}, {INDEXING}, {STEP} of {name} ...")
    times = timing.in_turn({LOADING: load, INDEXING: index, STEP: trainer.step}, repeats, world)
    trainer.close()
    samples = world.sum([size])[0]
    sides = {side: timing.figures(found) for side, found in times.items()}
    for found in sides.values():
        found["samples_per_s"] = samples / found["median_s"]
    loading, step = sides[LOADING]["median_s"], sides[STEP]["median_s"]
    return {"sides": sides, "share": loading / (loading + step), "model": name, "samples": int(sum(source.sizes)), "batch": size}
