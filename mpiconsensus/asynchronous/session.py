"""An asynchronous run from its job to its directory: log, terminal, evaluation, models, checkpoints.

Vertices reach their epochs at times of their own: what is logged of an epoch is each vertex's own, and between start and
end nothing is collective but a meeting for a checkpoint, which a flag calls all ranks to.
"""

import time

import numpy as np

from mpiconsensus import mixing, signals
from mpiconsensus.asynchronous import keeping
from mpiconsensus.asynchronous.figures import Figures
from mpiconsensus.asynchronous.postal import Real, Virtual
from mpiconsensus.asynchronous.trainer import AsyncTrainer
from mpiconsensus.errors import Stopped, TrainingError
from mpiconsensus.run import Session

# Flags that all ranks share: end behind a checkpoint, meet for one, the first vertex is through. The signal that a rank
# was told lies above them.
STOP, MEET, FIRST, SIGNAL = 1, 2, 4, 8
LATE_S = 0.001  # between two looks whether all have come to the end
LOOK_S = 0.2  # between two looks at signals, flags and the clock


class AsyncSession(Session):
    """A run under way. figures: of the steps; scores: {epoch: (2, m)} of epochs that not all hosted vertices have ended."""

    postal = Real
    shares_mean = False

    @classmethod
    def trainer_of(cls, *words):
        return AsyncTrainer(*words, cls.postal())

    def _begin(self):
        trainer, m = self.trainer, len(self.trainer.hosted)
        self.figures = Figures(m, trainer.steps_per_epoch, trainer.total_steps)
        self.scores, self.network = {}, []
        # bytes that were told of in the log, and those of steps under way
        self.sent, self.sent_since = np.zeros((2, m), np.int64)
        self.looked, self.flags, self.before_s = 0.0, 0, 0.0

    def _restore(self, found):
        keeping.restore(self, found)

    def run(self):
        trainer = self.trainer
        trainer.start()
        # What is published to get here does not count: the initial rows, and those that are published anew.
        self.sent_before = self.sent + self.sent_since - trainer.postal.bytes_sent
        if self.job.algorithm.ends == "first" and max(trainer.t) >= trainer.total_steps:
            trainer.postal.raise_flag(FIRST)
        while True:
            trainer.postal.engine(trainer, self._step, self._beat, self._through).run()
            if self._gather():
                break
        self._end()
        self._close()

    def _gather(self):
        """Come together with the others, through or called to a meeting, and hold it; return whether all are through; collective."""
        arrived, looked = self.world.arrive(), 0.0
        while not arrived():
            self.trainer.postal.flags()  # moves on what others still wait for
            if time.perf_counter() - looked > LOOK_S:
                self._take_in()
                looked = time.perf_counter()
            time.sleep(LATE_S)
        told = self.world.allgather((all(self.trainer.ended), self.trainer.postal.flags()))
        self.flags = max(flags for _, flags in told)
        if all(ended for ended, _ in told):
            while self._take_in():  # everybody's last word is there
                pass
            self.world.barrier()
            return True
        self._meet()
        return False

    def _take_in(self):
        """Take in what has arrived at the hosted vertices; return whether there may be more."""
        more = [self.trainer.algorithm.drain(i) for i in range(len(self.trainer.hosted))]
        return any(more)

    def _end(self):
        """Log what the vertices are at the end, after one exact average where the job asks for it; collective."""
        trainer, world = self.trainer, self.world
        spread = trainer.spread()
        if self.job.algorithm.final_average:
            trainer.average()
        steps = max(world.allgather(max(self.figures.taken)))
        self._log_steps(steps)
        epochs = -(-steps // trainer.steps_per_epoch)
        for epoch in range(self.epoch + 1, epochs + 1):
            self._log_epoch(epoch)
        complete, recalibrated = self.evaluator.closing()
        self._keep_best(epochs, complete)
        mass = world.sum(np.array([sum(map(trainer.algorithm.weight, range(len(trainer.hosted))))]))[0] / trainer.placement.n
        self._log_closing(complete, recalibrated, spread, mass)
        if world.rank == 0:
            self.progress.ending(spread, mass)

    def _step(self, step):
        """Take in a step that a vertex has done; evaluate the vertex behind an epoch."""
        trainer, per_epoch = self.trainer, self.trainer.steps_per_epoch
        sent = int(trainer.postal.bytes_sent[step.i]) + self.sent_before[step.i]
        self.figures.add(step._replace(ended_s=self.before_s + step.ended_s), trainer.rate(step.t), sent - self.sent[step.i])
        self.sent[step.i] = sent
        t = step.t + 1
        if self.job.algorithm.ends == "first" and t == trainer.total_steps:
            trainer.postal.raise_flag(FIRST)
        if t % per_epoch == 0 or t == trainer.total_steps:
            epoch = -(-t // per_epoch)
            if epoch % self.plan.every == 0:
                trainer.algorithm.drain(step.i)  # what is evaluated is as new as it can be
                self.scores_of(epoch)[:, step.i] = self.evaluator.vertex(step.i, self.plan.samples)
            while min(self.figures.taken) >= min((self.epoch + 1) * per_epoch, trainer.total_steps) and self.epoch * per_epoch < trainer.total_steps:
                self._log_steps()
                self._log_epoch(self.epoch + 1)

    def scores_of(self, epoch):
        """Return (2, m): accuracy and loss of the vertices behind an epoch, NaN where not evaluated (yet)."""
        return self.scores.setdefault(epoch, np.full((2, len(self.trainer.hosted)), np.nan))

    def _log_steps(self, up_to=None):
        rows = self.figures.unlogged(up_to)
        if rows:
            self.log.steps(**rows)
            self.log.ages(self.figures.histogram())

    def _log_epoch(self, epoch):
        """Log an epoch that all hosted vertices have ended, or that the run has ended in. Local."""
        trainer, m = self.trainer, len(self.trainer.hosted)
        sums, taken, ended_s = self.figures.epoch(epoch - 1)
        accuracy, loss = self.scores.pop(epoch, np.full((2, m), np.nan))
        samples = taken * np.array([loader.batch_size for loader in trainer.loaders])
        distance = np.full(m, np.nan)
        if self.world.rank == 0:
            distance = self._log_network(epoch, sums, accuracy, loss, ended_s, samples)
        self.log.epoch(
            epoch=epoch, step=min(epoch * trainer.steps_per_epoch, trainer.total_steps), accuracy=accuracy, test_loss=loss,
            consensus_distance_vertex=distance, bytes_uncompressed=sums["bytes_sent"], bytes_wire=0, sample_bytes_sent=0, sample_bytes_wire=0, hidden_s=0.0, samples=samples, **sums,
        )  # fmt: skip
        self.figures.forget(epoch - 1)
        self.epoch, every = epoch, self.job.checkpoint.every_epochs
        if self.world.rank == 0 and every and epoch % every == 0 and epoch * trainer.steps_per_epoch < trainer.total_steps:
            trainer.postal.raise_flag(MEET)
            self.looked = 0.0

    def _log_network(self, epoch, sums, accuracy, loss, ended_s, samples):
        """Log and tell what rank 0 knows of the network behind an epoch of its vertices; return (m,) their distances."""
        trainer, nothing = self.trainer, float("nan")
        rows = trainer.postal.everyone(trainer)  # newest rows of all vertices, where they can be read without asking
        norms = np.full((trainer.placement.n, 3), np.nan)
        scores, evaluated, mean_norm = (nothing, nothing), epoch % self.plan.every == 0, nothing
        if rows is not None:
            mean = sum(row.double() for row in rows) / len(rows)
            norms = mixing.distances(rows, mean)
            mean_norm = float(mean.norm())
            if evaluated:
                scores = self.evaluator.mean_of(mean, self.plan.samples)
        distance = float(np.sqrt(np.square(norms[:, 1]).mean()))
        l1, l2, linf = norms.mean(axis=0)
        begun = self.network[-1] if self.network else 0.0
        # A vertex that ends the run behind the others may have ended the epoch before later than they this one.
        seconds = max(begun, float(ended_s.max()))
        rate = samples.sum() / (seconds - begun) if seconds > begun else nothing
        self.network.append(seconds)
        figures = dict(
            epoch=epoch, consensus_distance=distance, deviation_l1=l1, deviation_l2=l2, deviation_linf=linf,
            coefficient_of_variation=distance / max(mean_norm, 1e-300), mean_drift=nothing, mean_accuracy=scores[0], mean_loss=scores[1],
            seconds=seconds, samples_per_s=rate if self.world.size == 1 else nothing, evaluated_samples=0 if np.isnan([*accuracy, scores[0]]).all() else self.plan.samples,
        )  # fmt: skip
        self.log.network(**figures)
        accuracy = accuracy[~np.isnan(accuracy)]
        self.progress.epoch({
            **figures, "samples_per_s": rate, "loss": float(np.nanmean(sums["train_loss"])), "accuracy": float(accuracy.mean()) if len(accuracy) else nothing,
            "accuracy_sd": float(accuracy.std(ddof=1)) if len(accuracy) > 1 else nothing, "bytes_sent": sums["bytes_sent"].sum(),
        })  # fmt: skip
        return norms[trainer.hosted, 1]

    def _through(self):
        return bool(self.flags & FIRST)

    def _beat(self):
        """Look, now and then, at signals, flags and the clock; return whether to stop for a meeting."""
        now = time.perf_counter()
        if now - self.looked < LOOK_S:
            return bool(self.flags & (STOP | MEET))
        self.looked, postal = now, self.trainer.postal
        if self.told.number and postal.virtual:
            raise TrainingError(f"{signals.name(self.told.number)} received: a run by modelled time keeps no checkpoints and ends here.")
        if self.told.number and not self.flags & STOP:
            postal.raise_flag(STOP | SIGNAL * self.told.number)
        minutes = self.job.checkpoint.every_minutes
        if self.world.rank == 0 and minutes and now - self.saved > 60 * minutes:
            postal.raise_flag(MEET)
        self.flags = postal.flags()
        self.pace.beat(self._log_steps)
        return bool(self.flags & (STOP | MEET))

    def _meet(self):
        """Write a checkpoint together; end the run where a signal asked for it; collective."""
        number, k = self.flags // SIGNAL, min(self.world.allgather(self.trainer.k))
        why = self._save()
        if self.flags & STOP:
            where, at = self.directory / "checkpoint", f"step {k} of {self.trainer.total_steps}"
            name = signals.name(number)
            if why:
                raise TrainingError(f"{name} received at {at}, and no checkpoint could be written ({why}); the ones before are in {where}.")
            raise Stopped(
                f"{name} received: stopped at {at} of the slowest vertex, with a checkpoint in {where}; "
                f"`mpiconsensus train --resume {self.directory}` goes on."
            )
        self.trainer.postal.lower_flags(MEET)
        self.flags, self.looked = 0, time.perf_counter()

    def _taken(self):
        # A rank whose vertices have ended, or are slow, stands where it stood at the last meeting; others do not.
        return sum(self.world.allgather(sum(self.trainer.t)))

    def _write_checkpoint(self):
        keeping.save(self)


class VirtualSession(AsyncSession):
    """A run by modelled time, in one process; it keeps no checkpoints."""

    postal = Virtual
    shares_mean = True
