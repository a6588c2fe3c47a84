"""The log of a run: every rank appends to its own HDF5 file, which are assembled into run.h5 and read by `Run`.

A rank's file is laid out by HDF5 once, with room for rows to come, and set aside until it is whole. Rows then go to
the datasets' places by pwrite and the number of valid rows last: HDF5's own structures never change under way,
so that a process killed at any instant, a full disk or a reader beside the writer find a sound file. Room that
runs out is doubled in a new file which takes the old one's place.

n vertices, m hosted vertices, K steps, E epochs.
"""

import json
import os
import re
import socket
import tomllib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from mpiconsensus.errors import TrainingError, UserError, did_you_mean

FORMAT, VERSION = "mpiconsensus log", 1
ROOM = {"steps": 1024, "epochs": 64, "network": 64, "closing": 1}
DENSE = 4096  # vertices up to which W is stored dense (compressed)


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
    Column("steps", "io_s", "<f8", "s", "loading and augmenting the batch"),
    Column("steps", "bytes_sent", "<i8", "B", "sent to neighbours over the edges of its rounds, wherever hosted"),
    Column("epochs", "epoch", "<i8", "1", "number of the epoch, from 1", False),
    Column("epochs", "step", "<i8", "1", "steps done at its end", False),
    Column("epochs", "train_loss", "<f8", "nats", "mean training loss over the epoch"),
    Column("epochs", "accuracy", "<f8", "1", "accuracy of the vertex's model; NaN where not evaluated"),
    Column("epochs", "test_loss", "<f8", "nats", "loss on the evaluated samples; NaN where not evaluated"),
    Column("epochs", "consensus_distance_vertex", "<f8", "1", "2-norm of x_i - x_bar"),
    Column("epochs", "compute_s", "<f8", "s", "forward, backward and optimizer"),
    Column("epochs", "wait_s", "<f8", "s", "waiting for neighbours"),
    Column("epochs", "mix_s", "<f8", "s", "mixing of rows"),
    Column("epochs", "io_s", "<f8", "s", "loading and augmenting batches"),
    Column("epochs", "bytes_sent", "<i8", "B", "sent to neighbours over the edges of its rounds, wherever hosted"),
    Column("epochs", "bytes_wire", "<i8", "B", "moved between ranks, divided evenly over the rank's vertices"),
    Column("epochs", "sample_bytes_sent", "<i8", "B", "training samples sent to other vertices"),
    Column("epochs", "samples", "<i8", "1", "samples trained on"),
    Column("network", "epoch", "<i8", "1", "number of the epoch, from 1", False),
    Column("network", "consensus_distance", "<f8", "1", "Frobenius norm of X - x_bar, divided by sqrt(n)", False),
    Column("network", "deviation_l1", "<f8", "1", "mean over vertices of the 1-norm of x_i - x_bar", False),
    Column("network", "deviation_l2", "<f8", "1", "mean over vertices of the 2-norm of x_i - x_bar", False),
    Column("network", "deviation_linf", "<f8", "1", "mean over vertices of the largest |x_i - x_bar|", False),
    Column("network", "coefficient_of_variation", "<f8", "1", "spread of the parameters relative to their mean", False),
    Column("network", "mean_drift", "<f8", "1", "2-norm by which the epoch's last mixing step moved x_bar", False),
    Column("network", "mean_accuracy", "<f8", "1", "accuracy of the mean model; NaN where not evaluated", False),
    Column("network", "mean_loss", "<f8", "nats", "loss of the mean model; NaN where not evaluated", False),
    Column("network", "seconds", "<f8", "s", "wall time since the start of training", False),
    Column("network", "samples_per_s", "<f8", "1/s", "samples trained on by all vertices a second of the epoch", False),
    Column("network", "evaluated_samples", "<i8", "1", "samples of the evaluation; 0 where not evaluated", False),
    Column("closing", "accuracy", "<f8", "1", "accuracy of the vertex's model on all closing samples"),
    Column("closing", "loss", "<f8", "nats", "loss of the vertex's model on all closing samples"),
    Column("closing", "mean_accuracy", "<f8", "1", "accuracy of the mean model", False),
    Column("closing", "mean_accuracy_recalibrated", "<f8", "1", "the same, batch norm recalibrated, or NaN", False),
    Column("closing", "best_epoch", "<i8", "1", "epoch of the best model, from 1", False),
    Column("closing", "samples", "<i8", "1", "samples of the closing evaluation", False),
    Column("closing", "split", "S16", "text", "the part of the data that was evaluated", False),
]
INDEX = [("steps", "step"), ("epochs", "epoch")]  # all ranks agree in these


