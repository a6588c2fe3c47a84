"""The log of a run, read: rank files are assembled into run.h5, and `Run` gives access to it.

n vertices, K steps, E epochs.
"""

import json
import os
import socket
import tomllib
from pathlib import Path

import h5py
import numpy as np

from mpiconsensus import runlog
from mpiconsensus.description import store
from mpiconsensus.errors import UserError, did_you_mean


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


def rows(run_dir, world, vertices, counts):
    """Return {group: {column: values}} of the first counts[group] rows of RUN/log, columns in order of `vertices`; collective.

    `vertices` are those that this rank hosts, wherever they were hosted when the rows were written; the network's
    numbers come on rank 0. UserError where the log is damaged or shorter.
    """
    whose = world.bcast(world.agree(_whose, run_dir) if world.rank == 0 else world.agree(lambda: None))
    return world.agree(_rows, whose, run_dir, list(vertices), counts, world.rank == 0)


def _whose(run_dir):
    """Return {name of a rank's file: its vertices}, rank 0's first."""
    whose = {}
    for path in _rank_files(Path(run_dir)):
        with _open(path) as file:
            whose[path.name] = file["vertices"][:].tolist()
    return whose


def _rows(whose, run_dir, vertices, counts, network):
    place, found = {vertex: i for i, vertex in enumerate(vertices)}, {}
    lost = set(vertices) - {vertex for hosted in whose.values() for vertex in hosted}
    if lost:
        raise UserError(f"the log of {str(run_dir)!r} has no file for vertex {min(lost)}; put back what was moved from its log/.")
    for number, (name, hosted) in enumerate(whose.items()):
        own = [(j, place[vertex]) for j, vertex in enumerate(hosted) if vertex in place]
        alone = network and number == 0
        if not own and not alone:
            continue
        path = Path(run_dir) / "log" / name
        try:
            with _open(path) as file:
                if (file["committed"][:3] < [counts["steps"], counts["epochs"], counts["network"] if alone else 0]).any():
                    raise UserError(f"{str(path)!r} ends ahead of the checkpoint; put back the file that was there.")
                for group in counts:
                    for column in runlog.columns(group, alone):
                        _take(file, column, counts[group], own, len(vertices), found)
        except (OSError, KeyError) as error:
            raise UserError(f"{str(path)!r} is damaged ({error}); the run cannot go on without it.") from None
    return found


def _take(file, column, count, own, m, found):
    """Copy the first `count` rows of a column of one file to where its vertices belong in `found`."""
    values = file[column.group][column.name][:count]
    columns = found.setdefault(column.group, {})
    if not column.vertex:
        columns.setdefault(column.name, values)
        return
    target = columns.setdefault(column.name, np.zeros((count, m), column.dtype))
    for source, at in own:
        target[:, at] = values[:, source]


def _rank_files(run_dir):
    # A resume that was killed between two renamings leaves the log under its second name.
    folders = (run_dir / "log", run_dir / "log.new")
    return next((files for folder in folders if (files := sorted(folder.glob("rank-*.h5")))), [])


def _newest(paths):
    return max(path.stat().st_mtime_ns for path in paths)


def _merge(paths, out):
    """Write the rank files into `out`, one open at a time: a thousand open files are more than a system allows."""
    where = str(paths[0].parent)
    with _open(paths[0]) as first:
        if "graph" not in first or "network" not in first:
            raise UserError(
                f"{where!r} lacks rank 0's file with the description of the run: the run ended "
                "before it began, or log/rank-0000.h5 was moved; put it back."
            )
        for name in ("config", "graph", "data"):
            if name in first:  # logs of earlier versions have no /data
                first.copy(name, out)
        n = int(first["graph"].attrs["n"])
    try:
        _merge_rows(paths, n, out, where)
    except (OSError, KeyError) as error:
        raise UserError(f"log {where!r} is damaged ({error}); move the damaged rank file away.") from None


