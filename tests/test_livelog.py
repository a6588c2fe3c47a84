"""run.h5 and the log of a run that goes on: sound at every moment, whoever is killed; nothing is written by who looks on."""

import os
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, cli, mpirun
from test_runlog import FACTS, TOML, block, expect, graph, write_closing, write_epoch, write_rank, write_steps

from mpiconsensus import assembly, livelog, logpace, merging
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.livelog import Live, look
from mpiconsensus.logpace import LogPace
from mpiconsensus.runlog import RankLog, columns
from mpiconsensus.runread import Run


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def seen(path):
    """Check the run.h5 at `path` against the numbers that were written and return how many steps it has, None where it is not there."""
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        return None
    with file:
        assert file.attrs["complete"] == 0
        for group in ("steps", "epochs"):
            for column in columns(group):
                values = file[group][column.name][:]
                np.testing.assert_array_equal(values, block(column, range(len(values)), range(6)), column.name)
        return len(file["steps/step"])


def servers(folder):
    """Return the processes that assemble the log of `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"mpiconsensus.assembly" in words and str(folder).encode() in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_run_h5_is_sound_at_any_moment_and_after_a_kill(tmp_path, victim):
    folder, random = tmp_path / "run", np.random.default_rng(10 + victim)
    launched = threading.Thread(target=mpirun, args=(3, ROOT / "tests" / "mpi" / "logger.py", folder, victim, random.uniform(0.3, 1.8)))
    launched.start()
    lengths = []
    while launched.is_alive():
        lengths.append(seen(folder / "run.h5"))
        time.sleep(0.01)
    assert max(length or 0 for length in lengths) > 0, "assembled while the run went on"
    assert lengths == sorted(lengths, key=lambda length: length or 0), "it never goes back"
    flushed = {}
    for line in (tmp_path / "run.told").read_text().splitlines():
        rank, steps, epochs = map(int, line.split())
        flushed[rank] = steps, epochs
    until = time.monotonic() + 20
    while servers(folder) and time.monotonic() < until:
        time.sleep(0.1)
    assert not servers(folder), "it ends with its parent"
    with Run(folder) as run:
        steps, epochs = len(run.steps("step")), len(run.epochs("epoch"))
        assert steps >= min(s for s, _ in flushed.values()) > 0 and epochs >= min(e for _, e in flushed.values())
        expect(run, steps, epochs, range(6))
        assert not run.complete
    assert seen(folder / "run.h5") == steps
    if victim == 0:
        told = cli("report", folder)
        assert told.returncode == 0 and f"incomplete: the log ends after step {steps}, epoch {epochs}" in told.stdout


def test_rows_are_seen_before_they_are_flushed_and_nothing_is_written(tmp_path):
    write_rank(tmp_path, 1, [0, 3], 13, 2, 4, closing=False)
    with RankLog(tmp_path / "log" / "rank-0000.h5", 0, [2, 1], network=True) as log:
        assert look(tmp_path) is None, "no description yet"
        log.describe(TOML, FACTS, graph(4))
        write_steps(log, range(9))
        write_epoch(log, 0)
        before = state(tmp_path)
        with look(tmp_path) as run:
            assert isinstance(run, Live) and (run.step, run.complete, run.closing) == (9, False, {})
            assert run.rank_of_vertex.tolist() == [1, 0, 0, 1] and run.graph["n"] == 4 and run.facts == FACTS
            for group, names in livelog.READ.items():
                rows = range(9 if group == "steps" else 1)
                for column in columns(group):
                    if column.name in names:
                        read = run.steps if group == "steps" else run.epochs
                        np.testing.assert_array_equal(read(column.name), block(column, rows, range(4)), column.name)
            np.testing.assert_array_equal(run.steps("loss", 2), block(columns("steps")[1], range(7, 9), range(4)))
            for column in columns("network"):
                np.testing.assert_array_equal(run.network(column.name), block(column, range(1), []))
        assert state(tmp_path) == before
        with Run(tmp_path) as run:
            assert run.step == 0, "not flushed, so not in run.h5"
        write_closing(log)
    with Run(tmp_path) as run:
        assert run.step == 9
    with look(tmp_path) as run:
        assert isinstance(run, Run) and run.steps("step", 3).tolist() == [6, 7, 8]


def test_the_end_of_a_long_log_is_read_and_its_closing(tmp_path, monkeypatch):
    monkeypatch.setattr(livelog, "LAST", 5)
    for rank in (0, 1):
        write_rank(tmp_path, rank, [rank], 40, 2, 2)
    with look(tmp_path) as run, Run(tmp_path) as whole:
        assert run.step == 40 and run.steps("step").tolist() == list(range(35, 40))
        np.testing.assert_array_equal(run.closing["accuracy"], whole.closing["accuracy"])


def test_a_damaged_file_is_named(tmp_path):
    write_rank(tmp_path, 0, [0], 3, 1, 1)
    with h5py.File(tmp_path / "log" / "rank-0000.h5", "r+") as file:
        del file["steps/wait_s"]
    with pytest.raises(UserError, match="log' is damaged.*move the damaged rank file away"):
        look(tmp_path)
    assert look(tmp_path / "nowhere") is None


class Clock:
    def __init__(self, now):
        self.now = now

    def time(self):
        return self.now


class Told:
    """Stands for a log and an assembly: notes what is asked of it."""

    def __init__(self):
        self.calls = []

    def flush(self, wait=True):
        self.calls.append("flush" if wait else "behind")

    def notice(self):
        self.calls.append("notice")

    def close(self, *ended):
        self.calls.append("close")


def test_ranks_that_started_apart_flush_together(monkeypatch):
    flushed = []
    for start in (100.2, 103.7):
        clock = Clock(start)
        monkeypatch.setattr(logpace, "time", clock)
        log, wrote, at = Told(), [], []
        pace = LogPace(log, 10.0, log)
        while clock.now < 131:
            clock.now = round(clock.now + 0.1, 1)
            count = len(log.calls)
            pace.beat(lambda wrote=wrote, clock=clock: wrote.append(clock.now))
            if len(log.calls) > count:
                assert log.calls[count:] == ["behind", "notice"] and wrote[-1] == clock.now, "what is flushed was written"
                at.append(clock.now)
        assert wrote == [float(t) for t in range(int(start) // 2 * 2 + 2, 131, 2)], "every two seconds, all ranks at once"
        flushed.append(at)
    assert flushed == [[110.0, 120.0, 130.0]] * 2
    pace.close()
    assert log.calls[-2:] == ["close", "close"]
    log.calls.clear()
    LogPace(log, 0.0).beat(lambda: None)
    assert log.calls == ["behind"], "0: behind every step"


def test_what_a_flush_behind_the_run_met_is_raised_by_the_next(tmp_path, monkeypatch):
    log = RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0], network=True)
    log.describe(TOML, FACTS, graph(1))
    write_steps(log, range(4))
    held, go = threading.Event(), threading.Event()

    def slow(fd):
        held.set()
        assert go.wait(20)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", slow)
        log.flush(wait=False)
        assert held.wait(20)
        write_steps(log, range(4, 6))
        log.flush(wait=False)  # the first one is still at it
        with Run(tmp_path) as run:
            assert run.step == 0
        go.set()
        until = time.monotonic() + 20
        while not log._behind.done() and time.monotonic() < until:
            time.sleep(0.01)
    with pytest.raises(TrainingError, match="No space left on device.*last flush"):
        log.flush()  # there is space again, but what was told as flushed may be lost
    log.flush()
    with Run(tmp_path) as run:
        expect(run, 6, 0, [0])
    log.close()


def test_a_short_run_has_no_assembler_and_a_longer_one_takes_its_own_away(tmp_path):
    write_rank(tmp_path, 0, [0], 3, 1, 1)
    kept = assembly.Assembly(tmp_path)
    kept.close()
    kept.notice()
    assert kept.process is None
    kept.notice()
    process = kept.process
    half_made = merging.aside_of(tmp_path, process.pid)
    half_made.write_text("half made")
    kept.close()
    assert process.returncode is not None and not half_made.exists() and not servers(tmp_path)


def test_an_assembler_that_died_does_not_end_the_run(tmp_path):
    write_rank(tmp_path, 0, [0], 3, 1, 1)
    kept = assembly.Assembly(tmp_path)
    kept.notice()
    kept.notice()
    kept.process.kill()
    kept.process.wait()
    for _ in range(3):
        kept.notice()
    kept.close()


def test_the_assembler_rests_a_hundred_times_as_long_as_it_works(tmp_path, monkeypatch):
    out, into = os.pipe()
    os.write(into, b"\n\n")  # two that came meanwhile are one
    used, waits, made = iter([1.0, 1.25]), [], []

    class Poll:
        def register(self, fd, events):
            assert (fd, events) == (out, 0)

        def poll(self, milliseconds):
            waits.append(milliseconds)
            if len(waits) == 2:
                os.close(into)

    monkeypatch.setattr(assembly.select, "poll", Poll)
    monkeypatch.setattr(assembly.time, "process_time", lambda: next(used))
    monkeypatch.setattr(assembly, "assemble", lambda folder: made.append(folder) or (_ for _ in ()).throw(OSError(28, "full")))
    assembly.serve(tmp_path, out)
    assert made == [tmp_path] and waits == [1000, pytest.approx(99 * 250)]
    os.close(out)


def test_an_older_assembly_does_not_take_the_place_of_a_newer(tmp_path, monkeypatch):
    merge = merging.merge
    with RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0], network=True) as log:
        log.describe(TOML, FACTS, graph(1))

        def overtaken(sources, out):
            merge(sources, out)
            monkeypatch.setattr(merging, "merge", merge)
            time.sleep(0.02)  # file times tick in milliseconds
            write_steps(log, range(3))
            log.flush()
            merging.assemble(tmp_path / ".")
            (tmp_path / "new").write_bytes((tmp_path / "run.h5").read_bytes())

        monkeypatch.setattr(merging, "merge", overtaken)
        monkeypatch.setattr(merging.os, "getpid", iter([1 << 22, (1 << 22) + 1]).__next__)
        merging.assemble(tmp_path)
    assert (tmp_path / "run.h5").read_bytes() == (tmp_path / "new").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "new", "run.h5"]


def test_what_a_killed_assembler_left_is_cleared_away(tmp_path):
    write_rank(tmp_path, 0, [0], 3, 1, 1)
    gone, alive, young = (merging.aside_of(tmp_path, number) for number in (1 << 22, os.getppid(), (1 << 22) + 1))
    for path in (gone, alive, young, tmp_path / "run.h5.other-1.new"):
        path.write_text("half made")
        if path != young:
            os.utime(path, (time.time() - 700,) * 2)
    merging.assemble(tmp_path)
    assert {path.name for path in tmp_path.glob("*.new")} == {alive.name, young.name, "run.h5.other-1.new"}
