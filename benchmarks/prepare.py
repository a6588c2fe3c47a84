"""Preparation of shards against reading and writing the same bytes, in turn in one run; and the memory of a large set.

    python benchmarks/prepare.py RAW [--shards 36] [--repeats 7]     RAW holds cifar-10-batches-bin
    python benchmarks/prepare.py --samples 1000000                   a generated set of 3 KB a sample: its peak memory

cifar10.py is everything between its arguments and its last line: it reads, compares what is there, hashes the raw files, checks
labels, divides, sums mean and deviation, writes and hashes the shards, and waits until the disk has them. The plain sides read
every raw file whole and write its bytes to one new file each; one waits for the disk too, the other leaves its bytes in the page
cache. RAW is unpacked: what gzip takes for the publishers' archive comes to every side. What is timed is work, not the start
of Python.
"""

import os
import resource
import statistics
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "data_prep"))

import cifar10
import common

from mpiconsensus.data import partition
from mpiconsensus.data.shards import Stream, write_shards
from mpiconsensus.outputs import synchronise

NAMES = [*cifar10.TRAIN, cifar10.TEST]


def plain(raw, out, fsync):
    out.mkdir()
    for name in NAMES:
        (out / name).write_bytes((raw / "cifar-10-batches-bin" / name).read_bytes())
    for path in [*out.iterdir(), out] if fsync else []:
        synchronise(path)


def prepared(raw, out, shards):
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        cifar10.main([str(raw), str(out), "--shards", str(shards)], standalone_mode=False)


def timed(side, folder):
    start, used = time.perf_counter(), time.process_time()
    side(folder / "out")
    return time.perf_counter() - start, time.process_time() - used


def compare(raw, shards, repeats):
    sides = {
        "read and write": lambda out: plain(raw, out, fsync=False),
        "read, write and fsync": lambda out: plain(raw, out, fsync=True),
        "cifar10.py": lambda out: prepared(raw, out, shards),
    }
    times = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
                seconds = timed(side, Path(folder))
                os.sync()  # what one side leaves to the disk is not in the way of the next one
            if turn:  # the first turn warms the cache
                times[name].append(seconds)
    for number, what in enumerate(("wall", "processor")):
        for name, found in times.items():
            seconds = [one[number] for one in found]
            print(f"{what:10} {name:22} {statistics.median(seconds):6.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
        for name in list(sides)[:2]:
            ratios = [a[number] / b[number] for a, b in zip(times["cifar10.py"], times[name], strict=True)]
            print(f"{what:10} cifar10.py / {name}, median of {repeats}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def large(samples, shards):
    """Write generated images through the path of npz.py and imagefolder.py; print seconds and peak memory."""
    y = (np.arange(samples) * 7 % 10).astype(np.int64)
    block = np.random.default_rng(0).integers(0, 256, (4096, 3, 32, 32), dtype=np.uint8)

    def blocks():
        for start in range(0, samples, len(block)):
            yield block[: samples - start]

    facts = cifar10.FACTS._replace(dataset="generated")
    recipe = {"partition": "iid", "seed": 1, "powers": None, "sources": {}, "options": {}}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        start = time.perf_counter()
        parts = partition.divide(samples, shards, 1)
        test = common.samples(block[:100], y[:100])
        write_shards(Path(folder) / "out", recipe, facts, Stream(y, blocks), test, parts)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{samples:,} samples of 3,072 bytes into {shards} shards: {seconds:.1f} s, {samples * 3072 / seconds / 1e6:.0f} MB/s, peak memory {peak:.2f} GiB")


@click.command()
@click.argument("raw", required=False, type=click.Path(path_type=Path))
@click.option("--shards", default=36)
@click.option("--repeats", default=7)
@click.option("--samples", default=0, help="Measure the memory of so many generated samples instead.")
def main(raw, shards, repeats, samples):
    if samples:
        large(samples, shards)
    elif raw:
        compare(raw, shards, repeats)
    else:
        sys.exit("give RAW, the folder that holds cifar-10-batches-bin, or --samples")


main()