def _merge_rows(paths, n, out, where):
    hosted, committed, ranks = [], [], []
    for path in paths:
        with _open(path) as file:
            hosted.append(file["vertices"][:])
            committed.append(file["committed"][:])
            ranks.append(file.attrs["rank"])
    committed, order = np.array(committed), np.concatenate(hosted)
    vertices = np.sort(order)
    if len(np.unique(vertices)) != len(vertices):
        raise UserError(f"log {where!r} holds a vertex twice: keep one run's files there.")
    rows = dict(zip(runlog.ROOM, committed.min(axis=0), strict=False))
    rows["network"] = rows["epochs"] = min(rows["epochs"], committed[0, 2])
    whole = len(vertices) == n and committed[:, 4].all() and (committed[:, [0, 1, 3]] == committed[0, [0, 1, 3]]).all()
    out.attrs.update(format=runlog.FORMAT, format_version=runlog.VERSION, complete=int(whole))
    store(out, "vertices", vertices, "1", "vertices of the columns, in order")
    rank_of_vertex = np.repeat(ranks, [len(v) for v in hosted])[np.argsort(order)]
    store(out, "rank_of_vertex", rank_of_vertex, "1", "rank that hosts the vertex")
    kept = [c for c in runlog.COLUMNS if c.group != "closing" or rows["closing"]]
    for path, own in zip(paths, hosted, strict=True):
        place = np.searchsorted(vertices, own)
        with _open(path) as file:
            for column in kept:
                _merge_column(column, rows[column.group], file, place, len(vertices), out, where)


def _merge_column(column, cut, file, place, n, out, where):
    """Write the first `cut` rows of one rank's column to its vertices' places in `out`."""
    name = f"{column.group}/{column.name}"
    closing = column.group == "closing"
    if name not in out:
        shape = (cut, n) if column.vertex else (cut,)
        values = np.zeros(shape[1:] if closing else shape, column.dtype) if column.vertex else file[name][:cut]
        store(out, name, values[0] if closing and not column.vertex else values, column.unit, column.meaning)
    elif not column.vertex:
        if (column.group, column.name) in runlog.INDEX and not np.array_equal(file[name][:cut], out[name][:]):
            raise UserError(f"log {where!r}: the ranks count {column.group} differently; keep one run's files there.")
        return
    if column.vertex:
        order = np.argsort(place)  # HDF5 selects ascending places
        values = file[name][: 1 if closing else cut][:, order]
        out[name][(..., place[order])] = values[0] if closing else values


def _open(path):
    """Open an HDF5 file of this format for reading, or raise UserError."""
    anew = path.name == "run.h5" and _rank_files(path.parent)
    remedy = "delete it: it is made again from log/" if anew else "copy it again from its source, or move it away"
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        why = runlog.told(error, "truncated, or not HDF5")
        raise UserError(f"{str(path)!r} cannot be read: {why}; {remedy}.") from None
    form, version = file.attrs.get("format"), file.attrs.get("format_version", 0)
    if form == runlog.FORMAT and version == runlog.VERSION:
        return file
    file.close()
    if form != runlog.FORMAT:
        raise UserError(f"{str(path)!r} is HDF5 but not a log of a run; give a run directory or its run.h5.")
    raise UserError(
        f"{str(path)!r} has log format {version}, this program reads {runlog.VERSION}; "
        "install the version of mpiconsensus that wrote it, or a newer one."
    )


class Run:
    """Read access to one run: a run directory or a run.h5; log/ is assembled where run.h5 is missing or stale.

    Attributes: `config` (dict), `facts` (dict), `graph` (dict), `data` (dict), `vertices` (n,), `rank_of_vertex` (n,),
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
        data = file.get("data")
        self.data = {} if data is None else {**data.attrs, **{k: data[k][:] for k in data}}
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
            known = [c.name for c in runlog.columns(group)]
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
