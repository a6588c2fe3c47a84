"""A timeline against the columns of the log: every span is as long as the log says, and none overlaps on its track."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import cli

from mpiconsensus import trace
from mpiconsensus.cli.results import trace as command
from mpiconsensus.errors import UserError
from mpiconsensus.runlog import RankLog, columns

HALF_A_TICK = 0.5 / trace.TICK  # microseconds: places are rounded to ticks
VERTEX = 5  # of two ranks: behind two tracks each
PARTS = {"data": "io_s", "compute": "compute_s", "exchange wait": "wait_s", "mix": "mix_s"}


def written(run, out, steps=None):
    trace.write(run, out, steps)
    document = json.loads(out.read_text())
    return document, [event for event in document["traceEvents"] if event["ph"] == "X"]


def test_the_command_writes_what_the_log_holds(small_runs, tmp_path):
    done = cli("trace", small_runs / "two-ranks", "-o", "trace.json", cwd=tmp_path)
    assert done.returncode == 0 and "perfetto" in done.stdout, done.stderr
    document = json.loads((tmp_path / "trace.json").read_text())
    spans = [event for event in document["traceEvents"] if event["ph"] == "X"]
    with h5py.File(small_runs / "two-ranks" / "run.h5") as file:
        steps, rank_of = file["steps/step"][:], file["rank_of_vertex"][:]
        # microseconds of a step and rank, summed over its vertices: the log shares waiting and mixing out over them
        for name, column in PARTS.items():
            for rank in (0, 1):
                logged = 1e6 * file[f"steps/{column}"][:][:, rank_of == rank].sum(axis=1)
                found = np.zeros(len(steps))
                for event in spans:
                    if event["name"] == name and event["pid"] == rank + 1:
                        found[event["args"]["step"]] += event["dur"]
                np.testing.assert_allclose(found, logged, atol=2 * HALF_A_TICK, err_msg=f"{name} of rank {rank}")
        losses = [e["args"]["loss"] for e in spans if e["name"] == "compute" and (e["pid"], e["tid"]) == (2, VERTEX + 3)]
        np.testing.assert_array_equal(losses, file["steps/loss"][:, 3])
        sent = sum(event["args"].get("bytes_sent", 0) for event in spans)
        assert sent == file["steps/bytes_sent"][:].sum()
    named = {(e["pid"], e.get("tid")): e["args"]["name"] for e in document["traceEvents"] if e["name"].endswith("_name")}
    assert named[1, None] == "rank 0" and named[2, VERTEX + 3] == "vertex 3" and (1, VERTEX + 3) not in named
    valid(document)


def valid(document):
    """Check a document against the Trace Event Format and against what Perfetto's importer makes of it.

    It drops an X without dur or with a place that is no number, knows a thread by its tid alone, takes tid and pid 0 for the
    idle thread, and drops a span that overlaps another of its track without lying in it.
    """
    assert set(document) == {"traceEvents", "displayTimeUnit", "otherData"} and document["displayTimeUnit"] in ("ms", "ns")
    known = {"process_name": "name", "process_sort_index": "sort_index", "thread_name": "name", "thread_sort_index": "sort_index"}
    process_of, titles, open_spans = {}, {}, {}
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str) and event["name"] and isinstance(event["pid"], int) and event["pid"] > 0
        if event["ph"] == "M":
            value = event["args"][known[event["name"]]]
            assert isinstance(value, str if event["name"].endswith("_name") else int)
            if event["name"] == "thread_name":
                assert event["tid"] not in titles, "a number a track"
                titles[event["tid"]], process_of[event["tid"]] = value, event["pid"]
            continue
        assert event["ph"] == "X" and process_of[event["tid"]] == event["pid"], "named ahead of its first span"
        assert 0 <= event["ts"] and 0 <= event["dur"]
        # what an importer makes of it that multiplies floating-point numbers and cuts: whole nanoseconds, without a rounding
        begin, length = (int(1000 * event[key]) for key in ("ts", "dur"))
        assert (begin / 1000, length / 1000) == (event["ts"], event["dur"])
        stack = open_spans.setdefault(event["tid"], [])
        while stack and stack[-1][1] <= begin and stack[-1] != (begin, begin):
            stack.pop()
        assert not stack or (stack[-1][0] <= begin and begin + length <= stack[-1][1]), f"{event} is not within {stack[-1]}"
        stack.append((begin, begin + length))
    assert 0 not in titles


@pytest.mark.parametrize("name", ["two-ranks", "cta", "complete"])
def test_what_is_written_is_valid_and_all_spans_lie_in_their_step(small_runs, tmp_path, name):
    document, spans = written(small_runs / name, tmp_path / "t.json")
    valid(document)
    steps = {(e["pid"], e["args"]["step"]): e for e in spans if e["name"].startswith("step ")}
    for event in (e for e in spans if e["name"] != "rows on their way"):
        whole = steps[event["pid"], event["args"]["step"]]
        assert whole["ts"] <= event["ts"] and event["ts"] + event["dur"] <= whole["ts"] + whole["dur"]
    order = ["mix", "compute"] if name == "cta" else ["compute", "mix"]
    first = sorted((e["ts"], e["name"]) for e in spans if e["args"]["step"] == 0 and e["pid"] == 1 and e["name"] in order)
    assert [first[0][1], first[-1][1]] == order


def test_an_epoch_begins_where_the_one_before_ended(small_runs, tmp_path):
    _, spans = written(small_runs / "complete", tmp_path / "t.json")
    with h5py.File(small_runs / "complete" / "run.h5") as file:
        ends, seconds = file["epochs/step"][:], file["network/seconds"][:]
    begins = {e["args"]["step"]: e["ts"] for e in spans if e["name"].startswith("step ")}
    assert begins[0] == 0
    for end, second in zip(ends[:-1].tolist(), seconds.tolist(), strict=False):
        assert begins[end] == pytest.approx(1e6 * second, abs=HALF_A_TICK)
        assert begins[end - 1] < 1e6 * second


@pytest.fixture
def hidden(tmp_path):
    """A cut run of two steps and two vertices on one rank; vertex 1 does not train in step 1."""
    log = RankLog(tmp_path / "run" / "log" / "rank-0000.h5", 0, [0, 1], network=True)
    graph = {"n": 2, "edges": [(0, 1)], "W": np.full((2, 2), 0.5), "lambda2_modulus": 0.0, "spectral_gap": 1.0, "spec": "ring:2", "weights": "x"}
    log.describe("", {}, graph)
    zeros = {c.name: np.zeros((), c.dtype) for c in columns("steps")}
    log.steps(**zeros | {"step": [0, 1], "loss": [[1, 2], [3, np.nan]], "io_s": [[0.25, 0.25], [0.25, 0]], "compute_s": [[1, 2], [1, 0]],
                         "wait_s": 0.5, "mix_s": 0.125, "hidden_s": [[1.5, 1.5], [4, 4]]})  # fmt: skip
    log.close(ended=False)
    return tmp_path / "run"


def test_the_times_of_two_steps_by_hand(hidden, tmp_path):
    document, spans = written(hidden, tmp_path / "t.json")
    found = {(e["name"], e["tid"], e["args"]["step"]): (e["ts"] / 1e6, e["dur"] / 1e6) for e in spans}
    rank, way, zero, one = 1, 2, 3, 4
    valid(document)
    assert found == {
        ("step 0", rank, 0): (0, 4.75), ("data", zero, 0): (0, 0.25), ("compute", zero, 0): (0.25, 1),
        ("data", one, 0): (1.25, 0.25), ("compute", one, 0): (1.5, 2), ("exchange wait", rank, 0): (3.5, 1), ("mix", rank, 0): (4.5, 0.25),
        # 3 s on their way up to the wait; 8 s in step 1 is an upper bound, cut at the end of the one before
        ("rows on their way", way, 0): (0.5, 3), ("rows on their way", way, 1): (3.5, 2.5),
        ("step 1", rank, 1): (4.75, 2.5), ("data", zero, 1): (4.75, 0.25), ("compute", zero, 1): (5, 1),
        ("exchange wait", rank, 1): (6, 1), ("mix", rank, 1): (7, 0.25),
    }  # fmt: skip
    assert document["otherData"]["graph"] == "ring:2"


def test_times_of_any_length_nest_exactly(tmp_path):
    random, log = np.random.default_rng(4), []
    for rank, hosted in enumerate(([0, 2, 5], [1, 3, 4])):
        log.append(RankLog(tmp_path / "run" / "log" / f"rank-{rank:04d}.h5", rank, hosted, network=rank == 0))
        if rank == 0:
            graph = {"n": 6, "edges": [(0, 1)], "W": np.eye(6), "lambda2_modulus": 0.0, "spectral_gap": 1.0, "spec": "ring:6", "weights": "x"}
            log[0].describe("", {}, graph)
        zeros = {c.name: np.zeros((), c.dtype) for c in columns("steps")}
        parts = {part: random.exponential(1e-3, (300, 3)) for part in trace.PARTS}
        log[rank].steps(**zeros | parts | {"step": np.arange(300)})
        log[rank].close(ended=False)
    document, spans = written(tmp_path / "run", tmp_path / "t.json")
    assert len(spans) > 300 * 2 * 9
    valid(document)


def test_steps_are_chosen_and_the_last_that_fit_are_drawn(hidden, tmp_path, monkeypatch):
    assert {e["args"]["step"] for e in written(hidden, tmp_path / "a.json", "1:1")[1]} == {1}
    assert {e["args"]["step"] for e in written(hidden, tmp_path / "b.json", ":0")[1]} == {0}
    monkeypatch.setattr(trace, "EVENTS", 12)  # a step of two vertices on one rank has up to 8
    assert "steps 1 to 1 of 2 (the last that a browser takes" in trace.write(hidden, tmp_path / "c.json")
    for wrong in ("1", "1:2", "2:1", "a:b", "-1:1"):
        with pytest.raises(UserError, match="give FIRST:LAST within 0:1"):
            trace.write(hidden, tmp_path / "d.json", wrong)


def test_nothing_is_written_over(hidden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("mine")
    bare = RankLog(tmp_path / "bare" / "log" / "rank-0000.h5", 0, [0], network=True)
    bare.describe("", {}, {"n": 1, "edges": [], "W": np.eye(1), "lambda2_modulus": 0.0, "spectral_gap": 1.0, "spec": "ring:1", "weights": "x"})
    bare.close()
    for words, told in ((["run", "-o", "mine.json"], "is there already"), (["nowhere"], "does not exist"), (["bare"], "no step in its log"),
                        (["run", "-o", "gone/t.json"], "No such file or directory; give another place")):  # fmt: skip
        result = CliRunner().invoke(command, words)
        assert isinstance(result.exception, UserError) and told in str(result.exception)
    assert (tmp_path / "mine.json").read_text() == "mine" and not list(tmp_path.glob("*.new")) and not (tmp_path / "bare-trace.json").exists()
    assert CliRunner().invoke(command, ["run"]).output.startswith("run-trace.json: steps 0 to 1 of 2;")
