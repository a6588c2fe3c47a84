"""Random images in the shape of the data sets, so that a measurement needs no download."""

from types import SimpleNamespace

import numpy as np

from mpiconsensus.data.shards import Shard

SHAPES = {"fashion-cnn": (1, 28, 28), "digits-cnn": (1, 8, 8), "mlp": (1, 8, 8), "logistic": (1, 8, 8)}
IMAGES = (3, 32, 32)  # what the CIFAR ResNets are made for, and what any other model is given


def source(model, n, each=512):
    """Return what data.source.open_source gives, for n vertices of `each` random images that fit `model`."""
    shape = SHAPES.get(model, IMAGES)

    def load(vertex):
        random = np.random.default_rng([7, vertex])
        x = random.integers(0, 256, (each, *shape), dtype=np.uint8)
        return Shard(x, random.integers(0, 10, each), np.arange(each))

    return SimpleNamespace(
        name="synthetic", shape=shape, classes=10, class_names=[str(c) for c in range(10)], sizes=[each] * n, scale=1 / 255,
        mean=np.full(shape[0], 0.5, np.float32), std=np.full(shape[0], 0.25, np.float32), augment="none", licence="", citation="",
        partition="iid", sample_bytes=int(np.prod(shape)), streams=lambda vertex, bound: False, load=load, load_test=lambda: load(10**6),
    )  # fmt: skip
