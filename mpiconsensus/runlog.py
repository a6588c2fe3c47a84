"""The log of a run, written: every rank appends to its own HDF5 file; module runread assembles and reads them.

A rank's file is laid out by HDF5 once, with room for rows to come, and set aside until it is whole. Rows then go to
the datasets' places by pwrite and the number of valid rows last: HDF5's own structures never change under way,
so that a process killed at any instant, a full disk or a reader beside the writer find a sound file. Room that
runs out is doubled in a new file which takes the old one's place.

n vertices, m hosted vertices, K steps, E epochs.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpiconsensus.description import describe, store
from mpiconsensus.diskrows import copy, created, reserve, sync, told, write
from mpiconsensus.errors import TrainingError, UserError

FORMAT, VERSION = "mpiconsensus log", 1
AGES = 65  # bins of the ages of rows mixed: 0, 1, ... 63, and whatever is older
ROOM = {"steps": 1024, "epochs": 64, "network": 64, "closing": 1, "ages": AGES}


class Column(NamedTuple):
    """One dataset: `vertex` says whether a row holds one number a vertex or one for the network."""

    group: str
    name: str
    dtype: str
    unit: str
    meaning: str
    vertex: bool = True


COLUMNS = [
    Column("steps", "step", "<i8", "1", "number of the step, from 0", False),
    Column("steps", "loss", "<f8", "nats", "mean training loss of the batch; NaN where the vertex does not train"),
    Column("steps", "lr", "<f8", "1", "learning rate"),
    Column("steps", "compute_s", "<f8", "s", "forward, backward and optimizer"),
    Column("steps", "wait_s", "<f8", "s", "waiting for neighbours"),
    Column("steps", "mix_s", "<f8", "s", "mixing of rows"),
    Column("steps", "hidden_s", "<f8", "s", "rows on their way while something else was computed; with messages, an upper bound"),
    Column("steps", "io_s", "<f8", "s", "loading and augmenting the batch, and the exchange of samples"),
    Column("steps", "bytes_sent", "<i8", "B", "sent to neighbours over the edges of its rounds, wherever hosted"),
    Column("steps", "bits_formula", "<f8", "bit", "of the vertex's messages by the formulas of the literature, each once whatever its receivers; NaN where nothing is compressed"),
    Column("steps", "residual", "<f8", "1", "2-norm of what compression left out of the vertex's messages; NaN where nothing was compressed"),
    Column("steps", "age_mean", "<f8", "1", "mean age of the rows mixed, in own steps; NaN where none was or rounds are synchronous"),
    Column("steps", "age_max", "<f8", "1", "age of the oldest row mixed, in own steps; NaN likewise"),
    Column("steps", "ended_s", "<f8", "s", "when the step ended, since the start of training; modelled seconds under a virtual clock"),
    Column("steps", "gradient_norm", "<f8", "1", "2-norm of the mean over vertices of the gradients that they took, each at its own point, before clipping and weight decay; NaN where a vertex rests, and without log.gradient_norm", False),
    Column("epochs", "epoch", "<i8", "1", "number of the epoch, from 1", False),
    Column("epochs", "step", "<i8", "1", "steps done at its end", False),
    Column("epochs", "train_loss", "<f8", "nats", "mean training loss over the epoch"),
    Column("epochs", "accuracy", "<f8", "1", "accuracy of the vertex's model; NaN where not evaluated"),
    Column("epochs", "test_loss", "<f8", "nats", "loss on the evaluated samples; NaN where not evaluated"),
    Column("epochs", "consensus_distance_vertex", "<f8", "1", "2-norm of x_i - x_bar"),
    Column("epochs", "compute_s", "<f8", "s", "forward, backward and optimizer"),
    Column("epochs", "wait_s", "<f8", "s", "waiting for neighbours"),
    Column("epochs", "mix_s", "<f8", "s", "mixing of rows"),
    Column("epochs", "hidden_s", "<f8", "s", "rows on their way while something else was computed; with messages, an upper bound"),
    Column("epochs", "io_s", "<f8", "s", "loading and augmenting batches, and the exchange of samples"),
    Column("epochs", "bytes_sent", "<i8", "B", "sent to neighbours over the edges of its rounds, wherever hosted"),
    Column("epochs", "bytes_uncompressed", "<i8", "B", "what bytes_sent would be without compression"),
    Column("epochs", "bytes_wire", "<i8", "B", "moved between ranks, for measurements and evaluation too, divided evenly over the rank's vertices"),
    Column("epochs", "sample_bytes_sent", "<i8", "B", "training samples sent to other vertices, wherever hosted"),
    Column("epochs", "sample_bytes_wire", "<i8", "B", "training samples sent to vertices of other ranks"),
    Column("epochs", "samples", "<i8", "1", "samples trained on"),
    Column("network", "epoch", "<i8", "1", "number of the epoch, from 1", False),
    Column("network", "consensus_distance", "<f8", "1", "Frobenius norm of X - x_bar, divided by sqrt(n); asynchronous: of the newest rows that rank 0 can read, whatever their clocks", False),
    Column("network", "deviation_l1", "<f8", "1", "mean over vertices of the 1-norm of x_i - x_bar", False),
    Column("network", "deviation_l2", "<f8", "1", "mean over vertices of the 2-norm of x_i - x_bar", False),
    Column("network", "deviation_linf", "<f8", "1", "mean over vertices of the largest |x_i - x_bar|", False),
    Column("network", "coefficient_of_variation", "<f8", "1", "spread of the parameters relative to their mean", False),
    Column("network", "mean_drift", "<f8", "1", "2-norm by which the epoch's last mixing step moved x_bar", False),
    Column("network", "mean_accuracy", "<f8", "1", "accuracy of the mean model, asynchronous: of those rows; NaN where not evaluated", False),
    Column("network", "mean_loss", "<f8", "nats", "loss of the mean model; NaN where not evaluated", False),
    Column("network", "seconds", "<f8", "s", "wall time since the start of training", False),
    Column("network", "samples_per_s", "<f8", "1/s", "samples trained on by all vertices a second of the epoch", False),
    Column("network", "evaluated_samples", "<i8", "1", "samples of the evaluation; 0 where not evaluated", False),
    Column("closing", "accuracy", "<f8", "1", "accuracy of the vertex's model on all closing samples"),
    Column("closing", "loss", "<f8", "nats", "loss of the vertex's model on all closing samples"),
    Column("closing", "mean_accuracy", "<f8", "1", "accuracy of the mean model", False),
    Column("closing", "mean_accuracy_recalibrated", "<f8", "1", "the same, batch norm recalibrated, or NaN", False),
    Column("closing", "consensus_distance", "<f8", "1", "Frobenius norm of X - x_bar, divided by sqrt(n), behind the last step", False),
    Column("closing", "mass", "<f8", "1", "push-sum weight that the vertices hold at the end, divided by n: 1 where none was lost; else NaN", False),
    Column("closing", "best_epoch", "<i8", "1", "epoch of the best model, from 1", False),
    Column("closing", "samples", "<i8", "1", "samples of the closing evaluation", False),
    Column("closing", "split", "S16", "text", "the part of the data that was evaluated", False),
    Column("ages", "age", "<i8", "1", f"age of a row when it was mixed, in own steps; {AGES - 1}: that or older", False),
    Column("ages", "rows", "<i8", "1", "rows of that age that the vertex mixed"),
]
INDEX = [("steps", "step"), ("epochs", "epoch")]  # all ranks agree in these


def columns(group, network=True):
    """Return the Columns of `group` that a file holds; `network`: whether it is rank 0's."""
    alone = group in ("network", "closing")  # what is one number for the network is rank 0's there
    return [c for c in COLUMNS if c.group == group and (network or c.vertex or not alone)]


