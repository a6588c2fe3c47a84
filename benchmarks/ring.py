"""A ring that averages at every step against the same processes training with no communication, in turn, in one run.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/ring.py [--model resnet20] [--batch 32] [--order atc] [--delay 1]

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
@click.option("--delay", default=0)
@click.option("--transport", default="auto")
@click.option("--repeats", default=9)
@click.option("--steps", default=20)
def main(model, batch, order, delay, transport, repeats, steps):
    world = World.start()
    torch.set_num_threads(world.threads()[0])
    keys = {"algorithm.order": order, "algorithm.delay": delay, "transport.name": transport}
    data, graph = source(model, world.size), f"ring:{world.size}"
    sides = {
        "averaging": step.trainer(world, data, model, batch, graph, **keys),
        "no exchange": step.apart(world, data, model, batch, graph),
    }
    times = timing.in_turn({name: side.step for name, side in sides.items()}, repeats, world, calls=steps)
    if world.rank == 0:
        for name, found in times.items():
            print(f"{name:12} {1e3 * statistics.median(found):7.2f} ms a step")
        ratio = timing.ratio(times["averaging"], times["no exchange"])
        where = f"{world.size} ranks, {model}, {order}{', delayed' * delay}, {sides['averaging'].exchange.name}"
        print(f"averaging / no exchange, {where}, median of {repeats}: {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})")


main()
