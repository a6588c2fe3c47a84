"""One vertex against a plain PyTorch loop: the same model, batch and threads, in turn, in one process.

    python benchmarks/step.py [--model resnet20] [--batch 32] [--threads 1] [--repeats 9]

Prints the median time of a step of each and the median of the ratios. Both sides draw a batch from memory, normalise
it and take a step of SGD with momentum and weight decay. plain is what one writes first: torch.optim.SGD, the
memory format that torch has by default.
"""

import statistics

import click
import torch

from mpiconsensus.bench import step, timing
from mpiconsensus.bench.synthetic import source
from mpiconsensus.runtime import World


@click.command()
@click.option("--model", default="resnet20")
@click.option("--batch", default=32)
@click.option("--threads", default=1)
@click.option("--repeats", default=9)
def main(model, batch, threads, repeats):
    torch.set_num_threads(threads)
    data = source(model, 1)
    sides = {"plain": step.plain(data, model, batch), "mpiconsensus": step.one_vertex(data, model, batch).step}
    times = timing.in_turn(sides, repeats, World(), calls=step.CALLS)
    for name, found in times.items():
        print(f"{name:13} {1e3 * statistics.median(found):7.2f} ms a step")
    ratio = timing.ratio(times["plain"], times["mpiconsensus"])
    print(f"plain / mpiconsensus, median of {repeats}: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")


main()
