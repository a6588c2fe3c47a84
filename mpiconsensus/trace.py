"""The steps of a run as a timeline: trace-event JSON, which ui.perfetto.dev and chrome://tracing open.

The log has how long each part of a step took, not when it began. Here the steps of an epoch begin where the epoch
before ended (/network/seconds), and the parts of a rank's steps follow one another in the order in which a step does
them; what an epoch spends outside its steps (evaluation, measurements, the log) is the gap behind them.

A process of the timeline is a rank: one track with its steps, waiting and mixing, one with rows on their way behind
other work, and one a hosted vertex with its data and gradients.

n vertices, K steps.
"""

import json
import os
import re
from pathlib import Path

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.runread import Run

EVENTS = 400_000  # about 50 MB: more makes a browser slow
PARTS = ("io_s", "compute_s", "wait_s", "mix_s", "hidden_s")
NAMES = {"io_s": "data", "compute_s": "compute", "wait_s": "exchange wait", "mix_s": "mix", "hidden_s": "rows on their way"}
RANK, UNDER_WAY, VERTEX = 0, 1, 2  # tracks of a process; vertices are numbered on from the last


def write(path, out, steps=None):
    """Write the timeline of the run `path` to the new file `out` and return a line that says what is in it.

    steps: "FIRST:LAST", both counted from 0, LAST included, either may be empty; None: the last that fit in EVENTS.
    Raise UserError for a log without a step, steps that it does not hold, and a file that is there or cannot be made.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{str(out)!r} is there already; give another name (-o FILE) or move it away.")
    with Run(path) as run:
        first, last, note = chosen(run, steps)
        document = {"traceEvents": events(run, first, last), "displayTimeUnit": "ms", "otherData": _facts(run)}
    aside = out.with_name(f"{out.name}.{os.getpid()}.new")
    try:
        with open(aside, "x", encoding="utf-8") as file:
            json.dump(document, file, separators=(",", ":"), allow_nan=False)
        os.replace(aside, out)
    except OSError as error:
        raise UserError(f"{str(out)!r} cannot be written: {error.strerror}; give another place (-o FILE).") from None
    finally:
        aside.unlink(missing_ok=True)
    return f"{out}: steps {first} to {last}{note}; open it in https://ui.perfetto.dev"


def chosen(run, steps):
    """Return (first, last, note) of the rows of /steps to be drawn."""
    count = len(run.steps("step"))
    if not count:
        raise UserError(f"run {str(run.path)!r} has no step in its log yet; wait for a flush (log.flush_s), or give another run.")
    if steps is None:
        fit = max(1, EVENTS // (2 * len(run.vertices) + 4 * len(set(run.rank_of_vertex.tolist()))))
        note = f" of {count} (the last that a browser takes; --steps FIRST:LAST picks others)" if fit < count else f" of {count}"
        return max(0, count - fit), count - 1, note
    found = re.fullmatch(r"(\d*):(\d*)", steps)
    first, last = (int(found[1] or 0), int(found[2] or count - 1)) if found else (1, 0)
    if first > last or last >= count:
        raise UserError(f"--steps {steps} is not a part of this log; give FIRST:LAST within 0:{count - 1}.")
    return first, last, f" of {count}"


def starts(run):
    """Return (K, ranks) seconds at which the steps begin, the ranks, and {part: (K, ranks) seconds of a rank's step}."""
    ranks, column = np.unique(run.rank_of_vertex, return_inverse=True)
    # A rank's waiting and mixing are shared out over its vertices in the log; data and gradients follow one another.
    of_ranks = {part: _sums(np.nan_to_num(run.steps(part)), column, len(ranks)) for part in PARTS}
    busy = sum(of_ranks[part] for part in PARTS if part != "hidden_s")
    ends = run.epochs("step")
    begins = np.zeros_like(busy)
    clock, row = np.zeros(len(ranks)), 0
    for end, seconds in zip([*ends, len(busy)], [*run.network("seconds"), None], strict=True):
        part = slice(row, min(int(end), len(busy)))
        begins[part] = clock + np.cumsum(busy[part], axis=0) - busy[part]
        clock = clock + busy[part].sum(axis=0)
        if seconds is not None:
            clock = np.maximum(clock, seconds)
        row = part.stop
    return begins, ranks, of_ranks


def _sums(values, column, count):
    """Return the sums of (K, n) values over the columns of one rank: (K, count)."""
    out = np.zeros((len(values), count))
    np.add.at(out.T, column, values.T)
    return out


def events(run, first, last):
    """Return the list of trace events of the steps first to last; times in microseconds."""
    begins, ranks, of_ranks = starts(run)
    values = {name: run.steps(name) for name in (*PARTS, "loss", "bytes_sent")}
    numbers = run.steps("step")
    out = []
    for r, rank in enumerate(ranks.tolist()):
        hosted = np.flatnonzero(run.rank_of_vertex == rank)
        out += _titles(rank, run.vertices[hosted].tolist())
        free = 0.0  # when the rows that were on their way before have come
        for k in range(first, last + 1):
            args = {"step": int(numbers[k])}
            parts = {part: float(of_ranks[part][k, r]) for part in PARTS}
            clock, before = float(begins[k, r]), run.config.get("algorithm", {}).get("order") == "cta"
            sent = int(values["bytes_sent"][k, hosted].sum())
            whole = sum(parts[part] for part in PARTS if part != "hidden_s")
            out.append(_span(f"step {numbers[k]}", rank, RANK, clock, whole, args | {"bytes_sent": sent}))
            if before:
                clock = _exchange(out, rank, clock, parts, args)
            for place in hosted.tolist():
                loss = float(values["loss"][k, place])
                if np.isfinite(loss):  # else the vertex did not train
                    told = {"io_s": args, "compute_s": args | {"loss": loss}}
                    for part in ("io_s", "compute_s"):
                        length = float(values[part][k, place])
                        out.append(_span(NAMES[part], rank, VERTEX + int(run.vertices[place]), clock, length, told[part]))
                        clock += length
            if parts["hidden_s"]:
                begin = max(free, clock - parts["hidden_s"])
                if clock > begin:
                    out.append(_span(NAMES["hidden_s"], rank, UNDER_WAY, begin, clock - begin, args | {"hidden_s": parts["hidden_s"]}))
                free = clock
            if not before:
                _exchange(out, rank, clock, parts, args)
    return out


def _exchange(out, rank, clock, parts, args):
    """Append the waiting and mixing of a rank's step and return when they end."""
    for part in ("wait_s", "mix_s"):
        if parts[part]:
            out.append(_span(NAMES[part], rank, RANK, clock, parts[part], args))
        clock += parts[part]
    return clock


def _span(name, rank, track, start, length, args):
    # Nanoseconds are whole: spans that follow one another would else overlap by a rounding.
    begin, end = round(1e9 * start), round(1e9 * (start + length))
    return {"name": name, "ph": "X", "pid": rank, "tid": track, "ts": begin / 1e3, "dur": (end - begin) / 1e3, "args": args}


def _titles(rank, vertices):
    """Return the events that name a rank's tracks and order them."""
    tracks = {RANK: "steps", UNDER_WAY: "rows on their way"} | {VERTEX + v: f"vertex {v}" for v in vertices}
    titles = [{"name": "process_name", "ph": "M", "pid": rank, "args": {"name": f"rank {rank}"}}]
    titles.append({"name": "process_sort_index", "ph": "M", "pid": rank, "args": {"sort_index": rank}})
    for track, title in tracks.items():
        titles.append({"name": "thread_name", "ph": "M", "pid": rank, "tid": track, "args": {"name": title}})
        titles.append({"name": "thread_sort_index", "ph": "M", "pid": rank, "tid": track, "args": {"sort_index": track}})
    return titles


def _facts(run):
    names = ("model", "data", "mpi", "ranks", "threads", "transport", "concurrency", "started")
    return {"run": run.path.resolve().name, "graph": run.graph["spec"]} | {name: run.facts.get(name) for name in names}
