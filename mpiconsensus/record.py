"""The figures of the steps of one epoch on one rank, until they are logged."""

import time

import numpy as np


class Record:
    """The steps of one epoch on one rank: columns of (K, m), kept until they are logged."""

    NAMES = ("loss", "io_s", "compute_s", "wait_s", "mix_s", "hidden_s", "bytes_sent", "bits_formula", "residual", "ended_s")

    def __init__(self, m, first, steps):
        self.m, self.first, self.taken, self.logged = m, first, 0, 0
        self.columns = {name: np.zeros((steps, m)) for name in self.NAMES}
        self.rates = np.zeros((steps, 1))
        self.gradient_norms = np.full(steps, np.nan)
        self.started = time.perf_counter()
        self.seconds = 0.0

    @classmethod
    def resumed(cls, rows, first, steps, seconds):
        """Return the record of an epoch whose first steps are logged: `rows` {column: (K, m)}, taken in `seconds`."""
        taken, m = rows["loss"].shape
        record = cls(m, first, steps)
        for name, column in record.columns.items():
            column[:taken] = rows[name]
        record.rates[:taken] = rows["lr"][:, :1]
        record.gradient_norms[:taken] = rows["gradient_norm"]
        record.taken = record.logged = taken
        record.started -= seconds
        return record

    def add(self, loss, rate, io_s, compute_s, wait_s, mix_s, hidden_s, bytes_sent, bits_formula, residual, ended_s, gradient_norm=np.nan):
        # A rank's waiting and mixing are shared out evenly among the vertices that it hosts.
        shared = wait_s / self.m, mix_s / self.m, hidden_s / self.m
        for name, value in zip(self.NAMES, (loss, io_s, compute_s, *shared, bytes_sent, bits_formula, residual, ended_s), strict=True):
            self.columns[name][self.taken] = value
        self.rates[self.taken], self.gradient_norms[self.taken] = rate, gradient_norm
        self.taken += 1

    def unlogged(self):
        """Return the columns of the steps that were not handed out yet."""
        part = slice(self.logged, self.taken)
        self.logged = self.taken
        rows = {name: column[part] for name, column in self.columns.items()}
        rows["bytes_sent"] = rows["bytes_sent"].astype(np.int64)
        aged = {"age_mean": np.nan, "age_max": np.nan}  # rows are of their round
        network = {"step": np.arange(part.start, part.stop) + self.first, "gradient_norm": self.gradient_norms[part]}
        return {**network, "lr": self.rates[part], **aged, **rows}

    @property
    def trained(self):
        """(m,) gradients taken by each vertex."""
        return np.isfinite(self.columns["loss"]).sum(axis=0)

    def sums(self):
        """Return the epoch's columns: sums a vertex, and the mean of the losses (NaN where it did not train)."""
        sums = {name: self.columns[name].sum(axis=0) for name in ("io_s", "compute_s", "wait_s", "mix_s", "hidden_s")}
        losses = np.where(np.isfinite(self.columns["loss"]), self.columns["loss"], 0.0).sum(axis=0)
        with np.errstate(invalid="ignore"):
            sums["train_loss"] = losses / np.where(self.trained > 0, self.trained, np.nan)
        sums["bytes_sent"] = self.columns["bytes_sent"].sum(axis=0).astype(np.int64)
        return sums
