"""Vertices a second under the virtual clock: logistic regression on mushrooms, many vertices, one core.

    python benchmarks/virtual.py [--vertices 1024] [--steps 100] [--algorithm bounded-staleness] [--graph regular:1024,4]

Prints the seconds of the steps, of the clock and of the processor, what they make for 1,000 steps of each vertex, and the most memory. One vertex in eight has a
quarter of the speed, a tenth of all gradients is slow, a row is under way for half a gradient.
"""

import resource
import time

import click
import torch

from mpiconsensus import config
from mpiconsensus.asynchronous.postal import Learner, Virtual
from mpiconsensus.asynchronous.trainer import AsyncTrainer
from mpiconsensus.asynchronous.virtual import VirtualEngine
from mpiconsensus.data.source import open_source
from mpiconsensus.placement import place
from mpiconsensus.runtime import World
from mpiconsensus.wiring import wire


class Counted(Learner):
    """Counts the calls for gradients."""

    calls = 0

    def gradients(self, pairs):
        self.calls += 1
        return super().gradients(pairs)


def made(graph, vertices, algorithm, concurrency):
    values = {
        "topology.graph": graph, "data.dataset": "mushrooms", "model.name": "logistic", "training.epochs": 10**6,
        "training.concurrency": concurrency, "algorithm.name": algorithm, "algorithm.staleness": float("inf"), "algorithm.max_age": 8,
        "hetero.speed": [0.25 if i % 8 == 0 else 1.0 for i in range(vertices)], "hetero.slowdown_probability": 0.1, "hetero.link_delay_s": 0.05,
    }  # fmt: skip
    job, world = config.Job(values), World()
    wiring = wire(job.topology, world)
    source = open_source(job.data, wiring.n, [], 1)
    return AsyncTrainer(job, world, wiring, source, place(job.placement.map, world, wiring), Virtual())


@click.command()
@click.option("--vertices", default=1024)
@click.option("--steps", default=100)
@click.option("--algorithm", default="bounded-staleness")
@click.option("--graph", default="", help="Default: a random regular graph of degree 4.")
@click.option("--concurrency", default="batched")
def main(vertices, steps, algorithm, graph, concurrency):
    torch.set_num_threads(1)
    start = time.perf_counter()
    trainer = made(graph or f"regular:{vertices},4", vertices, algorithm, concurrency)
    trainer.start()
    transport, learner, losses = trainer.postal.transport, Counted(trainer), []
    engine = VirtualEngine(
        trainer.algorithm, transport, learner, trainer.pace, steps, trainer.job.hetero.step_s, lambda step: losses.append(step.loss)
    )  # fmt: skip
    begun, cpu = time.perf_counter(), time.process_time()
    engine.run()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{algorithm}, {vertices} vertices of {trainer.wiring.spec}, {steps} steps each, gradients {concurrency}: {begun - start:.1f} s to start")
    print(f"{seconds:.1f} s ({cpu:.1f} s of the processor), {1e6 * cpu / (vertices * steps):.0f} us a step of a vertex, in {learner.calls} calls for gradients; {most:.2f} GB")
    print(f"modelled time {transport.virtual.now():.1f} s; mean loss of the first and last hundredth {head(losses):.3f} {head(losses[::-1]):.3f}")
    print(f"1,000 steps of each: {seconds * 1000 / steps:.0f} s ({cpu * 1000 / steps:.0f} s of the processor)")


def head(losses):
    count = max(1, len(losses) // 100)
    return sum(losses[:count]) / count


main()
