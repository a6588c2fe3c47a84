"""A ring that averages at every step against the same processes training with no communication, in turn, in one run.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/ring.py [--model resnet20] [--batch 32] [--order atc]

Prints the median time of a step of each (from a barrier to the last rank's end) and the median of the ratios.
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
@click.option("--order", default="atc")
@click.option("--transport", default="auto")
@click.option("--repeats", default=9)
@click.option("--steps", default=20)
def main(model, batch, order, transport, repeats, steps):
    world = World.start()
    torch.set_num_threads(world.threads()[0])
    data, graph = source(model, world.size), f"ring:{world.size}"
    sides = {
        "averaging": step.trainer(world, data, model, batch, graph, **{"algorithm.order": order, "transport.name": transport}),
        "no exchange": step.apart(world, data, model, batch, graph),
    }
    times = timing.in_turn({name: side.step for name, side in sides.items()}, repeats, world, calls=steps)
    if world.rank == 0:
        for name, found in times.items():
            print(f"{name:12} {1e3 * statistics.median(found):7.2f} ms a step")
        ratio = timing.ratio(times["averaging"], times["no exchange"])
        where = f"{world.size} ranks, {model}, {order}, {sides['averaging'].exchange.name}"
        print(f"averaging / no exchange, {where}, median of {repeats}: {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})")


main()
