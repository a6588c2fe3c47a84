"""Data sets made up for tests: random pixels with labels, uneven over the vertices."""

from types import SimpleNamespace

import numpy as np

from mpiconsensus.data.shards import Shard


def source(n, shape=(1, 8, 8), classes=10, each=24, augment="none"):
    """Return what data.source.open_source gives, for n vertices with `each` samples and a few more at the odd ones."""
    sizes = [each + 4 * (v % 2) for v in range(n)]

    def load(vertex, count=None):
        random = np.random.default_rng([7, vertex])
        count = sizes[vertex] if count is None else count
        x = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        return Shard(x, random.integers(0, classes, count), np.arange(count))

    return SimpleNamespace(
        name="synthetic", shape=shape, classes=classes, class_names=[str(c) for c in range(classes)], sizes=sizes, scale=1 / 255,
        mean=np.full(shape[0], 0.5, np.float32), std=np.full(shape[0], 0.25, np.float32), augment=augment, licence="", citation="",
        load=load, load_test=lambda: load(10**6, 40), sample_bytes=int(np.prod(shape)), streams=lambda vertex, bound: False,
    )  # fmt: skip
