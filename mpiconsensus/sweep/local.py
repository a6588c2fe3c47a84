"""A sweep on this machine: so many runs at once as there are cores, each in processes of its own."""

import shlex
import sys
import time

from mpiconsensus import process, report, rundirectory, signals, status, sweepdirectory, tabletext
from mpiconsensus.errors import Stopped, TrainingError, UserError
from mpiconsensus.limits import usable_cores
from mpiconsensus.sweep import children, states

LOOK_S = 0.05  # between two looks at the runs under way
HEADS = ["run", "state", "accuracy %", "seconds"]


def train(sweep, ranks=1, at_once=None, say=print, told=None):
    """Train the runs of the sweep that are missing, and print a table of all.

    ranks: processes a run. at_once: runs side by side; default: as many as the cores carry. told: the Signals that end it,
    with its runs stopped behind checkpoints: then raise Stopped. Raise TrainingError where a run failed; the others are
    trained all the same.
    """
    children.require_alone()
    cores = usable_cores()
    at_once = at_once or max(1, cores // ranks)
    vertices = states.check(sweep)
    words = {r: children.launcher(r) for r in {min(ranks, n) for n in vertices.values()}}
    told = told or signals.Signals()
    told.catch(signals.USER + signals.END)
    states.prepare(sweep)
    try:
        rundirectory.hold(sweep.root)
    except UserError:
        raise UserError(f"sweep {str(sweep.root)!r} is under way in another process; wait for its end, or `mpiconsensus cancel {sweep.root}`.") from None
    process.sign(sweep.root)
    elsewhere = states.queued(sweep) | {run.name for run in sweep.runs if _under_way(sweep, run)}
    todo = [run.name for run in sweep.runs if run.name not in elsewhere and not states.done(sweep, run)]
    there = len(sweep.runs) - len(todo) - len(elsewhere)
    say(f"sweep {sweep.name}: {len(sweep.runs)} runs, {there} finished, {len(todo)} to do; {at_once} at once, {ranks} process{'es' * (ranks > 1)} each; in {sweep.root}")
    if elsewhere:
        say(f"under way elsewhere, and left alone: {', '.join(sorted(elsewhere))}")
    environ = children.environment(max(1, cores // (at_once * ranks)))
    failed = _run(sweep.root, todo, {name: words[min(ranks, n)] for name, n in vertices.items()}, environ, at_once, say, told)
    missing = [run.name for run in sweep.runs if run.name not in elsewhere and not states.done(sweep, run)]
    say()
    for line in table(sweep, failed):
        say(line)
    again = f"`mpiconsensus {shlex.join(sys.argv[1:])}`"
    if told.number and missing:
        raise Stopped(f"{signals.name(told.number)} received: {len(missing)} of {len(sweep.runs)} runs are not finished; {again} goes on.")
    if failed:
        raise TrainingError(f"{len(failed)} of {len(sweep.runs)} runs failed; what they said is in {sweep.root / sweepdirectory.OUTPUT}; {again} tries them again.")
    if missing:
        raise Stopped(f"{len(missing)} of {len(sweep.runs)} runs were stopped; {again} goes on.")


def table(sweep, failed=()):
    """Return the lines of the table at the end, a row a run."""
    rows = []
    for run in sweep.runs:
        found = status.figures(sweep.root / run.name)
        state = "failed" if run.name in failed and found["state"] != "finished" else found["state"]
        seconds = "-" if found["seconds"] is None else f"{found['seconds']:.1f}"
        rows.append([run.name, state, report.accuracy_text(found["accuracy"], found["accuracy_sd"]), seconds])
    return tabletext.plain(HEADS, rows)


def _run(root, todo, words, environ, at_once, say, told):
    """Run the names in `todo`, and return the set of those that failed; a signal in `told` stops what is under way."""
    waiting, under_way, failed = list(todo), [], set()
    width = max(map(len, todo), default=0)
    try:
        while under_way or (waiting and not told.number):
            while waiting and len(under_way) < at_once and not told.number:
                name = waiting.pop(0)
                under_way.append(children.Child(root, name, words[name], environ))
                say(f"started   {name}")
            for child in list(under_way):
                if told.number:
                    child.stop()
                code = child.ended()
                if code is None:
                    continue
                under_way.remove(child)
                # A run by modelled time that is told to stop has no checkpoint to end behind; it is begun again, and did not fail.
                state = "finished" if code == 0 else "stopped" if code == 75 or child.told else "failed"
                if state == "failed":
                    failed.add(child.name)
                left = len(waiting) + len(under_way)
                say(f"{state:8}  {child.name:{width}}  {_result(root, child, code)}, {status.duration(child.seconds())}, {left} left")
            time.sleep(LOOK_S)
    finally:
        for child in under_way:  # an exception here: whoever reads our output went away, for one
            child.stop()
    return failed


def _result(root, child, code):
    if code not in (0, 75):
        end = f"exit code {code}" if code > 0 else signals.name(-code)
        return f"{end}: {child.last_words() or 'it said nothing'}"
    found = status.figures(root / child.name)
    return f"{report.accuracy_text(found['accuracy'], found['accuracy_sd'])} %"


def _under_way(sweep, run):
    directory = sweep.root / run.name
    return directory.is_dir() and rundirectory.under_way(directory)