def columns(group, network=True):
    """Return the Columns of `group` that a file holds; `network`: whether it is rank 0's."""
    alone = group in ("network", "closing")  # what is one number for the network is rank 0's there
    return [c for c in COLUMNS if c.group == group and (network or c.vertex or not alone)]


class RankLog:
    """The file that one rank appends to. Local: no message is sent.

    Rows written since the last `flush` are lost in a crash; all before it are kept, whole. A disk that refuses
    raises TrainingError; a file that is there already raises UserError. As a context manager it marks the log as
    ended when left without an exception.
    """

    def __init__(self, path, rank, vertices, network=False):
        self.path, self.rank, self.is_network = Path(path), rank, network
        self.vertices = np.asarray(vertices, "<i8")
        self._rows = dict.fromkeys(ROOM, 0)
        self._description = None
        self._fd, self._offset = None, {}
        self._valid = np.zeros(5, "<i8")  # as of the last flush
        if self.path.exists():
            raise UserError(f"log {str(self.path)!r} is there already; give the run another directory (log.name).")
        self._build(dict(ROOM))

    def describe(self, config_toml, facts, graph):
        """Store the resolved job, the facts of the run and the graph; rank 0, before the first step.

        `facts` is a dict that JSON can hold: versions, hosts, git, command, mpi, ranks, threads, started, model,
        parameters, data, algorithm. `graph` holds n, edges (E, 2), W (n, n) or None with triplets (rows, columns,
        weights), lambda2_modulus, spectral_gap, spec and weights (name).
        """
        self._description = (config_toml, json.dumps(facts), graph)
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

    def flush(self):
        """Make every row so far survive a crash of the process or the machine, and visible to readers."""
        try:
            _sync(self._fd)
            self._valid[:4] = list(self._rows.values())
            self._commit(self._fd, self._offset)
        except OSError as error:
            self._refuse(error)

    def close(self, ended=True):
        """Flush and close; `ended`: the run came to its end. A second call does nothing."""
        if self._fd is None:
            return
        self._valid[4] = ended
        try:
            self.flush()
        finally:
            os.close(self._fd)
            self._fd = None

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
                block = np.asarray(values[column.name])
                casting = "unsafe" if column.unit == "text" else "same_kind"  # no fraction is cut off unseen
                block = np.broadcast_to(block, self._shape(column, rows)).astype(column.dtype, "C", casting)
                _write(self._fd, block, self._offset[group, column.name] + start * self._bytes(column))
        except OSError as error:
            self._refuse(error)
        self._rows[group] = start + rows

    def _shape(self, column, rows):
        return (rows, len(self.vertices)) if column.vertex else (rows,)

    def _bytes(self, column):
        return np.dtype(column.dtype).itemsize * (len(self.vertices) if column.vertex else 1)

    def _build(self, room):
        """Lay out a file with room for so many rows, move the rows into it and put it in the old one's place."""
        aside, old, before = self.path.with_suffix(".h5.new"), self._fd, self._offset
        fd = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            offset = self._lay_out(aside, room)
            fd = os.open(aside, os.O_RDWR)
            for column in self._all() if old is not None else ():
                key, size = (column.group, column.name), self._rows[column.group] * self._bytes(column)
                _copy(old, before[key], fd, offset[key], size)
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
        with h5py.File(path, "w", locking=False, alignment_threshold=1, alignment_interval=64) as file:
            file.attrs.update(format=FORMAT, format_version=VERSION, rank=self.rank)
            _dataset(file, "vertices", self.vertices, "1", "vertices of the columns, in order")
            meaning = "valid rows of steps, epochs, network and closing; 1 where the run ended"
            offset["committed"] = _reserve(file, "committed", (5,), "<i8", "1", meaning)
            for column in self._all():
                shape = self._shape(column, room[column.group])
                offset[column.group, column.name] = _reserve(
                    file, f"{column.group}/{column.name}", shape, column.dtype, column.unit, column.meaning
                )
            if self._description:
                _describe(file, *self._description)
        return offset

    def _all(self):
        return [column for group in ROOM for column in columns(group, self.is_network)]

    def _commit(self, fd, offset):
        _write(fd, self._valid, offset["committed"])
        _sync(fd)

    def _refuse(self, error):
        raise TrainingError(
            f"the log {str(self.path)!r} cannot be written: {_reason(error)}; "
            "it is readable up to the last flush. Free space there, or set log.directory to another disk."
        ) from error


def _reason(error, otherwise="HDF5 refuses it"):
    """Return the system's words for an OSError in one line; h5py's run over several, with the number inside."""
    number = re.search(r"errno = (\d+)", str(error))
    number = int(number[1]) if number else error.errno
    return os.strerror(number) if number else otherwise


def _sync(fd):
    getattr(os, "fdatasync", os.fsync)(fd)


