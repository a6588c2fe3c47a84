"""How runs stand, from their directories alone, which are left as they are: what `mpiconsensus status` prints.

A run is running while a process holds its directory's lock, or, since locks may not travel between machines, while another
machine's log is written to; finished when its models are written; stopped when it can be resumed; missing, of a sweep, when
it has no directory yet; waiting when it has no log yet; else ended. Where Slurm tells of its job, one that waits there is
queued, one that runs there running.
"""

import json
import re
import socket
import time
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import numpy as np

from mpiconsensus import livelog, process, report, rundirectory, slurm, sweepdirectory, tabletext
from mpiconsensus.errors import UserError

HEADS = ["run", "state", "step", "of", "epoch", "accuracy %", "distance", "seconds", "left", "written"]
# A log that was written to within so many of its flushing intervals is that of a run under way.
INTERVALS = 3


def find(paths):
    """Return the run directories that `paths` name: each a run, a sweep or a directory of runs. UserError where one holds none.

    Of a sweep all runs are named, those that are not there yet too.
    """
    found = []
    for path in map(Path, paths):
        if not path.is_dir():
            raise UserError(f"{str(path)!r} is no directory; give a run directory, or one that holds runs.")
        if sweepdirectory.is_sweep(path):
            found += sweepdirectory.runs(path)
            continue
        runs = [path] if _is_run(path) else sorted(child for child in path.iterdir() if child.is_dir() and _is_run(child))
        if not runs:
            raise UserError(f"{str(path)!r} holds no run; give a directory made by `mpiconsensus train`, or one that holds some.")
        found += runs
    return found


def look(paths):
    """Return the `figures` of every run that `paths` name, with what Slurm knows of its job."""
    runs = find(paths)
    jobs = [job_of(run) for run in runs]
    known = slurm.states(jobs)
    return [figures(run, job, known.get(job, "")) for run, job in zip(runs, jobs, strict=True)]


def job_of(directory):
    """Return the Slurm job of a run, or the task of an array: of the process that works or worked in it, or filed since then; else ""."""
    owner, (filed, at) = process.owner(directory), sweepdirectory.filed(directory)
    return owner["slurm"] if owner and owner["at"] > at else filed


def figures(directory, job="", in_slurm=""):
    """Return how a run stands: run, state, step, steps, epoch, accuracy, accuracy_sd, consensus_distance, seconds, left_s, written_s.

    accuracy: mean over the vertices at the last evaluation, a fraction. left_s: at the pace so far, None where it is not
    known or nothing is left. written_s: since the last write to the log. note: why a log cannot be read, or why a run of
    a sweep failed. job, slurm: its job in Slurm and what state that is in there, as given.
    """
    directory = Path(directory)
    if not directory.is_dir():
        state = _by_slurm("missing", in_slurm)
        return _blank(directory, job, in_slurm) | {"state": state, "note": _last_words(directory, job) if state == "missing" else ""}
    try:
        with livelog.look(directory) or nullcontext() as run:
            return standing(directory, run, job, in_slurm)
    except UserError as error:
        return standing(directory, None, job, in_slurm) | {"note": str(error)}


def _blank(directory, job, in_slurm):
    known = dict.fromkeys(("step", "steps", "epoch", "accuracy", "accuracy_sd", "consensus_distance", "seconds", "left_s", "written_s"))
    return {"run": directory.name or directory.resolve().name, "state": None, **known, "note": "", "job": job, "slurm": in_slurm}


def standing(directory, run, job="", in_slurm=""):
    """Return the `figures` of a run directory whose log is `run`, None where there is none to read."""
    found, patience_s = _blank(directory, job, in_slurm), 0.0
    if run:
        found |= _of_log(run)
        elsewhere = socket.gethostname() not in run.facts["hosts"][:1]
        patience_s = INTERVALS * run.config["log"]["flush_s"] if elsewhere else 0.0
    logs = [path.stat().st_mtime for path in (directory / "log").glob("rank-*.h5")]
    if logs:
        found["written_s"] = max(0.0, time.time() - max(logs))
        if found["left_s"] is not None and run.config.get("hetero", {}).get("clock") == "virtual":
            # What a modelled second takes here, the log does not tell.
            took = max(logs) - datetime.fromisoformat(run.facts["started"]).timestamp()
            found["left_s"] = took * (found["steps"] - found["step"]) / found["step"]
    if in_slurm and in_slurm not in slurm.RUNNING:
        patience_s = 0.0
    found["state"] = _by_slurm(_state(directory, found["written_s"], patience_s), in_slurm)
    if found["state"] == "ended" and not found["note"]:
        found["note"] = _last_words(directory, job)
    if found["state"] != "running":
        found["left_s"] = None
    return found


