"""A run from its job to its directory: log, terminal, evaluation, models.

The directory is the interface: job.toml (resolved), run.h5, log/, model/, stdout.log.
"""

import platform
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata

import numpy as np
import torch

from mpiconsensus import __version__, evaluation, mixing, modelfiles, report
from mpiconsensus.data.partition import skew
from mpiconsensus.errors import TrainingError
from mpiconsensus.progress import Progress
from mpiconsensus.record import Record
from mpiconsensus.rundirectory import make_directory
from mpiconsensus.runlog import RankLog
from mpiconsensus.runread import assemble
from mpiconsensus.training import Trainer, model_name


class Interrupted(Exception):
    """A signal asked the run to end."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.number = number


def train(job, world, wiring, source, threads, out=None, placement=None):
    """Run the job to its end and return its directory; collective.

    Raise UserError before any work for what cannot be run, TrainingError for a run that cannot go on: the log is
    readable up to there.
    """
    torch.set_num_threads(threads)
    trainer = Trainer(job, world, wiring, source, placement)
    session = Session(trainer, make_directory(job, world, wiring, source, out), threads)
    _catch_signals()
    try:
        session.run()
    except (Interrupted, TrainingError, OSError) as error:
        session.keep_log()
        what = {
            Interrupted: f"{error} received at step {trainer.k}: the run ends here.",
            TrainingError: str(error),
        }.get(type(error), f"the disk refuses what step {trainer.k} wrote: {error}; free space there.")
        raise TrainingError(f"{what} The log up to here: `mpiconsensus report {session.directory}`.") from error
    except BaseException:
        session.keep_log()
        raise
    trainer.close()
    return session.directory


class Session:
    """One run under way: epochs, evaluation, log and terminal."""

    def __init__(self, trainer, directory, threads):
        self.trainer, self.world, self.job, self.directory = trainer, trainer.world, trainer.job, directory
        self.evaluator = evaluation.Evaluator(trainer)
        self.plan = self._plan()
        rank = self.world.rank
        self.log = RankLog(directory / "log" / f"rank-{rank:04d}.h5", rank, trainer.hosted, network=rank == 0)
        self.progress = Progress(directory) if rank == 0 else None
        if rank == 0:
            facts = self._facts(threads)
            self.log.describe(self.job.to_toml(), facts, _graph(trainer.wiring), _data(trainer.source))
            self.progress.header(facts, trainer.wiring, self.plan, trainer)
        self.best, self.record, self.wire_before = None, None, 0

    def _plan(self):
        trainer, job = self.trainer, self.job
        # Read ahead of the first step, so that a file that cannot be read ends the run before any work.
        size = len(self.evaluator.test[1])
        if self.evaluator.validating:
            size = max(self.world.allgather(max(len(shard.y) for shard in trainer.held_out)))
        batch = max(loader.batch_size for loader in trainer.loaders)
        batch = max(self.world.allgather(batch))
        return evaluation.plan(
            job.evaluation, size, trainer.placement.n, trainer.steps_per_epoch, batch, trainer.block.layout.count
        )

    def run(self):
        trainer, per_epoch = self.trainer, self.trainer.steps_per_epoch
        self.started = self.flushed = time.perf_counter()
        epochs = -(-trainer.total_steps // per_epoch)
        for epoch in range(1, epochs + 1):
            last = min(epoch * per_epoch, trainer.total_steps)
            record = self._steps(last)
            self._end_epoch(epoch, record, closing=epoch == epochs)
        self.log.close()
        self._write_models()
        self.world.barrier()
        if self.world.rank == 0:
            assemble(self.directory)
            self.progress.close(self.directory)

    def keep_log(self):
        """Log what was not logged yet and close the log of a run that cannot go on."""
        try:
            self._log_steps()
        finally:
            self.log.close(ended=False)

    def _log_steps(self):
        rows = self.record.unlogged() if self.record else {"step": ()}
        if len(rows["step"]):
            self.log.steps(**rows)

    def _steps(self, last):
        """Take the steps up to `last` and log them; return the epoch's sums."""
        trainer, m = self.trainer, len(self.trainer.hosted)
        watched = next((k for k in range(last - 1, trainer.k - 1, -1) if trainer.algorithm.rounds(k)), None)
        record = self.record = Record(m, trainer.k, last - trainer.k)
        trainer.stepper.drift = None
        while trainer.k < last:
            k = trainer.k
            if k == watched:
                trainer.stepper.watch_drift()
            losses, io_s, compute_s = trainer.step()
            record.add(losses, trainer.rate(k), io_s, compute_s, *trainer.stepper.take())
            if time.perf_counter() - self.flushed > self.job.log.flush_s:
                self._log_steps()
                self._flush()
        self._log_steps()
        record.seconds = time.perf_counter() - record.started
        return record

    def _flush(self):
        self.log.flush()
        self.flushed = time.perf_counter()

    def _end_epoch(self, epoch, record, closing):
        trainer, world, n = self.trainer, self.world, self.trainer.placement.n
        mean = trainer.stepper.mean_row()[: trainer.block.p].clone()
        distances = mixing.distances([trainer.block.parameters(i) for i in range(trainer.block.m)], mean)
        if not np.isfinite(distances).all():
            vertex = trainer.hosted[int(np.argmin(np.isfinite(distances).all(axis=1)))]
            raise TrainingError(f"the parameters of vertex {vertex} are not finite after step {trainer.k - 1}; lower training.lr.")
        scores, recalibrated, samples = None, float("nan"), 0
        if closing or epoch % self.plan.every == 0:
            scores, samples = self.evaluator.running(self.plan.samples), self.plan.samples
            # All epochs are compared on the same samples, the last one too.
            self._keep_best(epoch, scores)
        if closing:
            complete, recalibrated = self.evaluator.closing()
            if not self.evaluator.validating:
                scores, samples = complete, len(self.evaluator.test[1])
        sums = record.sums()
        wire = trainer.stepper.wire_bytes() - self.wire_before
        self.wire_before += wire
        nothing = np.full(trainer.block.m, np.nan)
        self.log.epoch(
            epoch=epoch, step=trainer.k, accuracy=scores.accuracy if scores else nothing, test_loss=scores.loss if scores else nothing,
            consensus_distance_vertex=distances[:, 1], bytes_wire=wire // trainer.block.m, sample_bytes_sent=0,
            samples=record.trained * np.array([loader.batch_size for loader in trainer.loaders]), **sums,
        )  # fmt: skip
        columns = [sums["train_loss"], nothing if scores is None else scores.accuracy, *distances.T, sums["bytes_sent"]]
        columns += [record.trained * [loader.batch_size for loader in trainer.loaders]]
        rows = trainer.placement.gather(world, np.stack(columns, axis=1))
        if closing:
            self._log_closing(complete, recalibrated)
        if world.rank == 0:
            loss, accuracy, l1, l2, linf, sent, trained = rows.T
            distance = float(np.sqrt(np.square(l2).sum() / n))
            figures = dict(
                epoch=epoch, consensus_distance=distance, deviation_l1=l1.mean(), deviation_l2=l2.mean(), deviation_linf=linf.mean(),
                coefficient_of_variation=distance / max(float(mean.double().norm()), 1e-300),
                mean_drift=float("nan") if trainer.stepper.drift is None else trainer.stepper.drift,
                mean_accuracy=scores.mean_accuracy if scores else float("nan"), mean_loss=scores.mean_loss if scores else float("nan"),
                seconds=time.perf_counter() - self.started, samples_per_s=trained.sum() / record.seconds, evaluated_samples=samples,
            )  # fmt: skip
            self.log.network(**figures)
            mean_accuracy, sd = report.mean_sd(accuracy)
            line = {"loss": np.nanmean(loss), "accuracy": mean_accuracy, "accuracy_sd": sd, "bytes_sent": sent.sum()}
            self.progress.epoch({**figures, **line})
        if time.perf_counter() - self.flushed > self.job.log.flush_s:
            self._flush()

    def _log_closing(self, scores, recalibrated):
        network = {}
        if self.world.rank == 0:
            network = dict(
                mean_accuracy=scores.mean_accuracy, mean_accuracy_recalibrated=recalibrated, best_epoch=self.best["epoch"],
                samples=len(self.evaluator.test[1]), split=b"test",
            )  # fmt: skip
        self.closing = scores
        self.log.closing(accuracy=scores.accuracy, loss=scores.loss, **network)

    def _keep_best(self, epoch, scores):
        """Keep the replicas of the epoch with the highest mean accuracy over the vertices; alike on every rank."""
        accuracies = self.trainer.placement.gather(self.world, scores.accuracy[:, None])
        accuracy = self.world.bcast(None if accuracies is None else float(accuracies.mean()))
        if self.best is None or accuracy > self.best["accuracy"]:
            states = self._states()
            if epoch * self.trainer.steps_per_epoch < self.trainer.total_steps:
                states = [{name: tensor.clone() for name, tensor in state.items()} for state in states]
            self.best = {"epoch": epoch, "accuracy": accuracy, "vertex": scores.accuracy.copy(), "states": states}
            mean = self.evaluator.mean_module()
            self.best["mean"] = {name: tensor.clone() for name, tensor in mean.state_dict().items()}

    def _states(self):
        return [module.state_dict() for module in self.trainer.block.modules]

    def _write_models(self):
        trainer, best = self.trainer, self.best
        last = {"epoch": -(-trainer.total_steps // trainer.steps_per_epoch), "vertex": self.closing.accuracy, "states": self._states()}
        last["mean"] = self.evaluator.mean_module().state_dict()
        for which, model, split in (("last", last, "test"), ("best", best, "validation" if self.evaluator.validating else "test")):
            facts, accuracy = self._model_facts(model["epoch"]), dict(zip(trainer.hosted, model["vertex"].tolist()))
            modelfiles.save_vertices(self.directory, which, dict(zip(trainer.hosted, model["states"])), facts, accuracy)
            everyone = self.world.gather(accuracy)
            if self.world.rank == 0:
                modelfiles.save_mean(self.directory, which, model["mean"], facts)
                together = {vertex: value for part in everyone for vertex, value in part.items()}
                modelfiles.save_index(self.directory, which, together, model["epoch"], split)

    def _model_facts(self, epoch):
        source, job = self.trainer.source, self.job
        return dict(
            model=model_name(job, source), shape=list(source.shape), classes=source.classes, norm=job.model.norm,
            hidden=job.model.hidden, dataset=source.name, mean=source.mean.tolist(), std=source.std.tolist(), scale=source.scale,
            class_names=list(source.class_names), epoch=epoch,
        )  # fmt: skip

    def _facts(self, threads):
        trainer, source = self.trainer, self.trainer.source
        return dict(
            mpiconsensus=__version__, python=platform.python_version(), torch=torch.__version__, numpy=np.__version__,
            h5py=metadata.version("h5py"), hosts=self.world.hosts, git=_git_commit(), command=shlex.join(sys.argv),
            mpi=_mpi_library(self.world), ranks=self.world.size, nodes=self.world.nodes, threads=threads,
            started=datetime.now(UTC).isoformat(timespec="seconds"), model=model_name(self.job, source),
            parameters=trainer.block.layout.count, data=source.name, train_samples=sum(source.sizes),
            algorithm=self.job.algorithm.name, transport=trainer.exchange.title, device=str(trainer.device),
            concurrency=trainer.concurrency.name, steps_per_epoch=trainer.steps_per_epoch,
        )  # fmt: skip


def _catch_signals():
    def end(number, frame):
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, signal.SIG_IGN)  # a second one would break off the closing of the log
        raise Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def _graph(wiring):
    w = wiring.matrix
    return dict(
        n=wiring.n, edges=wiring.edges, W=w, lambda2_modulus=wiring.second_modulus, spectral_gap=1.0 - wiring.second_modulus,
        spec=wiring.spec, weights=wiring.weights,
    )  # fmt: skip


def _data(source):
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
