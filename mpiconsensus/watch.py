"""A live view of runs from their directories alone, which are left as they are: what `mpiconsensus watch` shows.

n vertices, K steps read.
"""

import signal
import sys
import threading
import time
from contextlib import contextmanager, nullcontext

import numpy as np

from mpiconsensus import livelog, report, status, tabletext
from mpiconsensus.errors import UserError
from mpiconsensus.runread import over_ranks

EVERY_S = 1.0
SHARE = 0.1  # of a core that looking may take: a thousand files are looked at less often
GOES_ON = ("running", "waiting")
QUANTILES = {"lowest": 0.0, "tenth": 0.1, "median": 0.5, "nine tenths": 0.9, "highest": 1.0}
HEADS = ["vertex", "rank", "accuracy %", "loss", "distance"]
FIXED = 14  # lines of a frame that are not of the table of vertices
SPARKS = {True: "▁▂▃▄▅▆▇█", False: "_.-~=+*#"}


def watch(path, once=False):
    """Show the run `path`, or a line a run of a directory of runs, until it is over; one frame where there is no terminal.

    Raise UserError for what is no run and, at the first frame, for a log that cannot be read.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    runs = status.find([path])
    fancy = (sys.stdout.encoding or "").lower().startswith("utf")
    if once or not console.is_terminal or console.is_dumb_terminal:
        for line in frame(runs, fancy=fancy)[0]:
            console.print(line, markup=False)
        return
    lines = []
    with _interrupted() as left, Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not left.is_set():
            began = time.perf_counter()
            try:
                lines, over = frame(runs, console.size.height, fancy)
            except UserError as error:  # a log on its way to another name, or it went away
                if not lines:
                    raise
                lines, over = [*lines[:-1], f"not read this time: {error}"], False
            live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
            if over:
                return
            left.wait(max(EVERY_S, (time.perf_counter() - began) / SHARE))
            runs = status.find([path])


@contextmanager
def _interrupted():
    """Give the event that Ctrl-C sets in here: an exception would be lost where it comes up within HDF5."""
    event = threading.Event()
    before = signal.signal(signal.SIGINT, lambda number, frame: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def frame(runs, height=0, fancy=False):
    """Return (lines, whether all is over) for run directories; height: lines there are, 0 for any number; fancy: not ASCII alone."""
    if len(runs) > 1:
        found = [status.figures(run) for run in runs]
        return _fit(status.table(found), found, height), not any(f["state"] in GOES_ON for f in found)
    with livelog.look(runs[0]) or nullcontext() as run:
        found = status.standing(runs[0], run)
        return (_detail(found, run, height, fancy) if run else _nothing(found)), found["state"] not in GOES_ON


def _fit(lines, found, height):
    """Cut the table of many runs: what goes on comes first, the others are counted."""
    if not height or len(lines) < height:
        return lines
    rows = sorted(zip(found, lines[1:], strict=False), key=lambda pair: pair[0]["state"] not in GOES_ON)
    shown, rest = rows[: height - 3], [f["state"] for f, _ in rows[height - 3 :]]
    counts = ", ".join(f"{rest.count(state)} {state}" for state in dict.fromkeys(rest))
    return [lines[0], *(line for _, line in shown), f"and {len(rest)} more: {counts}"]


def _nothing(found):
    told = {"running": "nothing is in its log yet", "waiting": "it has no log yet"}.get(found["state"], "its log holds no step")
    return [f"{found['run']}  {found['state']}", found["note"] or f"{told}; a view shows it as soon as there is a step"]


def _detail(found, run, height, fancy):
    of_ranks, loss = pace(run), np.atleast_2d(run.steps("loss", livelog.LAST))
    step_s = float(np.median(of_ranks["step_s"])) if run.step else float("nan")
    facts, ranks = run.facts, run.facts["ranks"]
    on = f"{run.graph['spec']}, {run.graph['n']} vertices on {ranks} rank{'s' * (ranks > 1)}"
    what = f"{on}; {facts.get('model') or '-'}, {facts.get('data') or '-'}"
    lines = [f"{found['run']}  {found['state']}", what, _bar(found, fancy), f"time           {_times(found, run, step_s)}"]
    epochs = report.epochs(run)
    known = [row for row in epochs if not np.isnan(row["accuracy"])]
    lines.append(f"accuracy %     {_accuracy(found, run, known)}")
    lines.append(f"distance       {report.number(found['consensus_distance'], '.3g')}" + (f"  (epoch {found['epoch']})" if epochs else ""))
    lines.append(f"samples/s      {report.number(samples_per_s(run, step_s), ',.0f')}  ({report.number(1e3 * step_s, '.3g')} ms a step)")
    recent = mean(loss, 1)
    if not np.isnan(recent).all():
        lines.append(f"loss           {np.nanmean(recent):.4f}  {spark(recent, fancy)}  of the last {len(recent)} steps")
    if run.step:
        lines.append(f"slowest rank   {_slowest(of_ranks)}")
    if found["written_s"] is not None:
        lines.append(f"written        {status.duration(found['written_s'])} ago")
    return [*lines, "", *_vertices(run, mean(loss, 0), max(3, height - FIXED) if height else 1 << 30)]


def pace(run):
    """Return the last steps of each rank: rank, and mean seconds a step: work_s (data, gradients, mixing), wait_s, step_s (both)."""
    part = {name: over_ranks(run, run.steps(name, livelog.LAST).sum(axis=0)) for name in ("io_s", "compute_s", "mix_s", "wait_s")}
    ranks, part = part["wait_s"][0], {name: sums for name, (_, sums) in part.items()}
    count = max(1, min(run.step, livelog.LAST))
    if run.facts.get("asynchronous"):  # each vertex has a time of its own, the others' steps within it
        count = count * np.unique(run.rank_of_vertex, return_counts=True)[1]
    work, wait = (part["io_s"] + part["compute_s"] + part["mix_s"]) / count, part["wait_s"] / count
    return {"rank": ranks, "work_s": work, "wait_s": wait, "step_s": work + wait}


def samples_per_s(run, step_s):
    """Return the samples that all vertices train on a second, from the time of the last steps: without evaluations."""
    ends = run.epochs("step")
    if len(ends):
        a_step = run.epochs("samples")[-1].sum() / (ends[-1] - (ends[-2] if len(ends) > 1 else 0))
    else:
        trained = np.isfinite(run.steps("loss", livelog.LAST)).sum(axis=1)
        a_step = trained.mean() * run.config["training"]["batch_size"] if len(trained) else np.nan
    return float(a_step / step_s) if step_s > 0 else float("nan")


def mean(values, axis):
    """Return the mean over what is a number; NaN where nothing is."""
    here = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(here, values, 0).sum(axis=axis) / here.sum(axis=axis)


def spark(values, fancy, width=30):
    """Return the course of values as a line of at most `width` characters, each the mean of its part."""
    values = values[np.isfinite(values)]
    parts = [part.mean() for part in np.array_split(values, min(width, len(values)))]
    low, high = min(parts), max(parts)
    signs = SPARKS[fancy]
    return "".join(signs[int((len(signs) - 1) * (part - low) / (high - low)) if high > low else 0] for part in parts)


def _bar(found, fancy, width=30):
    done = found["step"] / found["steps"] if found["steps"] else 0.0
    full = int(width * min(done, 1.0))
    full, rest = ("█" * full, "░" * (width - full)) if fancy else ("#" * full, "-" * (width - full))
    return f"step {found['step']:,} of {found['steps']:,} ({100 * done:.1f} %), epoch {found['epoch']}  {full}{rest}"


def _times(found, run, step_s):
    since = found["step"] - (int(run.epochs("step")[-1]) if found["epoch"] else 0)
    gone = (found["seconds"] or 0.0) + (since * step_s if since else 0.0)
    left, modelled = found["left_s"], run.config.get("hetero", {}).get("clock") == "virtual"
    if left is None and found["state"] == "running" and step_s > 0 and not modelled:
        left = step_s * (found["steps"] - found["step"])
    return f"{status.duration(gone)} of {'modelled time' if modelled else 'training'}" + ("" if left is None else f", {status.duration(left)} left at this pace")


def _accuracy(found, run, known):
    text = report.accuracy_text(found["accuracy"], found["accuracy_sd"])
    if run.closing:
        return f"{text}  (closing evaluation)"
    return f"{text}, mean model {report.accuracy_text(known[-1]['mean_accuracy'])}  (epoch {known[-1]['epoch']})" if known else text


def _slowest(of_ranks):
    worst, ms = int(np.argmax(of_ranks["work_s"])), {name: 1e3 * of_ranks[name] for name in ("work_s", "wait_s")}
    words = (f"{np.max(v):.3g}" if name == "work_s" else f"{v[worst]:.3g}" for name, v in ms.items())
    text = "{}: {} ms of work a step, {} ms of waiting".format(of_ranks["rank"][worst], *words)
    if len(of_ranks["rank"]) == 1:
        return text
    return text + f"; median rank {np.median(ms['work_s']):.3g} and {np.median(ms['wait_s']):.3g}"


def _vertices(run, loss, room):
    """Return the table of the vertices: all of them, or quantiles and those of the lowest accuracy."""
    accuracy = np.full(len(run.vertices), np.nan)
    evaluated = [row for row in run.epochs("accuracy") if np.isfinite(row).any()]
    if run.closing:
        accuracy = run.closing["accuracy"]
    elif evaluated:
        accuracy = evaluated[-1]
    distances = run.epochs("consensus_distance_vertex")
    distance = distances[-1] if len(distances) else np.full(len(run.vertices), np.nan)
    columns = [(100 * accuracy, ".2f"), (loss, ".4f"), (distance, ".3g")]

    def row(i):
        return [str(run.vertices[i]), str(run.rank_of_vertex[i]), *(report.number(v[i], form) for v, form in columns)]

    if len(run.vertices) <= min(room, 64):
        return tabletext.plain(HEADS, [row(i) for i in range(len(run.vertices))])
    rows = [[name, "", *(_quantile(v, q, form) for v, form in columns)] for name, q in QUANTILES.items()]
    # sorts the NaN of a vertex that was not evaluated to the end; without any accuracy those of the highest loss are the worst
    worst = np.argsort(accuracy if np.isfinite(accuracy).any() else -loss)[: max(3, min(room, 16) - len(rows) - 1)]
    return tabletext.plain(HEADS, rows) + [f"worst of {len(run.vertices)}:"] + tabletext.plain(HEADS, [row(i) for i in worst])[1:]


def _quantile(values, q, form):
    here = values[np.isfinite(values)]
    return report.number(np.quantile(here, q) if len(here) else None, form)