def table(found):
    """Return the lines of a table of `figures`, a row a run, and one for each log that cannot be read."""
    known = any(f["slurm"] for f in found)
    lines = tabletext.plain(HEADS + ["slurm"] * known, [_row(f) + [f["slurm"] or "-"] * known for f in found])
    return lines + [f"{f['run']}: {f['note']}" for f in found if f["note"]]


def _is_run(path):
    return (path / "job.toml").is_file() or (path / "run.h5").is_file()


def _of_log(run):
    training, rows = run.config["training"], report.epochs(run)
    per_epoch = run.facts["steps_per_epoch"]
    steps = per_epoch * training["epochs"]
    steps = min(steps, training["max_steps"]) if training["max_steps"] else steps
    found = {"step": run.step, "steps": steps, "epoch": len(rows)}
    if not rows:
        return found
    evaluated = [row for row in rows if not np.isnan(row["accuracy"])]
    if run.closing:
        found["accuracy"], found["accuracy_sd"] = report.mean_sd(run.closing["accuracy"])
    elif evaluated:
        found["accuracy"], found["accuracy_sd"] = evaluated[-1]["accuracy"], evaluated[-1]["accuracy_sd"]
    found["consensus_distance"], found["seconds"] = rows[-1]["consensus_distance"], rows[-1]["seconds"]
    done = int(run.epochs("step")[-1])
    return found | {"left_s": rows[-1]["seconds"] * (steps - found["step"]) / done}


def _state(directory, written_s, patience_s):
    if rundirectory.under_way(directory):
        return "running"
    if rundirectory.finished(directory):
        return "finished"
    if written_s is not None and written_s < patience_s:
        return "running"
    checkpoints = (path.name for path in (directory / "checkpoint").glob("step-*"))
    if any(re.fullmatch(r"step-\d{9,}", name) for name in checkpoints):
        return "stopped"
    return "waiting" if written_s is None else "ended"


def _by_slurm(state, in_slurm):
    """Return the state of a run, where the files do not tell that it is at work or through, as Slurm has it."""
    if state in ("running", "finished"):
        return state
    return "queued" if in_slurm in slurm.WAITING else "running" if in_slurm in slurm.RUNNING else state


def _last_words(directory, job):
    """Return the error with which a run of a sweep ended, "" where none is known."""
    said = [directory.parent / sweepdirectory.OUTPUT / f"{name}.log" for name in (job, directory.name) if name]
    said = sorted((path for path in said if path.is_file()), key=lambda path: path.stat().st_mtime)
    lines = said[-1].read_text(errors="replace").split("\n")[-40:] if said else []
    return next((line.removeprefix("mpiconsensus: ") for line in reversed(lines) if line.startswith("mpiconsensus: ")), "")


def _row(f):
    accuracy = "-"
    if f["accuracy"] is not None:
        sd = f["accuracy_sd"]
        accuracy = f"{100 * f['accuracy']:.2f}" + ("" if np.isnan(sd) else f" +- {100 * sd:.2f}")
    distance = "-" if f["consensus_distance"] is None else f"{f['consensus_distance']:.3g}"
    counts = ["-" if f[name] is None else f"{f[name]:,}" for name in ("step", "steps", "epoch")]
    seconds = "-" if f["seconds"] is None else f"{f['seconds']:.1f}"
    written = "-" if f["written_s"] is None else f"{duration(f['written_s'])} ago"
    return [f["run"], f["state"], *counts, accuracy, distance, seconds, "-" if f["left_s"] is None else duration(f["left_s"]), written]


def duration(seconds):
    """Return a time in words of two units: '2 h 05 min', '3 min 10 s', '4 s'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


def as_json(found):
    """Return `figures` as the text of a JSON list; what is no number is null."""
    plain = [{k: None if isinstance(v, float) and np.isnan(v) else v for k, v in f.items()} for f in found]
    return json.dumps(plain, indent=1)
