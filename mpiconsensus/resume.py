"""`train --resume`: which run is gone on with, from which checkpoint, and whether it is the same job."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from mpiconsensus import checkpoint, config, rundirectory
from mpiconsensus.errors import UserError
from mpiconsensus.wiring import Wiring, wire

# What may differ from the run as it was started: where and for how long it runs. The numbers do not depend on it.
FREE = ("training.epochs", "training.max_steps", "training.threads", "training.device", "transport.name", "data.shards")
FREE_TABLES = ("placement", "checkpoint", "log")
LENGTH = ("training.epochs", "training.max_steps")
AGAIN = "give the value that it was started with, or train anew in another directory"


class Start(NamedTuple):
    """How a run begins. directory: of the run that is gone on with, or None; found: the Checkpoint to go on from, or None.

    damaged: names of checkpoints that are not whole. finished: there is nothing left to do.
    """

    job: config.Job
    directory: Path | None = None
    found: checkpoint.Checkpoint | None = None
    damaged: tuple = ()
    finished: bool = False

    def wiring(self, world):
        """Return the Wiring of the checkpoint: W is saved, never solved again; collective.

        A graph that changes is made again from its spec and seed; UserError where it is another one.
        """
        saved = world.bcast(self.found.common()["wiring"] if world.rank == 0 else None)
        if not saved.pop("changing"):
            return Wiring(**saved)
        made = wire(SimpleNamespace(graph=saved["spec"], weights=saved["weights"], seed=self.job.topology.seed), world)
        if not np.array_equal(made.matrix, saved["matrix"]):
            raise UserError(f"topology.graph = {saved['spec']!r} is not what run {str(self.directory)!r} was started with: its files have changed.")
        return made


def begin(world, path, overrides, out, word):
    """Return the Start that `--resume word` asks for: a run directory, or "auto"; collective.

    path, overrides: job file and --set; where a directory is named they default to the run's own job. auto goes on with
    the run in the directory that --out or log.name names; where there is none, or one that ended ahead of its first
    checkpoint, it starts afresh. Raise UserError, with nothing touched, where that cannot be.
    """
    job, directory, state = world.bcast(world.agree(_look, path, overrides, out, word) if world.rank == 0 else world.agree(lambda: None))
    if state != "stopped":
        return Start(job, directory if state == "finished" else None, finished=state == "finished")
    found, damaged = checkpoint.choose(directory, world)
    world.agree(_check, job, found.content, found.path)
    if damaged and world.rank == 0:
        for name, wrong in damaged:
            print(f"warning: checkpoint {name} is not whole: {wrong}; going back to {found.path.name}.", file=sys.stderr, flush=True)
    return Start(job, directory, found, tuple(name for name, _ in damaged))


def fingerprint(job, source):
    """Return a text that tells data apart: of shards their manifest with its checksums, wherever they lie."""
    facts = [source.name, source.sizes, list(source.shape), source.mean.tolist(), source.std.tolist(), source.augment]
    manifest = (Path(job.data.shards) / "manifest.json").read_bytes() if job.data.shards else b""
    return hashlib.sha256(json.dumps(facts).encode() + manifest).hexdigest()


def check_data(start, job, source):
    """Raise UserError unless the data are those that the run was started with."""
    if start.found.content["data"] != fingerprint(job, source):
        given = f"data.shards = {job.data.shards!r}" if job.data.shards else f"data.dataset = {job.data.dataset}"
        raise UserError(f"{given} holds other data than run {str(start.directory)!r} was started with; give those.")


def _look(path, overrides, out, word):
    """Return (job, directory, "new", "stopped" or "finished")."""
    auto = word == "auto"
    if auto:
        job = config.load(path, overrides)
        directory = rundirectory.named(job, out)
        if directory is None:
            raise UserError("--resume auto needs the name of the run: give --out DIR, or --set log.name=NAME.")
        if not directory.exists():
            return job, directory, "new"
    else:
        if out is not None:
            raise UserError(f"--resume {word} goes on in that directory; leave --out away.")
        directory = Path(word)
    stored = _stored(directory)
    if auto and stored is None and directory.is_dir() and rundirectory.barely_begun(directory):
        rundirectory.hold(directory)
        shutil.rmtree(directory)
        return job, directory, "new"
    if stored is None:
        raise UserError(f"{str(directory)!r} is not a run directory: it holds no job.toml; give one made by `mpiconsensus train`.")
    if not auto:
        job = config.load(path if path is not None else directory / "job.toml", overrides)
    compare(stored, job, directory)
    rundirectory.hold(directory)
    ended = rundirectory.finished(directory)
    if ended and all(job.get(name) == stored.get(name) for name in LENGTH):
        return job, directory, "finished"
    if checkpoint.names(directory):
        return job, directory, "stopped"
    if ended or not auto:
        raise UserError(f"run {str(directory)!r} holds no checkpoint to go on from; train anew in another directory (--out DIR).")
    aside = rundirectory.move_aside(directory)
    print(f"{directory} ended ahead of its first checkpoint and is kept as {aside}; starting afresh.", file=sys.stderr, flush=True)
    return job, directory, "new"


def _stored(directory):
    """Return the Job of a run directory, or None where it holds none."""
    path = directory / "job.toml"
    return config.load(path) if path.is_file() else None


def compare(stored, job, where):
    """Raise UserError that names the first key in which the jobs may not differ."""
    for key in config.KEYS:
        old, new = stored.get(key.name), job.get(key.name)
        if old != new and key.name not in FREE and key.name.partition(".")[0] not in FREE_TABLES:
            raise UserError(
                f"{key.name} = {config.toml_value(new)}, but run {str(where)!r} was started with {config.toml_value(old)}; {AGAIN}."
            )


def _check(job, content, path):
    """Raise UserError unless the job can go on from a checkpoint: the same job, and longer than what is done."""
    stored = config.loads(content["job"], str(path / "manifest.json"))
    compare(stored, job, path)
    total = length(job, content["steps_per_epoch"])
    if total == length(stored, content["steps_per_epoch"]):
        return
    changed = next(name for name in LENGTH if job.get(name) != stored.get(name))
    told = f"{changed} = {job.get(changed)}, but the run was started with {stored.get(changed)}"
    if job.training.decay == "cosine" or job.algorithm.name == "one-shot":
        what = "training.decay = cosine" if job.training.decay == "cosine" else "algorithm.name = one-shot"
        raise UserError(f"{told}; the steps behind depend on it with {what}: {AGAIN}.")
    if total <= content["step"]:
        raise UserError(f"{told}, and {content['step']} steps are done; give more than these.")


def length(job, steps_per_epoch):
    """Return the steps of a job."""
    steps = steps_per_epoch * job.training.epochs
    return min(steps, job.training.max_steps) if job.training.max_steps else steps
