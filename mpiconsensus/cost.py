"""What a job costs, before it is run: parameters, bytes a round, memory a rank."""

import click
import numpy as np
import torch

from mpiconsensus import formula, models, optim
from mpiconsensus.algorithms import Setting, make, training_periods
from mpiconsensus.arithmetic import DTYPES
from mpiconsensus.block import Layout, row_length
from mpiconsensus.compressing import expected
from mpiconsensus.data import loading
from mpiconsensus.data.shuffle import open_shuffling
from mpiconsensus.schedule import MEAN
from mpiconsensus.training import model_name

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
    layout, states, mixed, row = _layout(job, source)
    if job.training.start:
        formula.values("training.start", job.training.start, layout.count)
    steps = _total_steps(job, source, wiring.n)
    algorithm, per_step, counted = _traffic(job, source, wiring, layout, row)
    compressed = _compressed(job, algorithm, layout)
    sample = torch.Size(source.shape).numel() * (1 if len(source.shape) == 3 else 4)
    shuffling = open_shuffling(job, source, wiring)
    moved, stored = _samples_moved(shuffling), np.array(source.sizes) + (0 if shuffling is None else shuffling.offered)
    facts = {
        "graph": f"{wiring.spec}: {wiring.n} vertices, {len(wiring.edges)} {wiring.links}, |lambda_2| = {wiring.second_modulus:.4f}",
        "placement": placement.describe(wiring.edges, wiring.links),
        "data": f"{source.name}: {sum(source.sizes)} samples, {min(source.sizes)} to {max(source.sizes)} a vertex",
        "samples sent an epoch": f"{moved} to other vertices, {_told(moved * (sample + 16))} (data.shuffle = {job.data.shuffle})",
        "samples stored": f"{max(stored)} a vertex at most, {_told(max(stored) * (sample + 16))}",
        "loading": loading.describe(job, source),
        "model": f"{name}: {layout.count:,} parameters, a row of {_told(row)}",
        "sent a step by all vertices": f"{_told(per_step)} (average over {counted} steps; the run has about {steps:,})",
        **compressed,
    }
    for ranks in sorted({placement.ranks, wiring.n}):
        m = -(-wiring.n // ranks)
        share = layout.p * layout.dtype.itemsize
        samples = max(stored) * (sample + 16) if shuffling else loading.resident_bytes(job, source)
        memory = BASE_BYTES + m * (algorithm.depth * row + share * (1 + states - mixed) + samples)
        if algorithm.compressed:
            memory += (m * len(algorithm.own) + len(algorithm.common)) * share
        most = f"{m} vertices each" if m > 1 else "one vertex each"
        facts[f"memory a rank, {ranks} rank{'s' * (ranks > 1)}"] = f"{_told(memory)} ({most}; activations not counted)"
    return facts


def totals(job, wiring, source):
    """Return {steps, samples (gradients of all vertices), bytes_sent (by all vertices, of mixing)} of the job as a whole."""
    layout, _, _, row = _layout(job, source)
    steps = _total_steps(job, source, wiring.n)
    _, per_step, _ = _traffic(job, source, wiring, layout, row)
    periods = training_periods(job, wiring.n)
    batches = [min(job.training.batch_size, size) for size in _sizes(job, source)]
    samples = sum(-(-steps // q) * batch for q, batch in zip(periods, batches, strict=True))
    return {"steps": steps, "samples": samples, "bytes_sent": round(per_step * steps)}


def _layout(job, source):
    """Return (Layout, states of the optimizer, those that are mixed, bytes of a row)."""
    module = models.build(model_name(job, source), source.shape, source.classes, norm=job.model.norm, hidden=tuple(job.model.hidden))
    layout = Layout(module.to(DTYPES[job.training.precision]), buffers=job.model.buffers == "mixed")
    states = len(optim.state_names(job.training.optimizer, job.training.momentum))
    mixed = states if job.training.momentum_policy == "mixed" else 0
    return layout, states, mixed, row_length(layout, mixed) * layout.dtype.itemsize


def _traffic(job, source, wiring, layout, row):
    """Return (algorithm, bytes that all vertices send a step, averaged over the first so many steps, so many)."""
    counted = min(_total_steps(job, source, wiring.n), MOST_STEPS)
    algorithm = make(Setting.of(wiring, job.algorithm, job.hetero.powers, job.training.seed, counted, job.compression))
    if algorithm.compressed:
        return algorithm, expected(algorithm, layout, job.compression)["sent"], counted
    return algorithm, sum(_bytes_of_step(algorithm, k, wiring.n, row, layout) for k in range(counted)) / counted, counted


WAYS = {
    "sum": "all draw the same support, and its values are summed",
    "gather": "gathered by all",
    "dense": "summed as they are decoded: gathering the messages would move more",
    "neighbours": "to the neighbours",
}


def _compressed(job, algorithm, layout):
    """Return what is told of compression: {} where there is none."""
    if not algorithm.compressed:
        return {}
    found = expected(algorithm, layout, job.compression)
    codec, ratio = found["codec"], found["sent"] / found["uncompressed"]
    told = f"{job.compression.operator} ({job.compression.scope}): {codec.bits / codec.count:.3g} bits a number by formula; {WAYS[found['way']]}"
    much = f"{1 / ratio:.3g} times less than uncompressed" if ratio < 1 else f"{ratio:.3g} times as much as uncompressed"
    if found["way"] == "dense":
        much += f"; gathered it would be {found['gathered'] / found['uncompressed']:.3g} times as much"
    return {"compression": told, "sent, compared": f"{much}; the messages' own length is logged as bytes_sent"}


def _sizes(job, source):
    return [max(1, round(size * (1 - job.evaluation.validation_fraction))) for size in source.sizes]


def _samples_moved(shuffling):
    """Return the samples that change vertices behind the first epoch; later epochs differ by the draw alone."""
    if shuffling is None:
        return 0
    return int(np.count_nonzero(shuffling.vertex_of[shuffling.arrivals(0)] != shuffling.vertex_of))


def _total_steps(job, source, n):
    periods = training_periods(job, n)
    epoch = max(q * max(1, size // job.training.batch_size) for q, size in zip(periods, _sizes(job, source), strict=True))
    return min(epoch * job.training.epochs, job.training.max_steps or epoch * job.training.epochs)


def _bytes_of_step(algorithm, k, n, row, layout):
    if algorithm.asynchronous:
        return algorithm.bytes_of_step(row // layout.dtype.itemsize, layout.dtype)
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
