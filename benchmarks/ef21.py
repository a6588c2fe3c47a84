"""Measure what EF21 costs a training step: ResNet-18, TopK at 1 %, batches of 128 images of 3 x 32 x 32.

    python benchmarks/ef21.py [--operator top-k:0.01] [--steps 6] [--batch 128]

One vertex in one process, one thread. Every step is split by the trainer's own clocks: forward, backward and optimizer against
what compression takes (difference, selection, message, what it adds to). Prints the ratio, its median and range over the
steps, and the peak of the memory that EF21 adds to model and gradient, state and passing, in units of the parameters: what
numpy allocated, as tracemalloc counts it (rows and gradients are torch's).
"""

import tracemalloc

import click
import numpy as np


def job(operator, batch, name):
    from mpiconsensus import config

    values = {
        "topology.graph": "ring:1", "model.name": "resnet18", "training.batch_size": batch, "training.momentum": 0.0, "algorithm.name": name,
        "compression.operator": operator,
    }  # fmt: skip
    return config.Job(values)


def trainer(operator, batch, name):
    import torch

    from mpiconsensus.bench.synthetic import source
    from mpiconsensus.runtime import World
    from mpiconsensus.training import Trainer
    from mpiconsensus.wiring import wire

    torch.set_num_threads(1)
    made = job(operator, batch, name)
    return Trainer(made, World(), wire(made.topology, World()), source("resnet18", 1, each=2 * batch))


def peak(operator):
    """Return the largest number of bytes that numpy held in three steps on small batches, and the parameters."""
    tracemalloc.start()
    t = trainer(operator, 2, "ef21")
    for _ in range(3):
        t.step()
    return tracemalloc.get_traced_memory()[1], t.block.layout.count


@click.command()
@click.option("--operator", default="top-k:0.01", show_default=True)
@click.option("--steps", default=6, show_default=True)
@click.option("--batch", default=128, show_default=True)
def main(operator, steps, batch):
    t = trainer(operator, batch, "ef21")
    t.step()  # the first sends the gradient as it is
    t.stepper.take()
    shares = []
    for _ in range(steps):
        _, _, compute_s = t.step()
        wait_s, mix_s, *_ = t.stepper.take()
        shares.append((wait_s + mix_s) / compute_s[0])
    print(f"{operator}: compression / gradient and optimizer: median {np.median(shares):.4f} ({min(shares):.4f} to {max(shares):.4f})")
    size, count = peak(operator)
    print(f"peak memory beyond model and gradient: {size / 4 / count:.2f} vectors of the parameters")


if __name__ == "__main__":
    main()