def _write(fd, block, offset):
    view = memoryview(block).cast("B") if block.size else b""
    while len(view):
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done


def _copy(source, start, target, offset, size, piece=1 << 20):
    for at in range(0, size, piece):
        _write(target, np.frombuffer(os.pread(source, min(piece, size - at), start + at), "u1"), offset + at)


def _label(dataset, unit, meaning):
    dataset.attrs.update(unit=unit, description=meaning)


def _dataset(file, name, values, unit, meaning, **options):
    _label(file.create_dataset(name, data=values, **options), unit, meaning)


def _reserve(file, name, shape, dtype, unit, meaning):
    """Create a contiguous dataset whose place in the file is fixed at once and left sparse; return the place."""
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = file.create_dataset(name, shape, dtype, dcpl=layout)
    _label(dataset, unit, meaning)
    return dataset.id.get_offset()


def _describe(file, config_toml, facts, graph):
    _dataset(file, "config/toml", config_toml, "text (TOML)", "the resolved job")
    _dataset(file, "config/facts", facts, "text (JSON)", "versions, hosts, command and figures of the run")
    group = file.create_group("graph")
    group.attrs.update({k: graph[k] for k in ("n", "lambda2_modulus", "spectral_gap", "spec", "weights")})
    _dataset(group, "edges", np.asarray(graph["edges"], "<i8").reshape(-1, 2), "1", "pairs of vertices")
    meaning = "mixing matrix, row = receiver"
    if graph["W"] is not None and graph["n"] <= DENSE:
        _dataset(group, "W", np.asarray(graph["W"], "<f8"), "1", meaning, compression="gzip")
        return
    triplets = graph["triplets"] if graph["W"] is None else _triplets(graph["W"])
    for name, values, dtype in zip(("rows", "columns", "weights"), triplets, ("<i8", "<i8", "<f8"), strict=True):
        _dataset(group, f"W_triplets/{name}", np.asarray(values, dtype), "1", f"{name} of the entries of the {meaning}")


def _triplets(W):
    rows, cols = np.nonzero(W)
    return rows, cols, W[rows, cols]


def assemble(run_dir):
    """Write RUN/run.h5 from RUN/log/ aside, put it in place and return its path.

    Ranks that were cut at different lengths are cut to the shortest; vertices whose file is missing have no column.
    Root attribute `complete`: 1 where every vertex is there and every rank came to its end.
    """
    run_dir = Path(run_dir)
    sources = _rank_files(run_dir)
    newest = _newest(sources)  # before reading: rows that come later make run.h5 stale
    target = run_dir / "run.h5"
    aside = run_dir / f"run.h5.{socket.gethostname()}-{os.getpid()}.new"
    try:
        with h5py.File(aside, "w", locking=False) as out:
            _merge(sources, out)
        os.utime(aside, ns=(newest, newest))
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def _rank_files(run_dir):
    return sorted((run_dir / "log").glob("rank-*.h5"))


def _newest(paths):
    return max(path.stat().st_mtime_ns for path in paths)


def _merge(paths, out):
    where = str(paths[0].parent)
    with ExitStack() as stack:
        files = [stack.enter_context(_open(path)) for path in paths]
        first = files[0]
        if "graph" not in first or "network" not in first:
            raise UserError(
                f"{where!r} lacks rank 0's file with the description of the run: the run ended "
                "before it began, or log/rank-0000.h5 was moved; put it back."
            )
        try:
            _merge_open(files, out, where)
        except (OSError, KeyError) as error:
            raise UserError(f"log {where!r} is damaged ({error}); move the damaged rank file away.") from None


def _merge_open(files, out, where):
    hosted = [file["vertices"][:] for file in files]
    vertices = np.sort(np.concatenate(hosted))
    if len(np.unique(vertices)) != len(vertices):
        raise UserError(f"log {where!r} holds a vertex twice: keep one run's files there.")
    committed = np.array([file["committed"][:] for file in files])
    rows = dict(zip(ROOM, committed.min(axis=0), strict=False))
    rows["network"] = rows["epochs"] = min(rows["epochs"], committed[0, 2])
    n = int(files[0]["graph"].attrs["n"])
    whole = len(vertices) == n and committed[:, 4].all() and (committed[:, [0, 1, 3]] == committed[0, [0, 1, 3]]).all()
    out.attrs.update(format=FORMAT, format_version=VERSION, complete=int(whole))
    for name in ("config", "graph"):
        files[0].copy(name, out)
    ranks = np.repeat([file.attrs["rank"] for file in files], [len(v) for v in hosted])
    _dataset(out, "vertices", vertices, "1", "vertices of the columns, in order")
    _dataset(out, "rank_of_vertex", ranks[np.argsort(np.concatenate(hosted))], "1", "rank that hosts the vertex")
    places = [np.searchsorted(vertices, v) for v in hosted]
    for column in COLUMNS:
        if column.group == "closing" and not rows["closing"]:
            continue
        name = f"{column.group}/{column.name}"
        cut = rows[column.group]
        if (column.group, column.name) in INDEX and any(
            not np.array_equal(file[name][:cut], files[0][name][:cut]) for file in files
        ):
            raise UserError(f"log {where!r}: the ranks count {column.group} differently; keep one run's files there.")
        if column.vertex:
            values = np.empty((cut, len(vertices)), column.dtype)
            for file, place in zip(files, places, strict=True):
                values[:, place] = file[name][:cut]
        else:
            values = files[0][name][:cut]
        _dataset(out, name, values[0] if column.group == "closing" else values, column.unit, column.meaning)


