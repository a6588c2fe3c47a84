"""What the exchange of samples costs an epoch: partial shuffling against none, in turn, in one run.

    mpirun -n 8 --oversubscribe --bind-to none python benchmarks/shuffle.py [--model digits-cnn] [--batch 16] [--samples 2048]
        [--fraction 0.1] [--repeats 9]

A vertex a rank, at least 8, on a ring. A pass is a whole epoch, with its plan and with what arrived put in its place.
Prints the seconds of an epoch, the bytes that a vertex sends in it, and the ratio, whose limit is 1.05 for Q = 0.1.
"""

import statistics

import click
import torch

from mpiconsensus.bench import step, timing
from mpiconsensus.bench.synthetic import source
from mpiconsensus.runtime import World


@click.command()
@click.option("--model", default="digits-cnn")
@click.option("--batch", default=16)
@click.option("--samples", default=2048, help="of a vertex")
@click.option("--fraction", default=0.1)
@click.option("--repeats", default=9)
def main(model, batch, samples, fraction, repeats):
    torch.set_num_threads(1)
    world = World.start()
    n = max(8, world.size)
    data = source(model, n, samples)
    keys = {"data.shuffle": "partial", "data.exchange_fraction": fraction}
    trainers = {
        "local": step.trainer(world, data, model, batch, f"ring:{n}"),
        "partial": step.trainer(world, data, model, batch, f"ring:{n}", **keys),
    }

    def epoch(trainer):
        for _ in range(trainer.steps_per_epoch):
            trainer.step()

    times = timing.in_turn({name: lambda t=trainer: epoch(t) for name, trainer in trainers.items()}, repeats, world, 1)
    sent, _ = trainers["partial"].samples.take()
    if world.rank == 0:
        ratio, plain = timing.ratio(times["partial"], times["local"]), statistics.median(times["local"])
        print(f"{model}, {n} vertices on {world.size} ranks, {trainers['local'].steps_per_epoch} steps of batch {batch} an epoch, median of {repeats}")
        print(f"local: {plain:.3f} s an epoch; Q = {fraction:g}: {sent[0] / (repeats + 1) / 1e3:.3g} kB of samples a vertex and epoch")
        print(f"with the exchange / without: {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})")
    for trainer in trainers.values():
        trainer.close()


main()