class RankLog:
    """The file that one rank appends to. Local: no message is sent.

    Rows written since the last `flush` may be lost in a crash; all before it are kept, whole. A live view sees them before.
    A disk that refuses raises TrainingError; a file that is there already raises UserError. As a context manager it marks the
    log as ended when left without an exception.
    """

    def __init__(self, path, rank, vertices, network=False):
        self.path, self.rank, self.is_network = Path(path), rank, network
        self.vertices = np.asarray(vertices, "<i8")
        self._rows = dict.fromkeys(ROOM, 0)
        self._description = None
        self._fd, self._offset = None, {}
        self._valid = np.zeros(5, "<i8")  # as of the last flush
        self._thread, self._behind = None, None
        if self.path.exists():
            raise UserError(f"log {str(self.path)!r} is there already; give the run another directory (log.name).")
        self._build(dict(ROOM))

    def describe(self, config_toml, facts, graph, data=None):
        """Store the resolved job, the facts of the run, the graph and the division of the data; rank 0, before the first step.

        `facts` is a dict that JSON can hold: versions, hosts, git, command, mpi, ranks, threads, started, model,
        parameters, data, algorithm. `graph` holds n, edges (E, 2), W (n, n) or None with triplets (rows, columns,
        weights), lambda2_modulus, spectral_gap, spec and weights (name), and may hold directed and changing. `data` holds partition (its spec), labels
        (n, classes) and skew (n,), both None where the shards do not say.
        """
        self._description = (config_toml, json.dumps(facts), graph, data)
        self._build(self._room)

    def steps(self, **values):
        """Append K steps: `step` (K,), every other column (K, m) or what broadcasts to it."""
        self._append("steps", len(values["step"]), values)

    def epoch(self, **values):
        """Append one epoch: `epoch` and `step` numbers, every other column (m,) or a number."""
        self._append("epochs", 1, values)

    def network(self, **values):
        """Append the network's numbers of one epoch; rank 0."""
        self._append("network", 1, values)

    def closing(self, **values):
        """Write the closing evaluation: `accuracy` and `loss` (m,); the network's numbers at rank 0."""
        self._rows["closing"] = 0
        self._append("closing", 1, values)

    def ages(self, rows):
        """Write the histogram of the ages of rows mixed so far, (AGES, m), in the place of the one before."""
        self._rows["ages"] = 0
        self._append("ages", AGES, {"age": np.arange(AGES), "rows": rows})

    def restore(self, rows):
        """Append the rows that runread.rows gave: {group: {column: values}}."""
        for group, values in rows.items():
            self._append(group, len(next(iter(values.values()))), values)

    def moved(self, path):
        """Go on under another path, which the file was given by a renaming."""
        self.path = Path(path)

    def flush(self, wait=True):
        """Make every row so far survive a crash of the process or the machine, and visible to readers.

        wait=False: in a thread, while the caller goes on; nothing where that of the last call is still at it. Its refusal is
        raised by the next call.
        """
        if not wait and self._behind and not self._behind.done():
            return
        self._settle()
        self._valid[:4] = list(self._rows.values())[:4]
        if not wait:
            self._thread = self._thread or ThreadPoolExecutor(1)
            self._behind = self._thread.submit(self._make_last)
            return
        try:
            self._make_last()
        except OSError as error:
            self._refuse(error)

    def _make_last(self):
        sync(self._fd)
        self._commit(self._fd, self._offset)

    def _settle(self):
        """Wait for the flush that is under way."""
        behind, self._behind = self._behind, None
        try:
            if behind:
                behind.result()
        except OSError as error:
            self._refuse(error)

    def close(self, ended=True):
        """Flush and close; `ended`: the run came to its end. A second call does nothing."""
        if self._fd is None:
            return
        try:
            self._settle()
            self._valid[4] = ended
            self.flush()
        finally:
            os.close(self._fd)
            self._fd = None
            if self._thread:
                self._thread.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close(ended=kind is None)

    def _append(self, group, rows, values):
        table = columns(group, self.is_network)
        names = [c.name for c in table]
        if set(values) != set(names):
            raise ValueError(f"{group} take exactly the columns {', '.join(names)}; given {', '.join(values)}")
        start = self._rows[group]
        if start + rows > self._room[group]:
            self._build({**self._room, group: max(2 * self._room[group], start + rows)})
        try:
            for column in table:
                block = np.empty(self._shape(column, rows), column.dtype)
                # no fraction is cut off unseen
                np.copyto(block, np.asarray(values[column.name]), "unsafe" if column.unit == "text" else "same_kind")
                write(self._fd, block, self._offset[group, column.name] + start * self._bytes(column))
            self._rows[group] = start + rows
            self._show(self._fd, self._offset)
        except OSError as error:
            self._rows[group] = start
            self._refuse(error)

    def _shape(self, column, rows):
        return (rows, len(self.vertices)) if column.vertex else (rows,)

    def _bytes(self, column):
        return np.dtype(column.dtype).itemsize * (len(self.vertices) if column.vertex else 1)

    def _build(self, room):
        """Lay out a file with room for so many rows, move the rows into it and put it in the old one's place."""
        self._settle()
        aside, old, before = self.path.with_suffix(".h5.new"), self._fd, self._offset
        fd = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            offset = self._lay_out(aside, room)
            fd = os.open(aside, os.O_RDWR)
            for column in self._all() if old is not None else ():
                key, size = (column.group, column.name), self._rows[column.group] * self._bytes(column)
                copy(old, before[key], fd, offset[key], size)
            self._show(fd, offset)
            self._commit(fd, offset)
            os.replace(aside, self.path)
            # only here: a refusal or a signal on the way leaves this log as it was
            self._fd, self._offset, self._room, fd = fd, offset, room, old
        except OSError as error:
            self._refuse(error)
        finally:
            with suppress(OSError):  # gone where all went well
                aside.unlink()
            if fd is not None:
                os.close(fd)

    def _lay_out(self, path, room):
        offset = {}
        # 64-byte alignment: the numbers of valid rows share one cache line and one disk sector
        with created(path, alignment_threshold=1, alignment_interval=64) as file:
            file.attrs.update(format=FORMAT, format_version=VERSION, rank=self.rank)
            store(file, "vertices", self.vertices, "1", "vertices of the columns, in order")
            meaning = "valid rows of steps, epochs, network and closing; 1 where the run ended"
            offset["committed"] = reserve(file, "committed", (5,), "<i8", "1", meaning)
            meaning = "rows of steps, epochs, network and closing in the file, flushed or not"
            offset["written"] = reserve(file, "written", (4,), "<i8", "1", meaning)
            for column in self._all():
                shape = self._shape(column, room[column.group])
                offset[column.group, column.name] = reserve(
                    file, f"{column.group}/{column.name}", shape, column.dtype, column.unit, column.meaning
                )
            if self._description:
                describe(file, *self._description)
        return offset

    def _all(self):
        return [column for group in ROOM for column in columns(group, self.is_network)]

    def _show(self, fd, offset):
        write(fd, np.array(list(self._rows.values()), "<i8"), offset["written"])

    def _commit(self, fd, offset):
        write(fd, self._valid, offset["committed"])
        sync(fd)

    def _refuse(self, error):
        raise TrainingError(
            f"the log {str(self.path)!r} cannot be written: {told(error)}; "
            "it is readable up to the last flush. Free space there, or set log.directory to another disk."
        ) from error
