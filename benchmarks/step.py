"""One vertex against a plain PyTorch loop: the same model, batch and threads, in turn, in one process.

    python benchmarks/step.py [--model resnet20] [--batch 32] [--threads 1] [--repeats 9]

Prints the median time of a step of each and the median of the ratios. Both sides draw a batch from memory, normalise
it and take a step of SGD with momentum and weight decay. plain is what one writes first: torch.optim.SGD, the
memory format that torch has by default.
"""

import statistics
import time

import click
import torch
from synthetic import source

from mpiconsensus import config, models
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire

STEPS = 20


def ours(model, batch):
    keys = {"topology.graph": "ring:1", "model.name": model, "training.batch_size": batch, "training.lr": 0.01, "training.epochs": 10**6}
    job = config.Job(keys)
    world = World()
    return Trainer(job, world, wire(job.topology, world), source(model, 1)).step


def plain(model, batch):
    data = source(model, 1).load(0)
    torch.manual_seed(0)
    module = models.build(model, data.x.shape[1:], 10)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)

    def step():
        rows = torch.randint(len(y), (batch,))
        images = (x[rows].float() / 255 - 0.5) / 0.25
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(module(images), y[rows])
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


@click.command()
@click.option("--model", default="resnet20")
@click.option("--batch", default=32)
@click.option("--threads", default=1)
@click.option("--repeats", default=9)
def main(model, batch, threads, repeats):
    torch.set_num_threads(threads)
    sides = {"plain": plain(model, batch), "mpiconsensus": ours(model, batch)}
    times = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, step in sides.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                step()
            if repeat:  # the first pass warms up
                times[name].append((time.perf_counter() - start) / STEPS)
    for name, found in times.items():
        print(f"{name:13} {1e3 * statistics.median(found):7.2f} ms a step")
    ratios = [a / b for a, b in zip(times["plain"], times["mpiconsensus"], strict=True)]
    print(f"plain / mpiconsensus, median of {repeats}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


main()
