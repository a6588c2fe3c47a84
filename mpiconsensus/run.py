"""A run from its job to its directory: log, terminal, evaluation, models, checkpoints.

The directory is the interface: job.toml (resolved), run.h5, log/, checkpoint/, model/, stdout.log.
"""

import time
from contextlib import suppress

import numpy as np
import torch

from mpiconsensus import checkpoint, evaluation, mixing, modelfiles, process, provenance, report, resume, rundirectory, saving, signals
from mpiconsensus.assembly import Assembly
from mpiconsensus.errors import Stopped, TrainingError
from mpiconsensus.logpace import LogPace
from mpiconsensus.merging import assemble
from mpiconsensus.progress import Progress
from mpiconsensus.pulse import Pulse
from mpiconsensus.record import Record
from mpiconsensus.runlog import AGES, RankLog
from mpiconsensus.training import Trainer


def train(job, world, wiring, source, threads, out=None, placement=None, start=None, told=None, kind=None):
    """Run the job to its end and return its directory; collective.

    start: a resume.Start, where a run is gone on with. told: the signals.Signals that were caught so far. kind: the class of
    the session, Session where none is given.
    Raise UserError before any work for what cannot be run, TrainingError for a run that cannot go on: the log is
    readable up to there; Stopped behind the checkpoint that a signal asked for.
    """
    torch.set_num_threads(threads)
    found, told = start and start.found, told or signals.Signals()
    kind = kind or Session
    trainer = kind.trainer_of(job, world, wiring, source, placement)
    if found:
        directory = start.directory
        world.agree(lambda: _prepare(start, job, source) if world.rank == 0 else None)
    else:
        directory = rundirectory.make_directory(job, world, wiring, source, out)
    if world.rank == 0:
        process.sign(directory)
    session = kind(trainer, directory, threads, told, found)
    told.catch(signals.USER + signals.END)
    try:
        session.run()
    except Stopped:
        session.keep_log()
        world.barrier()
        if world.rank == 0:
            assemble(directory)
        trainer.close()
        raise
    except (TrainingError, OSError) as error:
        with suppress(TrainingError):  # a disk that refuses does so again
            session.keep_log()
        what = str(error)
        if isinstance(error, OSError):
            what = f"the disk refuses what step {trainer.k} wrote: {error}; free space there."
        raise TrainingError(f"{what} The log up to here: `mpiconsensus report {directory}`.") from error
    except BaseException:
        with suppress(TrainingError):
            session.keep_log()
        raise
    trainer.close()
    return directory


def _prepare(start, job, source):
    resume.check_data(start, job, source)
    rundirectory.mend(start.directory)
    checkpoint.set_aside(start.directory, start.damaged)


