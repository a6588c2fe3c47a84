"""The figures of the steps of a rank's vertices, each at a step of its own, until all have taken a step and it is logged."""

import numpy as np

from mpiconsensus.runlog import AGES

COLUMNS = ("loss", "lr", "io_s", "compute_s", "wait_s", "mix_s", "age_mean", "age_max", "ended_s", "bytes_sent")
SUMS = ("io_s", "compute_s", "wait_s", "mix_s")


class Figures:
    """Columns (per_epoch, m) of every epoch that a vertex has begun and not all have ended, and the ages of rows mixed.

    taken: steps of each hosted vertex. logged: steps that were handed out. ages: {age: (m,) rows mixed}.
    """

    def __init__(self, m, per_epoch, total):
        self.m, self.per_epoch, self.total = m, per_epoch, total
        self.taken, self.logged = [0] * m, 0
        self.ages = {}
        self._epochs = {}

    def add(self, step, lr, bytes_sent):
        """Take in a Step, its learning rate and the bytes that its vertex sent."""
        columns = self._columns(step.t // self.per_epoch)
        ages = step.ages
        told = (
            step.loss, lr, step.io_s, step.compute_s, step.wait_s, step.mix_s, sum(ages) / len(ages) if ages else np.nan,
            max(ages) if ages else np.nan, step.ended_s, bytes_sent,
        )  # fmt: skip
        for name, value in zip(COLUMNS, told, strict=True):
            columns[name][step.t % self.per_epoch, step.i] = value
        for age in ages:
            self.ages.setdefault(int(age), np.zeros(self.m, np.int64))[step.i] += 1
        self.taken[step.i] = step.t + 1

    def unlogged(self, up_to=None):
        """Return the columns of the steps that all have taken and that were not handed out yet, for RankLog.steps; None if there are none.

        up_to: hand out so many steps, those that a vertex did not take as empty ones (loss NaN).
        """
        last = min(self.taken) if up_to is None else up_to
        if last <= self.logged:
            return None
        parts = []
        while self.logged < last:
            epoch, first = divmod(self.logged, self.per_epoch)
            end = min(self.per_epoch, first + last - self.logged)
            parts.append({name: column[first:end].copy() for name, column in self._columns(epoch).items()})
            self.logged += end - first
        rows = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
        rows["bytes_sent"] = rows["bytes_sent"].astype(np.int64)
        nothing = {"hidden_s": 0.0, "gradient_norm": np.nan, "bits_formula": np.nan, "residual": np.nan}
        return {"step": np.arange(last - len(rows["loss"]), last), **nothing, **rows}

    def epoch(self, number):
        """Return the sums of an epoch, from 0, as Record.sums does; and (m,) steps taken in it and (m,) when it ended, in seconds."""
        columns = self._columns(number)
        sums = {name: np.nansum(columns[name], axis=0) for name in SUMS}
        trained = np.isfinite(columns["loss"]).sum(axis=0)
        with np.errstate(invalid="ignore"):
            sums["train_loss"] = np.nansum(columns["loss"], axis=0) / np.where(trained > 0, trained, np.nan)
        sums["bytes_sent"] = columns["bytes_sent"].sum(axis=0).astype(np.int64)
        return sums, trained, np.nanmax(np.vstack([columns["ended_s"], np.zeros(self.m)]), axis=0)

    def ahead(self, i):
        """Return {column: values} of the steps of hosted vertex i that were not handed out yet."""
        steps = range(self.logged, self.taken[i])
        return {name: np.array([self._columns(t // self.per_epoch)[name][t % self.per_epoch, i] for t in steps]) for name in COLUMNS}

    def resume(self, low, columns):
        """Begin with `low` steps of every vertex, which are in the log; columns: {name: (low, m)} of them."""
        self.taken, self.logged = [low] * self.m, low
        first = low // self.per_epoch * self.per_epoch
        for name, values in columns.items():
            if low > first:
                self._columns(low // self.per_epoch)[name][: low - first] = values[first:]

    def put(self, i, low, columns):
        """Take in the steps of hosted vertex i from `low` on."""
        for k, t in enumerate(range(low, low + len(columns["loss"]))):
            for name in COLUMNS:
                self._columns(t // self.per_epoch)[name][t % self.per_epoch, i] = columns[name][k]
            self.taken[i] = t + 1

    def histogram(self):
        """Return (AGES, m) int64: rows mixed at each age, for RankLog.ages."""
        counts = np.zeros((AGES, self.m), np.int64)
        for age, rows in self.ages.items():
            counts[min(age, AGES - 1)] += rows
        return counts

    def forget(self, number):
        """Drop the columns of an epoch whose steps were logged."""
        self._epochs.pop(number, None)

    def _columns(self, epoch):
        if epoch not in self._epochs:
            steps = min(self.per_epoch, self.total - epoch * self.per_epoch)
            empty = {"loss": np.nan, "age_mean": np.nan, "age_max": np.nan, "ended_s": np.nan}
            self._epochs[epoch] = {name: np.full((steps, self.m), empty.get(name, 0.0)) for name in COLUMNS}
        return self._epochs[epoch]
