"""A ring that averages at every step against the same processes training with no communication, in turn, in one run.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/ring.py [--model resnet20] [--batch 32] [--order atc]

Prints the median time of a step of each (from a barrier to the last rank's end) and the median of the ratios.
"""

import statistics
import time

import click
import torch
from synthetic import source

from mpiconsensus import config
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire


def trainer(world, model, batch, **keys):
    values = {
        "topology.graph": f"ring:{world.size}", "model.name": model, "training.batch_size": batch, "training.lr": 0.01,
        "training.epochs": 10**6, **keys,
    }  # fmt: skip
    job = config.Job(values)
    return Trainer(job, world, wire(job.topology, world), source(model, world.size))


@click.command()
@click.option("--model", default="resnet20")
@click.option("--batch", default=32)
@click.option("--order", default="atc")
@click.option("--transport", default="auto")
@click.option("--repeats", default=9)
@click.option("--steps", default=20)
def main(model, batch, order, transport, repeats, steps):
    world = World.start()
    torch.set_num_threads(world.threads()[0])
    sides = {
        "averaging": trainer(world, model, batch, **{"algorithm.order": order, "transport.name": transport}),
        "no exchange": trainer(world, model, batch, **{"algorithm.name": "one-shot"}),
    }
    times = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            world.barrier()
            start = time.perf_counter()
            for _ in range(steps):
                side.step()
            world.barrier()
            if repeat:  # the first pass warms up
                times[name].append((time.perf_counter() - start) / steps)
    if world.rank == 0:
        for name, found in times.items():
            print(f"{name:12} {1e3 * statistics.median(found):7.2f} ms a step")
        ratios = [a / b for a, b in zip(times["averaging"], times["no exchange"], strict=True)]
        where = f"{world.size} ranks, {model}, {order}, {sides['averaging'].exchange.name}"
        print(f"averaging / no exchange, {where}, median of {repeats}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


main()