class Session:
    """One run under way: epochs, evaluation, log, terminal and checkpoints. found: the Checkpoint that it goes on from.

    epoch: epochs done. record: the steps of the epoch under way, None between two. best: the best replicas so far.
    """

    def __init__(self, trainer, directory, threads, told, found=None):
        self.trainer, self.world, self.job, self.directory = trainer, trainer.world, trainer.job, directory
        self.evaluator = evaluation.Evaluator(trainer)
        self.plan = self._plan()
        self.best, self.record, self.wire_before, self.epoch, self.told = None, None, 0, 0, told
        rank = self.world.rank
        path = f"rank-{rank:04d}.h5"
        self.log = RankLog(directory / ("log.new" if found else "log") / path, rank, trainer.hosted, network=rank == 0)
        self.progress = Progress(directory, bool(found)) if rank == 0 else None
        self.facts = provenance.run(trainer, threads, found)
        if rank == 0:
            self.log.describe(self.job.to_toml(), self.facts, provenance.graph(trainer.wiring), provenance.data(trainer.source))
        self.log.ages(np.zeros((AGES, len(trainer.hosted)), np.int64))
        self.started = time.perf_counter()
        self._begin()
        if found:
            self._restore(found)
            self.log.flush()
            self.world.barrier()
            self.world.agree(lambda: rundirectory.go_on(directory, self.job) if rank == 0 else None)
            self.log.moved(directory / "log" / path)
        if rank == 0:
            self.progress.header(self.facts, trainer.wiring, self.plan, trainer, found)
        self.pace = LogPace(self.log, self.job.log.flush_s, Assembly(directory) if rank == 0 else None)
        self.saved = time.perf_counter()
        self.saved_step = self._taken() if found else None

    shares_mean = True  # whether the ranks share the evaluations of the mean model; else one does them alone

    @classmethod
    def trainer_of(cls, *words):
        """Return the trainer that such a session drives; the words of Trainer; collective."""
        return Trainer(*words)

    def _begin(self):
        self.pulse = Pulse(self.world, self._wish)

    def _restore(self, found):
        saving.restore(self, self.directory, found)

    def _plan(self):
        trainer, job = self.trainer, self.job
        # Read ahead of the first step, so that a file that cannot be read ends the run before any work.
        size = len(self.evaluator.test[1])
        if self.evaluator.validating:
            size = max(self.world.allgather(max(len(shard.y) for shard in trainer.held_out)))
        batch = max(loader.batch_size for loader in trainer.loaders)
        batch = max(self.world.allgather(batch))
        return evaluation.plan(
            job.evaluation, size, trainer.placement.n if self.shares_mean else 1, trainer.steps_per_epoch, batch, trainer.block.layout.count
        )

    def run(self):
        trainer, per_epoch = self.trainer, self.trainer.steps_per_epoch
        epochs, every = -(-trainer.total_steps // per_epoch), self.job.checkpoint.every_epochs
        for epoch in range(self.epoch + 1, epochs + 1):
            last = min(epoch * per_epoch, trainer.total_steps)
            record = self._steps(last)
            if epoch == epochs:
                trainer.stepper.settle()
            self._end_epoch(epoch, record, closing=epoch == epochs)
            self.epoch, self.record = epoch, None
            if every and epoch % every == 0 and epoch < epochs:
                self._save()
        self.pulse.close()
        self._close()

    def _close(self):
        """End the log, write the models and say the last word."""
        self.pace.close()
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
            self.pace.close(ended=False)

    def _log_steps(self):
        rows = self.record.unlogged() if self.record else {"step": ()}
        if len(rows["step"]):
            self.log.steps(**rows)

    def _steps(self, last):
        """Take the steps up to `last` and log them; return the epoch's sums."""
        trainer, first = self.trainer, self.epoch * self.trainer.steps_per_epoch
        watched = next((k for k in range(last - 1, first - 1, -1) if trainer.algorithm.rounds(k)), None)
        if self.record is None:
            self.record = Record(len(trainer.hosted), first, last - first)
            trainer.stepper.drift = None
        record = self.record
        while trainer.k < last:
            k = trainer.k
            if k == watched:
                trainer.stepper.watch_drift()
            losses, io_s, compute_s = trainer.step()
            ended_s = time.perf_counter() - self.started
            record.add(losses, trainer.rate(k), io_s, compute_s, *trainer.stepper.take(), ended_s, trainer.gradient_norm)
            self.pace.beat(self._log_steps)
            self._beat()
        self._log_steps()
        record.seconds = time.perf_counter() - record.started
        return record

    def _wish(self):
        """Return what this rank wants all to do: the signal that it was told, and 1 where rank 0's clock says to save."""
        minutes = self.job.checkpoint.every_minutes
        due = self.world.rank == 0 and minutes and time.perf_counter() - self.saved > 60 * minutes
        return self.told.number, int(due)

    def _beat(self):
        number, save = self.pulse.beat(self.trainer.k)
        if not number:
            if save:
                self._save()
            return
        where, k = self.directory / "checkpoint", f"step {self.trainer.k} of {self.trainer.total_steps}"
        if why := self._save():
            raise TrainingError(f"{signals.name(number)} received at {k}, and no checkpoint could be written ({why}); the ones before are in {where}.")
        raise Stopped(
            f"{signals.name(number)} received: stopped at {k}, with a checkpoint in {where}; "
            f"`mpiconsensus train --resume {self.directory}` goes on."
        )

    def _save(self):
        """Write a checkpoint, unless it is there; return why that failed, or ""; collective. A periodic one may fail: training goes on."""
        why = ""
        if (taken := self._taken()) != self.saved_step:
            self._log_steps()
            self.pace.flush()
            try:
                self._write_checkpoint()
                self.saved_step = taken
            except checkpoint.Unwritten as error:
                why = str(error)
                if self.progress:
                    self.progress.warn(f"the checkpoint of step {self.trainer.k} could not be written: {why}; those before it are kept.")
        self.saved = time.perf_counter()
        return why

    def _taken(self):
        """Return what tells one checkpoint from the next, the same on every rank; collective."""
        return self.trainer.k

    def _write_checkpoint(self):
        saving.save(self, self.directory)

    def _end_epoch(self, epoch, record, closing):
        trainer, world, n = self.trainer, self.world, self.trainer.placement.n
        mean = trainer.mean_row()[: trainer.block.p].clone()
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
        sample_bytes, sample_wire = trainer.samples.take()
        self.log.epoch(
            epoch=epoch, step=trainer.k, accuracy=scores.accuracy if scores else nothing, test_loss=scores.loss if scores else nothing,
            consensus_distance_vertex=distances[:, 1], bytes_uncompressed=trainer.stepper.uncompressed(record.taken, sums["bytes_sent"]),
            bytes_wire=wire // trainer.block.m, sample_bytes_sent=sample_bytes,
            sample_bytes_wire=sample_wire,
            samples=record.trained * np.array([loader.batch_size for loader in trainer.loaders]), **sums,
        )  # fmt: skip
        columns = [sums["train_loss"], nothing if scores is None else scores.accuracy, *distances.T, sums["bytes_sent"]]
        columns += [record.trained * [loader.batch_size for loader in trainer.loaders]]
        rows = trainer.placement.gather(world, np.stack(columns, axis=1))
        distance = float("nan") if rows is None else float(np.sqrt(np.square(rows[:, 3]).sum() / n))
        if closing:
            self._log_closing(complete, recalibrated, distance)
        if world.rank == 0:
            loss, accuracy, l1, l2, linf, sent, trained = rows.T
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
        self.pace.beat(self._log_steps)

    def _log_closing(self, scores, recalibrated, distance, mass=float("nan")):
        network = {}
        if self.world.rank == 0:
            network = dict(
                mean_accuracy=scores.mean_accuracy, mean_accuracy_recalibrated=recalibrated, best_epoch=self.best["epoch"],
                consensus_distance=distance, mass=mass, samples=len(self.evaluator.test[1]), split=b"test",
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
            facts, accuracy = provenance.model(trainer, model["epoch"]), dict(zip(trainer.hosted, model["vertex"].tolist()))
            modelfiles.save_vertices(self.directory, which, dict(zip(trainer.hosted, model["states"])), facts, accuracy)
            everyone = self.world.gather(accuracy)
            if self.world.rank == 0:
                modelfiles.save_mean(self.directory, which, model["mean"], facts)
                together = {vertex: value for part in everyone for vertex, value in part.items()}
                modelfiles.save_index(self.directory, which, together, model["epoch"], split)
