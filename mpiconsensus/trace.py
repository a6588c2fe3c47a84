"""The steps of a run as a timeline: trace-event JSON, which ui.perfetto.dev and chrome://tracing open.

The log has how long each part of a step took, not when it began. Here the steps of an epoch begin where the epoch
before ended (/network/seconds), and the parts of a rank's steps follow one another in the order in which a step does
them; what an epoch spends outside its steps (evaluation, measurements, the log) is the gap behind them.

A process of the timeline is a rank: one track with its steps, waiting and mixing, one with rows on their way behind
other work, and one a hosted vertex with its data and gradients. What Perfetto asks for beyond the format: a thread is
known by its tid alone and 0 is the idle thread, so that no two tracks share a number and none has 0; spans of a track that
overlap without one holding the other are dropped, so that places are counted in whole ticks.

n vertices, K steps, R ranks.
"""

import json
import os
import re
from pathlib import Path

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.runread import Run, over_ranks

EVENTS = 400_000  # about 50 MB: more makes a browser slow
PARTS = ("io_s", "compute_s", "wait_s", "mix_s", "hidden_s")
NAMES = {"io_s": "data", "compute_s": "compute", "wait_s": "exchange wait", "mix_s": "mix", "hidden_s": "rows on their way"}
TICK = 8  # ticks a microsecond, the unit of the file: a power of 2, which no reader of floating-point numbers rounds


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
    of_ranks = {part: over_ranks(run, run.steps(part))[1] for part in PARTS}
    ranks = np.unique(run.rank_of_vertex)
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


def events(run, first, last):
    """Return the list of trace events of the steps first to last; times in microseconds."""
    begins, ranks, of_ranks = starts(run)
    values = {name: run.steps(name) for name in (*PARTS, "loss", "bytes_sent")}
    numbers = run.steps("step")
    before = run.config.get("algorithm", {}).get("order") == "cta"
    out = []
    for r, rank in enumerate(ranks.tolist()):
        hosted = np.flatnonzero(run.rank_of_vertex == rank)
        steps, under_way, vertices = tracks(r, len(ranks), run.vertices[hosted].tolist())
        pid = steps
        out += _titles(pid, rank, {steps: "steps", under_way: "rows on their way"} | {vertices[v]: f"vertex {v}" for v in vertices})
        ended = free = 0  # the step before; when the rows that were on their way before have come
        for k in range(first, last + 1):
            args = {"step": int(numbers[k])}
            of_vertices = {part: _ticks(values[part][k, hosted]) for part in ("io_s", "compute_s")}
            parts = {part: int(_ticks(of_ranks[part][k, r])) for part in ("wait_s", "mix_s", "hidden_s")}
            clock = begin = max(ended, int(_ticks(begins[k, r])))
            ended = begin + sum(int(of_vertices[part].sum()) for part in of_vertices) + parts["wait_s"] + parts["mix_s"]
            sent = int(values["bytes_sent"][k, hosted].sum())
            out.append(_span(f"step {numbers[k]}", pid, steps, begin, ended - begin, args | {"bytes_sent": sent}))
            if before:
                clock = _exchange(out, pid, clock, parts, args)
            for i, place in enumerate(hosted.tolist()):
                loss = float(values["loss"][k, place])
                if np.isfinite(loss):  # else the vertex did not train
                    told = {"io_s": args, "compute_s": args | {"loss": loss}}
                    for part in ("io_s", "compute_s"):
                        length = int(of_vertices[part][i])
                        out.append(_span(NAMES[part], pid, vertices[int(run.vertices[place])], clock, length, told[part]))
                        clock += length
            if parts["hidden_s"]:
                begin = max(free, clock - parts["hidden_s"])
                if clock > begin:
                    whole_s = float(of_ranks["hidden_s"][k, r])
                    out.append(_span(NAMES["hidden_s"], pid, under_way, begin, clock - begin, args | {"hidden_s": whole_s}))
                free = clock
            if not before:
                _exchange(out, pid, clock, parts, args)
    return out


def tracks(r, count, vertices):
    """Return the numbers of the tracks of the r-th of `count` ranks: steps (also the process's), rows on their way, {vertex: number}."""
    return 1 + r, 1 + count + r, {v: 1 + 2 * count + v for v in vertices}


def _ticks(seconds):
    return np.rint(1e6 * TICK * np.nan_to_num(seconds)).astype(np.int64)


def _exchange(out, pid, clock, parts, args):
    """Append the waiting and mixing of a rank's step and return when they end."""
    for part in ("wait_s", "mix_s"):
        if parts[part]:
            out.append(_span(NAMES[part], pid, pid, clock, parts[part], args))
        clock += parts[part]
    return clock


def _span(name, pid, track, begin, length, args):
    """Return a complete event; begin and length in ticks."""
    return {"name": name, "ph": "X", "pid": pid, "tid": track, "ts": begin / TICK, "dur": length / TICK, "args": args}


def _titles(pid, rank, titles):
    """Return the events that name a rank's tracks, {number: title}, and order them."""
    made = [{"name": "process_name", "ph": "M", "pid": pid, "args": {"name": f"rank {rank}"}}]
    made.append({"name": "process_sort_index", "ph": "M", "pid": pid, "args": {"sort_index": rank}})
    for track, title in titles.items():
        made.append({"name": "thread_name", "ph": "M", "pid": pid, "tid": track, "args": {"name": title}})
        made.append({"name": "thread_sort_index", "ph": "M", "pid": pid, "tid": track, "args": {"sort_index": track}})
    return made


def _facts(run):
    names = ("model", "data", "mpi", "ranks", "threads", "transport", "concurrency", "started")
    return {"run": run.path.resolve().name, "graph": run.graph["spec"]} | {name: run.facts.get(name) for name in names}