def _open(path):
    """Open an HDF5 file of this format for reading, or raise UserError."""
    anew = path.name == "run.h5" and _rank_files(path.parent)
    remedy = "delete it: it is made again from log/" if anew else "copy it again from its source, or move it away"
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        why = _reason(error, "truncated, or not HDF5")
        raise UserError(f"{str(path)!r} cannot be read: {why}; {remedy}.") from None
    form, version = file.attrs.get("format"), file.attrs.get("format_version", 0)
    if form == FORMAT and version == VERSION:
        return file
    file.close()
    if form != FORMAT:
        raise UserError(f"{str(path)!r} is HDF5 but not a log of a run; give a run directory or its run.h5.")
    raise UserError(
        f"{str(path)!r} has log format {version}, this program reads {VERSION}; "
        "install the version of mpiconsensus that wrote it, or a newer one."
    )


class Run:
    """Read access to one run: a run directory or a run.h5; log/ is assembled where run.h5 is missing or stale.

    Attributes: `config` (dict), `facts` (dict), `graph` (dict), `vertices` (n,), `rank_of_vertex` (n,),
    `closing` (dict, empty without a closing evaluation), `complete` (bool), `path`.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._file = _open_run(self.path)
        file = self._file
        self.complete = bool(file.attrs["complete"])
        self.config = tomllib.loads(file["config/toml"].asstr()[()])
        self.facts = json.loads(file["config/facts"].asstr()[()])
        self.vertices, self.rank_of_vertex = file["vertices"][:], file["rank_of_vertex"][:]
        self.graph = {k: v.item() if isinstance(v, np.generic) else v for k, v in file["graph"].attrs.items()}
        self.graph["edges"] = file["graph/edges"][:]
        self.graph["W"] = file["graph/W"][:] if "W" in file["graph"] else None
        if "W_triplets" in file["graph"]:
            self.graph["triplets"] = tuple(file[f"graph/W_triplets/{k}"][:] for k in ("rows", "columns", "weights"))
        self.closing = {k: _plain(v[()]) for k, v in file.get("closing", {}).items()}

    def steps(self, name):
        """Return a column of the steps: (K, n), or (K,) for `step`."""
        return self._column("steps", name)

    def epochs(self, name):
        """Return a column of the epochs: (E, n), or (E,) for `epoch` and `step`."""
        return self._column("epochs", name)

    def network(self, name):
        """Return a column of the network's numbers: (E,)."""
        return self._column("network", name)

    def close(self):
        """Close the file; the attributes stay."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()

    def _column(self, group, name):
        if name not in self._file[group]:
            known = [c.name for c in columns(group)]
            hint = did_you_mean(name, known)
            raise UserError(f"{group} has no column {name!r}; it has {', '.join(known)}.{hint}")
        return self._file[group][name][:]


def _plain(value):
    return value.decode() if isinstance(value, bytes) else value.item() if isinstance(value, np.generic) else value


def _open_run(path):
    if not path.exists():
        raise UserError(f"run {str(path)!r} does not exist; give a run directory, as made by `mpiconsensus train`.")
    if path.is_file() and path.name == "run.h5" and _rank_files(path.parent):
        path = path.parent
    if path.is_file():
        return _open(path)
    sources, made = _rank_files(path), path / "run.h5"
    if not sources and not made.exists():
        raise UserError(
            f"{str(path)!r} is not a run directory: it holds neither run.h5 nor log/rank-*.h5; "
            "give one made by `mpiconsensus train`."
        )
    if sources and (not made.exists() or made.stat().st_mtime_ns < _newest(sources)):
        try:
            assemble(path)
        except OSError:  # a directory that cannot be written is read all the same
            memory = h5py.File("run.h5 in memory", "w", driver="core", backing_store=False)
            _merge(sources, memory)
            return memory
    return _open(made)
