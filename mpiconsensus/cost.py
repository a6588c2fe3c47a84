"""What a job costs, before it is run: parameters, bytes a round, memory a rank."""

import click
import torch

from mpiconsensus import models, optim
from mpiconsensus.algorithms import Setting, make
from mpiconsensus.algorithms.base import train_every
from mpiconsensus.block import Layout, row_length
from mpiconsensus.schedule import MEAN
from mpiconsensus.training import DTYPES, model_name

# What a process holds before it has a model: the interpreter, torch, MPI and HDF5.
BASE_BYTES = 270e6
MOST_STEPS = 5000  # steps over which the rounds are averaged, at most


def show(job, world, wiring, source, placement):
    """Print the resolved job and its cost; rank 0 alone speaks. Collective only in that every rank may call it."""
    if world.rank != 0:
        return
    click.echo(job.to_toml())
    for name, value in estimate(job, wiring, source, placement).items():
        click.echo(f"# {name:32} {value}")


def estimate(job, wiring, source, placement):
    """Return {what: text} for the job on the given Placement and with one vertex a rank."""
    name = model_name(job, source)
    module = models.build(name, source.shape, source.classes, norm=job.model.norm, hidden=tuple(job.model.hidden))
    layout = Layout(module.to(DTYPES[job.training.precision]), buffers=job.model.buffers == "mixed")
    states = len(optim.state_names(job.training.optimizer, job.training.momentum))
    mixed = states if job.training.momentum_policy == "mixed" else 0
    row = row_length(layout, mixed) * layout.dtype.itemsize
    steps = _total_steps(job, source, wiring.n)
    counted = min(steps, MOST_STEPS)
    setting = Setting.of(wiring, job.algorithm, job.hetero.powers, job.training.seed, counted)
    algorithm = make(setting)
    if algorithm.asynchronous:
        per_step = algorithm.bytes_of_step(row // layout.dtype.itemsize, layout.dtype)
    else:
        per_step = sum(_bytes_of_step(algorithm, k, wiring.n, row, layout) for k in range(counted)) / counted
    sample = torch.Size(source.shape).numel() * (1 if len(source.shape) == 3 else 4)
    facts = {
        "graph": f"{wiring.spec}: {wiring.n} vertices, {len(wiring.edges)} {wiring.links}, |lambda_2| = {wiring.second_modulus:.4f}",
        "placement": placement.describe(wiring.edges, wiring.links),
        "data": f"{source.name}: {sum(source.sizes)} samples, {min(source.sizes)} to {max(source.sizes)} a vertex",
        "model": f"{name}: {layout.count:,} parameters, a row of {_told(row)}",
        "sent a step by all vertices": f"{_told(per_step)} (average over {counted} steps; the run has about {steps:,})",
    }
    for ranks in sorted({placement.ranks, wiring.n}):
        m = -(-wiring.n // ranks)
        share = layout.p * layout.dtype.itemsize
        memory = BASE_BYTES + m * (algorithm.depth * row + share * (1 + states - mixed) + max(source.sizes) * (sample + 16))
        most = f"{m} vertices each" if m > 1 else "one vertex each"
        facts[f"memory a rank, {ranks} rank{'s' * (ranks > 1)}"] = f"{_told(memory)} ({most}; activations not counted)"
    return facts


def _total_steps(job, source, n):
    periods = train_every(job.algorithm.train_every, job.hetero.powers, n)
    sizes = [max(1, round(size * (1 - job.evaluation.validation_fraction))) for size in source.sizes]
    epoch = max(q * max(1, size // job.training.batch_size) for q, size in zip(periods, sizes, strict=True))
    return min(epoch * job.training.epochs, job.training.max_steps or epoch * job.training.epochs)


def _bytes_of_step(algorithm, k, n, row, layout):
    if algorithm.asynchronous:
        needs = algorithm.needs(row // layout.dtype.itemsize, layout.dtype)
        rows = 2 * n if needs.kind == "pairs" else sum(map(len, algorithm.readers.values()))
        return rows * needs.d * needs.dtype.itemsize
    ring = 2 * (n - 1)
    sent = ring * layout.p * layout.dtype.itemsize if algorithm.averages_gradients else 0
    for round_ in algorithm.rounds(k):
        sent += ring * row if round_ is MEAN else int(round_.out_degree.sum()) * row
    return sent


def _told(size):
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.3g} {unit}" if unit != "B" else f"{size:.0f} B"
        size /= 1000
