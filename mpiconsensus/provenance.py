"""What a log and a model file tell of how they came about: program and machine, graph, data, model."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata

import numpy as np
import torch

from mpiconsensus import __version__
from mpiconsensus.data.partition import skew
from mpiconsensus.data.stream import shard_bytes
from mpiconsensus.training import model_name


def run(trainer, threads, found=None):
    """Return the facts of a run for its log and its head; found: the Checkpoint that it goes on from. Local, after the start."""
    source, world, job = trainer.source, trainer.world, trainer.job
    now, before = datetime.now(UTC).isoformat(timespec="seconds"), found.content if found else {"resumed": []}
    resumed = before["resumed"] + ([{"step": before["step"], "at": now, "ranks": world.size}] if found else [])
    return dict(
        mpiconsensus=__version__, python=platform.python_version(), torch=torch.__version__, numpy=np.__version__,
        h5py=metadata.version("h5py"), hosts=world.hosts, git=_git_commit(), command=shlex.join(sys.argv),
        mpi=_mpi_library(world), ranks=world.size, nodes=world.nodes, threads=threads,
        started=before.get("started", now), resumed=resumed, model=model_name(job, source),
        parameters=trainer.block.layout.count, data=source.name, train_samples=sum(source.sizes),
        algorithm=job.algorithm.name, asynchronous=trainer.algorithm.asynchronous, transport=trainer.transport, device=str(trainer.device),
        sample_bytes=shard_bytes(1, source.sample_bytes), samples_stored=trainer.samples.stored(source.sizes),
        concurrency=trainer.concurrency.name, steps_per_epoch=trainer.steps_per_epoch,
    )  # fmt: skip


def model(trainer, epoch):
    """Return the facts that a model file needs to be used without its run."""
    source, job = trainer.source, trainer.job
    return dict(
        model=model_name(job, source), shape=list(source.shape), classes=source.classes, norm=job.model.norm,
        hidden=job.model.hidden, dataset=source.name, mean=source.mean.tolist(), std=source.std.tolist(), scale=source.scale,
        class_names=list(source.class_names), epoch=epoch,
    )  # fmt: skip


def graph(wiring):
    """Return the graph of a run as its log holds it."""
    return dict(
        n=wiring.n, edges=wiring.edges, W=wiring.matrix, lambda2_modulus=wiring.second_modulus,
        spectral_gap=1.0 - wiring.second_modulus, spec=wiring.spec, weights=wiring.weights, directed=wiring.directed,
        changing=wiring.changing is not None,
    )  # fmt: skip


def data(source):
    """Return how the data of a run are divided, as its log holds it."""
    counted = source.labels is not None
    return dict(partition=source.partition, labels=source.labels, skew=skew(source.labels) if counted else None)


def _mpi_library(world):
    if world.comm is None:
        return "none (one process)"
    from mpiconsensus.runtime import mpi

    return mpi().Get_library_version().split("\n")[0].split(", package")[0].strip().rstrip("\x00")


def _git_commit():
    """Return the commit of the working directory's repository, '' where there is none."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""
