"""Loading and augmenting, on one core, each against what it cannot beat or what one writes first, in turn in one run.

    taskset -c 0 python benchmarks/loading.py [--repeats 9] [--memory 16 --memory 128]

resident: batches of a CIFAR shard in memory against numpy.take into the same memory, and against an h5py fancy read a batch.
augmented: a crop and a flip of its own for every sample, and normalise, against torchvision's transforms v2 sample by sample,
and a torch DataLoader of them. streamed: a pass over a shard larger than data.memory against reading its file from
beginning to end, block by block into memory as large as data.memory, or again and again into one MiB; and the growth of
the process over the bound. A figure is the median over the passes, the range stands behind it; above 1 is faster.
"""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import click
import h5py
import numpy as np
import torch

from mpiconsensus.bench import timing
from mpiconsensus.data import loading
from mpiconsensus.data.augment import Augment
from mpiconsensus.data.loader import Loader
from mpiconsensus.data.manifest import Facts
from mpiconsensus.data.prefetch import Reader
from mpiconsensus.data.shards import Shard, Stream, open_shards, write_shards
from mpiconsensus.data.source import open_source
from mpiconsensus.models import torchvision_models
from mpiconsensus.runtime import World

BATCH = 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
READ = 4 << 20


def written(folder, count):
    """Write a set of one shard of `count` random images of CIFAR's size; return its directory."""
    facts = Facts("generated", (3, 32, 32), ("a", "b"), 1 / 255, "crop-flip", "", "", "", MEAN, STD)
    block, y = np.random.default_rng(0).integers(0, 256, (2048, 3, 32, 32), dtype=np.uint8), np.arange(count) % 2

    def blocks():
        for start in range(0, count, len(block)):
            yield block[: count - start]

    test = Shard(block[:2], y[:2], np.arange(2))
    recipe = {"partition": "iid", "seed": 1, "powers": None, "sources": {}, "options": {}}
    write_shards(folder / f"set-{count}", recipe, facts, Stream(y, blocks), test, [np.arange(count)])
    return folder / f"set-{count}"


def counted(function):
    """Return a function without arguments that calls function(0), function(1), ..."""
    state = SimpleNamespace(count=-1)

    def call():
        state.count += 1
        return function(state.count)

    return call


def tell(title, times, over):
    for name in times:
        if name != over:
            found = timing.ratio(times[name], times[over])
            print(f"{title}: {name} / {over}: {found['median']:.3g} ({found['min']:.3g} to {found['max']:.3g})")
    figures = ", ".join(f"{name} {1e6 * timing.figures(found)['median_s']:.4g} us" for name, found in times.items())
    print(f"{title}: {figures}", flush=True)


def resident(directory, world, repeats):
    shard = open_shards(directory).load(0)
    loader, out, random = Loader(shard, BATCH, 1, 0), np.empty((BATCH, 3, 32, 32), np.uint8), np.random.default_rng(1)
    order = random.permutation(len(shard.y) // BATCH * BATCH).reshape(-1, BATCH)
    with h5py.File(directory / "shard-0000.h5", "r") as file:
        sides = {
            "np.take": counted(lambda count: np.take(shard.x, order[count % len(order)], axis=0, out=out, mode="clip")),
            "Loader": counted(loader.batch),
            "h5py fancy read": counted(lambda count: file["x"][np.sort(order[count % len(order)])]),
        }
        tell("resident", timing.in_turn(sides, repeats, world), "Loader")


def augmented(directory, world, repeats):
    shard = open_shards(directory).load(0)
    loader = Loader(shard, BATCH, 1, 0)
    sides = {}
    for name, layout in (("Augment", torch.contiguous_format), ("Augment, channels_last", torch.channels_last)):
        ours = Augment("crop-flip", MEAN, STD, 1 / 255, torch.float32, layout, seed=1)
        sides[name] = counted(lambda count, ours=ours: ours.train(loader.batch(count)[0], 0, count))
    v2 = transforms()
    each = v2.Compose([v2.RandomCrop(32, 4), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    images = torch.from_numpy(shard.x)

    class Samples(torch.utils.data.Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, row):
            return each(images[row]), int(shard.y[row])

    batches = iter(())

    def of_loader():
        nonlocal batches
        batch = next(batches, None)
        if batch is None:
            batches = iter(torch.utils.data.DataLoader(Samples(), BATCH, shuffle=True, drop_last=True))
            batch = next(batches)
        return batch

    sides["transforms v2, sample by sample"] = counted(
        lambda count: torch.stack([each(images[row]) for row in range(count % 8 * BATCH, count % 8 * BATCH + BATCH)])
    )
    sides["DataLoader"] = of_loader
    tell("augmented", timing.in_turn(sides, repeats, world), "Augment")


def transforms():
    """Return torchvision.transforms.v2; where torchvision was built for another torch, importing its models first helps."""
    torchvision_models.names()
    from torchvision.transforms import v2

    return v2


def streamed(directory, memory, world, repeats):
    data = SimpleNamespace(shards=str(directory), dataset="", partition="iid", normalize="none", augment="none", memory=memory)
    job = SimpleNamespace(
        data=data, training=SimpleNamespace(batch_size=BATCH, seed=1), evaluation=SimpleNamespace(validation_fraction=0)
    )
    source, path = open_source(data, 1, [], 1), directory / "shard-0000.h5"
    before = resident_memory()
    reader = Reader()
    loader, _ = loading.open_loader(job, source, 0, reader)
    peak = max(resident_memory() for count in range(loader.batches_per_pass) if loader.batch(count) is not None)
    size, large, small = path.stat().st_size, np.ones(round(memory * 2**20), np.uint8), np.ones(1 << 20, np.uint8)

    def read_through(buffer, piece):
        with open(path, "rb", buffering=0) as file:
            at = 0
            while file.readinto(memoryview(buffer)[at : at + piece]):
                at = (at + piece) % (len(buffer) - piece + 1)

    def one_pass(number):
        for count in range(number * loader.batches_per_pass, (number + 1) * loader.batches_per_pass):
            loader.batch(count)

    sides = {
        f"sequential read into {memory:g} MiB": lambda: read_through(large, READ),
        "sequential read into 1 MiB": lambda: read_through(small, 1 << 20),
        "streamed": counted(one_pass),
    }
    tell(f"{size / 2**20:.0f} MiB streamed within {memory:g} MiB", timing.in_turn(sides, repeats, world, calls=1), "streamed")
    print(f"resident memory grew by {(peak - before) / 2**20:.1f} MiB, {(peak - before) / 2**20 / memory:.2f} times the bound", flush=True)
    reader.close()


def resident_memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@click.command()
@click.option("--repeats", default=9)
@click.option("--memory", multiple=True, default=[16.0, 128.0], help="data.memory of a streamed shard, MiB; may be repeated.")
@click.option("--samples", default=150_000, help="Of the streamed shard, 3 KB each.")
def main(repeats, memory, samples):
    torch.set_num_threads(1)
    world = World()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        small = written(Path(folder), 50_000)
        resident(small, world, repeats)
        augmented(small, world, repeats)
        large = written(Path(folder), samples)
        for bound in memory:
            streamed(large, bound, world, repeats)


main()
