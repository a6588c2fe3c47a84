"""Many vertices in one process: serial, batched (streams on a GPU) and one model on the union of their batches, in turn.

    python benchmarks/concurrency.py [--model mlp] [--vertices 36] [--batch 16] [--threads 1] [--repeats 9]

Prints the median samples a second of each and the medians of the ratios. A step is batches, gradients and updates of all
vertices; nothing is exchanged. `union` is one vertex with the batches of all of them as its batch.
"""

import statistics
import time

import click
import torch

from mpiconsensus import config
from mpiconsensus.bench.synthetic import source
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire


def trainer(model, vertices, batch, **keys):
    values = {
        "topology.graph": f"ring:{vertices}", "model.name": model, "training.batch_size": batch, "training.lr": 0.01,
        "training.epochs": 10**6, "algorithm.name": "one-shot", **keys,
    }  # fmt: skip
    job, world = config.Job(values), World()
    return Trainer(job, world, wire(job.topology, world), source(model, vertices, max(512, batch)))


@click.command()
@click.option("--model", default="mlp")
@click.option("--vertices", default=36)
@click.option("--batch", default=16, help="Of a vertex.")
@click.option("--threads", default=1)
@click.option("--repeats", default=9)
@click.option("--seconds", default=0.5, help="The least time of a repeat of each.")
def main(model, vertices, batch, threads, repeats, seconds):
    torch.set_num_threads(threads)
    sides = {"serial": trainer(model, vertices, batch)}
    cuda = sides["serial"].device.type == "cuda"
    for way in ("streams", "batched") if cuda else ("batched",):
        sides[way] = trainer(model, vertices, batch, **{"training.concurrency": way})
    sides["union"] = trainer(model, 1, vertices * batch)

    def timed(side, steps):
        start = time.perf_counter()
        for _ in range(steps):
            side.step()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    steps = {name: max(3, round(seconds / timed(side, 3))) for name, side in sides.items()}  # warms up
    times = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            times[name].append(timed(side, steps[name]))
    where = f"{model}, {vertices} vertices of batch {batch}, {threads} threads, {sides['serial'].device}"
    print(f"{where}: median of {repeats}")
    for name, found in times.items():
        print(f"{name:8} {vertices * batch / statistics.median(found):10.0f} samples/s {1e3 * statistics.median(found):9.2f} ms a step")
    for name, base in [("serial", "batched"), ("batched", "union"), *([("serial", "streams")] if cuda else [])]:
        ratios = [a / b for a, b in zip(times[name], times[base], strict=True)]
        print(f"time of {name} / {base}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


main()
