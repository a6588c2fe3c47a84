"""The ranks' files of a log made into run.h5: aside, then put in place.

n vertices.
"""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from mpiconsensus import runlog
from mpiconsensus.description import store
from mpiconsensus.diskrows import created, told
from mpiconsensus.errors import UserError

LEFT_S = 600.0  # age past which a half-made run.h5 of a process that is gone is taken for left behind


def assemble(run_dir):
    """Write RUN/run.h5 from RUN/log/ aside, put it in place and return its path.

    Ranks that were cut at different lengths are cut to the shortest; vertices whose file is missing have no column.
    Root attribute `complete`: 1 where every vertex is there and every rank came to its end.
    """
    run_dir = Path(run_dir)
    sources = rank_files(run_dir)
    newest = _newest(sources)  # before reading: rows that come later make run.h5 stale
    target = run_dir / "run.h5"
    aside = aside_of(run_dir, os.getpid())
    _clear(run_dir)
    try:
        with created(aside) as out:
            merge(sources, out)
        os.utime(aside, ns=(newest, newest))
        if not target.exists() or target.stat().st_mtime_ns <= newest:  # else another process has put newer rows there
            os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return target


def aside_of(run_dir, process):
    """Return the file into which a process of this machine assembles the log, until it becomes run.h5."""
    return Path(run_dir) / f"run.h5.{socket.gethostname()}-{process}.new"


def _clear(run_dir):
    """Remove what processes of this machine that were killed have left behind."""
    for path in run_dir.glob(f"run.h5.{socket.gethostname()}-*.new"):
        # By its age too: a container's processes are not seen from another one of the same name.
        with suppress(OSError, ValueError):
            if time.time() - path.stat().st_mtime > LEFT_S and not _lives(int(path.stem.rpartition("-")[2])):
                path.unlink()


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def rank_files(run_dir):
    """Return the ranks' files of a run, rank 0's first."""
    # A resume that was killed between two renamings leaves the log under its second name.
    folders = (run_dir / "log", run_dir / "log.new")
    return next((files for folder in folders if (files := sorted(folder.glob("rank-*.h5")))), [])


def stale(run_dir):
    """Return whether RUN/run.h5 is missing or older than a rank's file."""
    sources, made = rank_files(run_dir), run_dir / "run.h5"
    return bool(sources) and (not made.exists() or made.stat().st_mtime_ns < _newest(sources))


def _newest(paths):
    return max(path.stat().st_mtime_ns for path in paths)


def merge(paths, out):
    """Write the rank files into `out`, one open at a time: a thousand open files are more than a system allows."""
    where = str(paths[0].parent)
    with open_log(paths[0]) as first:
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
        with open_log(path) as file:
            hosted.append(file["vertices"][:])
            committed.append(file["committed"][:])
            ranks.append(file.attrs["rank"])
    committed, order = np.array(committed), np.concatenate(hosted)
    vertices = np.sort(order)
    if len(np.unique(vertices)) != len(vertices):
        raise UserError(f"log {where!r} holds a vertex twice: keep one run's files there.")
    rows = dict(zip(runlog.ROOM, committed.min(axis=0), strict=False))
    rows["network"] = rows["epochs"] = min(rows["epochs"], committed[0, 2])
    rows["ages"] = runlog.AGES
    whole = len(vertices) == n and committed[:, 4].all() and (committed[:, [0, 1, 3]] == committed[0, [0, 1, 3]]).all()
    out.attrs.update(format=runlog.FORMAT, format_version=runlog.VERSION, complete=int(whole))
    store(out, "vertices", vertices, "1", "vertices of the columns, in order")
    rank_of_vertex = np.repeat(ranks, [len(v) for v in hosted])[np.argsort(order)]
    store(out, "rank_of_vertex", rank_of_vertex, "1", "rank that hosts the vertex")
    with open_log(paths[0]) as file:  # logs of earlier versions lack some
        kept = [c for c in runlog.COLUMNS if f"{c.group}/{c.name}" in file and (c.group != "closing" or rows["closing"])]
    for path, own in zip(paths, hosted, strict=True):
        place = np.searchsorted(vertices, own)
        with open_log(path) as file:
            for column in kept:
                _merge_column(column, rows[column.group], file, place, len(vertices), out, where)
    if "steps/ended_s" in out and rows["epochs"]:
        _fill_rates(out)


def _fill_rates(out):
    """Give network/samples_per_s its values where rank 0 left NaN: without rounds it knows of its own vertices' samples alone."""
    rates, lasts, ended = out["network/samples_per_s"][:], out["epochs/step"][:], out["steps/ended_s"][:]
    samples, begun, first = out["epochs/samples"][:].sum(axis=1), 0.0, 0
    for epoch, last in enumerate(lasts):
        taken = ended[first:last]
        seconds = float(np.nan_to_num(taken).max(initial=begun))
        if np.isnan(rates[epoch]) and seconds > begun:
            rates[epoch] = samples[epoch] / (seconds - begun)
        begun, first = seconds, last
    out["network/samples_per_s"][:] = rates


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


def open_log(path):
    """Open an HDF5 file of this format for reading, or raise UserError."""
    anew = path.name == "run.h5" and rank_files(path.parent)
    remedy = "delete it: it is made again from log/" if anew else "copy it again from its source, or move it away"
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        why = told(error, "truncated, or not HDF5")
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
