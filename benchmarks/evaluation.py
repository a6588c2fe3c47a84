"""What the evaluations within a run cost, next to its training.

    python benchmarks/evaluation.py [--model resnet20] [--vertices 4] [--epochs 12]

Prints seconds of training, of the evaluations that the default plan makes, and their ratio; one process, one thread.
"""

import time

import click
import torch

from mpiconsensus import config, evaluation
from mpiconsensus.bench.synthetic import source
from mpiconsensus.runtime import World
from mpiconsensus.training import Trainer
from mpiconsensus.wiring import wire


@click.command()
@click.option("--model", default="resnet20")
@click.option("--vertices", default=4)
@click.option("--batch", default=16)
@click.option("--each", default=512, help="Training samples a vertex; the test set has as many.")
@click.option("--epochs", default=12)
def main(model, vertices, batch, each, epochs):
    torch.set_num_threads(1)
    keys = {"topology.graph": f"ring:{vertices}", "model.name": model, "training.batch_size": batch, "training.lr": 0.01}
    job, world = config.Job({**keys, "training.epochs": epochs}), World()
    trainer = Trainer(job, world, wire(job.topology, world), source(model, vertices, each))
    evaluator = evaluation.Evaluator(trainer)
    plan = evaluation.plan(job.evaluation, each, vertices, trainer.steps_per_epoch, batch, trainer.block.layout.count)
    trainer.step(), evaluator.running(64)  # warm up
    spent = {"training": 0.0, "evaluation": 0.0}
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        for _ in range(trainer.steps_per_epoch):
            trainer.step()
        trained = time.perf_counter()
        if epoch % plan.every == 0:
            evaluator.running(plan.samples)
        spent["training"] += trained - start
        spent["evaluation"] += time.perf_counter() - trained
    share = spent["evaluation"] / spent["training"]
    print(f"{model}, {vertices} vertices, {plan.samples} samples every {plan.every} epochs: training {spent['training']:.1f} s, ", end="")
    print(f"evaluation {spent['evaluation']:.1f} s, {share:.3f} of it")


main()
