"""What compressing costs on one core: selection beside torch.topk, codes beside a copy of the vector, a power step beside an SVD.

    python benchmarks/compress.py [--size 11200000] [--passes 7]

The sides take turns in one run. A line a side: median and range of its CPU time, since others may use the machine, and how
often that goes into the time of the side that it is set against, the first of its group. "EF21" is a round at a vertex:
difference, encode, add_to.
"""

import sys
import time
from pathlib import Path

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # from a checkout, installed or not

from mpiconsensus import compress
from mpiconsensus.compress.sparse import largest

CODES = ("power-of-two", "power-of-two-log", "natural", "sign", "bf16")


def selection(x):
    """Yield groups of sides: torch's selection of the k largest, the package's."""
    t = torch.from_numpy(x)
    for share in (0.01, 0.2):
        k = round(share * len(x))
        yield {
            f"torch.topk {share:.0%}": lambda k=k: torch.topk(t.abs(), k, sorted=False),
            f"top-k {share:.0%}": lambda k=k: largest(x, k),
        }


def codes(x):
    """Yield the group of a copy and of the codes of all elements."""
    out, random = np.empty_like(x), np.random.default_rng(0)
    sides = {"copy of the vector": lambda: np.copyto(out, x)}
    for name in CODES:
        c = compress.make(name, len(x))
        message = c.encode(x, random)
        sides[f"{name} encode"] = lambda c=c: c.encode(x, random)
        sides[f"{name} decode"] = lambda c=c, message=message: c.decode(message, out, random)
    yield sides


def low_rank():
    """Yield the group of the full SVD of a 512 x 4608 matrix and of a step of rank 4."""
    a = np.random.default_rng(0).standard_normal((512, 4608)).astype(np.float32)
    c, random = compress.make("power-step:4", a.size, shape=a.shape), np.random.default_rng(0)
    yield {
        "SVD of 512 x 4608": lambda: np.linalg.svd(a, full_matrices=False),
        "power step, rank 4": lambda: c.encode(a.reshape(-1), random),
    }


def error_feedback(x):
    """Yield the group of a copy and of the rounds of EF21."""
    out = np.empty_like(x)
    sides = {"copy of the vector": lambda: np.copyto(out, x)}
    for spec in ("top-k:0.01", "top-k:0.2", "top-k:0.01+power-of-two", "rand-k:0.01"):
        c, g, difference = compress.make(spec, len(x)), np.zeros_like(x), np.empty_like(x)

        def one(c=c, g=g, difference=difference):
            np.negative(g, out=g)  # so that the difference does not vanish
            np.subtract(x, g, out=difference)
            c.add_to(c.encode(difference, np.random.default_rng(1)), [(g, 1.0)], np.random.default_rng(1))

        sides[f"EF21 {spec}"] = one
    yield sides


@click.command()
@click.option("--size", default=11_200_000, show_default=True, help="Elements of the vector, float32.")
@click.option("--passes", default=7, show_default=True)
def main(size, passes):
    """Print a line a side."""
    torch.set_num_threads(1)
    x = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    print(f"{'side':30} {'ms':>9} {'range':>17} {'ratio':>7}")
    for group in (*selection(x), *codes(x), *low_rank(), *error_feedback(x)):
        times = {name: [] for name in group}
        for turn in range(passes + 1):
            for name, side in group.items():
                start = time.thread_time()
                side()
                if turn:  # the first warms up
                    times[name].append(1e3 * (time.thread_time() - start))
        first = np.median(next(iter(times.values())))
        for name, taken in times.items():
            print(f"{name:30} {np.median(taken):9.2f} {min(taken):8.2f}-{max(taken):8.2f} {first / np.median(taken):7.2f}")


if __name__ == "__main__":
    main()
