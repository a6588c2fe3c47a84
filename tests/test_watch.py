"""The live view against logs made by hand, on a terminal, a narrow one, a dumb one and none."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
from conftest import cli, environment

from mpiconsensus import status, watch
from mpiconsensus.errors import UserError
from mpiconsensus.runlog import RankLog, columns

NAN = float("nan")
JOB = '[training]\nepochs = {epochs}\nmax_steps = 0\nbatch_size = 8\n[log]\nflush_s = 30.0\n[algorithm]\nname = "consensus"\n'


class Made:
    """A run made by hand: ranks with so many vertices each, 10 steps an epoch."""

    def __init__(self, folder, hosted=(2, 2), epochs=4, tables="", **facts):
        (folder / "log").mkdir(parents=True)
        (folder / "job.toml").write_text("")
        self.folder, n = folder, sum(hosted)
        owned = np.split(np.arange(n), np.cumsum(hosted)[:-1])
        self.logs = [RankLog(folder / "log" / f"rank-{r:04d}.h5", r, v, network=r == 0) for r, v in enumerate(owned)]
        facts = {"hosts": [os.uname().nodename], "ranks": len(hosted), "steps_per_epoch": 10, "model": "mlp", "data": "digits", **facts}
        graph = {"n": n, "edges": [(0, 1)], "W": None, "triplets": ([0], [0], [1.0]), "lambda2_modulus": 0.5, "spectral_gap": 0.5,
                 "spec": f"ring:{n}", "weights": "metropolis"}  # fmt: skip
        self.logs[0].describe(JOB.format(epochs=epochs) + tables, facts, graph)

    def steps(self, first, count, loss, **times):
        """times: {column: seconds of a vertex's step, a value a rank}."""
        for r, log in enumerate(self.logs):
            zeros = {c.name: np.zeros((), c.dtype) for c in columns("steps")}
            given = {name: values[r] for name, values in times.items()}
            losses = np.broadcast_to(loss, (count, len(log.vertices)))
            log.steps(**zeros | given | {"step": np.arange(first, first + count), "loss": losses})

    def epoch(self, number, accuracy, distance=0.5, seconds=10.0, mean_accuracy=0.75):
        distances = np.broadcast_to(distance, len(accuracy))
        for log in self.logs:
            zeros = {c.name: np.zeros((), c.dtype) for c in columns("epochs")}
            mine = {"accuracy": np.asarray(accuracy)[log.vertices], "consensus_distance_vertex": distances[log.vertices]}
            log.epoch(**zeros | mine | {"epoch": number, "step": 10 * number, "samples": 80, "train_loss": 1.0})
        zeros = {c.name: np.zeros((), c.dtype) for c in columns("network")}
        self.logs[0].network(**zeros | {"epoch": number, "consensus_distance": 0.125, "mean_accuracy": mean_accuracy, "seconds": seconds})

    def held(self):
        """Take the run's lock, as a process that trains does; return what gives it back."""
        handle = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        return handle


@pytest.fixture
def going(tmp_path):
    """A run that goes on: 15 of 40 steps, one epoch; rank 1 works twice as long."""
    run = Made(tmp_path / "run")
    run.steps(0, 15, 0.25, io_s=(0.001, 0.001), compute_s=(0.003, 0.008), mix_s=(0.001, 0.001), wait_s=(0.006, 0.001))
    run.epoch(1, [0.5, 0.75, 1.0, 0.25], distance=[0.1, 0.2, 0.3, 0.4])
    handle = run.held()
    yield run
    os.close(handle)


def test_a_frame_by_hand(going):
    lines, over = watch.frame([going.folder])
    assert not over
    text = "\n".join(lines)
    assert lines[0] == "run  running" and "ring:4, 4 vertices on 2 ranks; mlp, digits" in lines[1]
    assert lines[2] == "step 15 of 40 (37.5 %), epoch 1  ###########-------------------"
    # 5 steps of 2 vertices x 11 ms since the epoch, which ended at 10 s; 25 steps at 1 s each, as those of the epoch
    assert "time           10 s of training, 25 s left at this pace" in text
    # of the vertices: mean 0.625, deviation of a sample sqrt(0.3125 / 3)
    assert "accuracy %     62.50 +- 32.27, mean model 75.00  (epoch 1)" in text
    assert "distance       0.125  (epoch 1)" in text
    # a step: 4 vertices x 80 samples / 10 steps; the ranks' steps take 22 ms, work and waiting
    assert "samples/s      1,455  (22 ms a step)" in text
    assert "slowest rank   1: 20 ms of work a step, 2 ms of waiting; median rank 15 and 7" in text
    assert "loss           0.2500  " in text and "of the last 15 steps" in text
    assert lines[-4:] == [
        "0          0       50.00  0.2500       0.1", "1          0       75.00  0.2500       0.2",
        "2          1      100.00  0.2500       0.3", "3          1       25.00  0.2500       0.4",
    ]  # fmt: skip


def test_before_the_first_epoch_the_pace_is_that_of_the_steps(tmp_path):
    run = Made(tmp_path / "run")
    run.steps(0, 4, [[0.5, NAN]], compute_s=(0.5, 0.25), wait_s=(0.0, 0.25))
    handle = run.held()
    text = "\n".join(watch.frame([run.folder])[0])
    os.close(handle)
    # one vertex of each rank trains, batch 8: 16 samples a step of 1 s
    assert "samples/s      16  (1e+03 ms a step)" in text and "4 s of training, 36 s left" in text and "accuracy %     -" in text
    assert "1          0           -       -         -" in text, "a vertex that does not train"


def test_vertices_of_their_own_pace_follow_each_other_in_no_rank(tmp_path):
    """Each vertex takes 1 s a step, whoever shares its rank; rank 1 hosts three."""
    run = Made(tmp_path / "run", hosted=(1, 3), asynchronous=True)
    run.steps(0, 10, 0.25, compute_s=(0.75, 0.875), wait_s=(0.25, 0.125))
    run.epoch(1, [0.5, 0.75, 1.0, 0.25])
    handle = run.held()
    text = "\n".join(watch.frame([run.folder])[0])
    os.close(handle)
    assert "samples/s      32  (1e+03 ms a step)" in text  # 4 vertices x 8 a step
    assert "slowest rank   1: 875 ms of work a step, 125 ms of waiting; median rank 812 and 188" in text


@pytest.mark.parametrize("epochs", [0, 1])
def test_what_is_left_of_modelled_time_is_told_in_seconds_of_the_machine(tmp_path, epochs):
    """A quarter of the steps took 30 s here, and 5000 modelled ones: 90 s are left."""
    started = datetime.fromtimestamp(time.time() - 30, UTC).isoformat()
    run = Made(tmp_path / "run", tables='[hetero]\nclock = "virtual"\n', asynchronous=True, started=started)
    run.steps(0, 10, 0.25, compute_s=(500, 500))
    if epochs:
        run.epoch(1, [0.5, 0.75, 1.0, 0.25], seconds=5000.0)
    handle = run.held()
    text, found = "\n".join(watch.frame([run.folder])[0]), status.figures(run.folder)
    os.close(handle)
    if epochs:
        assert found["left_s"] == pytest.approx(90, abs=4), "to the time that this took"
        assert re.search(r"time           1 h 23 min of modelled time, 1 min (29|3\d) s left at this pace", text)
    else:
        assert found["left_s"] is None and "time           1 h 23 min of modelled time\n" in text


def test_ctrl_c_is_given_back_when_a_view_is_over(tmp_path, monkeypatch):
    run = Made(tmp_path / "run")
    run.steps(0, 15, 0.25)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("TERM", "xterm")
    before, frame, during = signal.getsignal(signal.SIGINT), watch.frame, []
    monkeypatch.setattr(watch, "frame", lambda *words: during.append(signal.getsignal(signal.SIGINT)) or frame(*words))
    watch.watch(run.folder)
    assert len(during) == 1 and during[0] is not before and signal.getsignal(signal.SIGINT) is before


def test_a_thousand_vertices_are_summarised(tmp_path):
    run, random = Made(tmp_path / "run", hosted=(300, 700)), np.random.default_rng(3)
    accuracy, distance = random.random(1000), random.random(1000)
    run.steps(0, 10, 1.0, compute_s=(0.1, 0.1))
    run.epoch(1, accuracy, distance)
    lines, _ = watch.frame([run.folder], height=24)
    assert len(lines) <= 24
    table = {line.split("  ")[0]: line.split() for line in lines}
    for name, q in {"lowest": 0, "tenth": 0.1, "median": 0.5, "nine tenths": 0.9, "highest": 1}.items():
        shown = [float(word) for word in table[name][-3:]]
        assert shown == pytest.approx([100 * np.quantile(accuracy, q), 1.0, np.quantile(distance, q)], rel=5e-3, abs=0.005)
    worst = [int(line.split()[0]) for line in lines[lines.index("worst of 1000:") + 1 :]]
    assert len(worst) >= 3 and worst == np.argsort(accuracy)[: len(worst)].tolist()
    run.epoch(2, np.full(1000, NAN))
    assert len(watch.frame([run.folder], height=24)[0]) <= 24


def test_a_finished_run_is_over_and_shows_its_closing_evaluation(tmp_path):
    run = Made(tmp_path / "run", hosted=(2,), epochs=1)
    run.steps(0, 10, 0.5)
    run.epoch(1, [0.5, 0.5])
    network = {"mean_accuracy": 1, "mean_accuracy_recalibrated": NAN, "consensus_distance": 0.5, "mass": NAN, "best_epoch": 1, "samples": 9, "split": "test"}
    run.logs[0].closing(accuracy=[0.75, 1.0], loss=0.5, **network)
    run.logs[0].close()
    (run.folder / "model").mkdir()
    (run.folder / "model" / "index.json").write_text('{"last": 1, "best": 1}')
    lines, over = watch.frame([run.folder])
    text = "\n".join(lines)
    assert over and lines[0] == "run  finished" and "87.50 +- 17.68  (closing evaluation)" in text and "left" not in text
    assert lines[-2].split() == ["0", "0", "75.00", "0.5000", "0.5"]


@pytest.mark.parametrize("kept, told", [(True, "ended"), (False, "waiting")])
def test_a_run_that_was_killed_and_one_that_waits(tmp_path, kept, told):
    run = Made(tmp_path / "run")
    run.steps(0, 3, 0.5)
    if not kept:
        for path in (run.folder / "log").iterdir():
            path.unlink()
    lines, over = watch.frame([run.folder])
    assert lines[0] == f"run  {told}" and over == (told == "ended")
    assert (lines[2].startswith("step 3 of 40")) if kept else "no log yet" in lines[1]


def test_a_directory_of_runs_has_a_line_each(tmp_path, going):
    for name in ("a", "b"):
        Made(tmp_path / name).steps(0, 3, 0.5)
    runs = status.find([tmp_path])
    lines, over = watch.frame(runs)
    assert not over and [line.split()[:3] for line in lines[1:]] == [["a", "ended", "3"], ["b", "ended", "3"], ["run", "running", "15"]]
    many = [tmp_path / "a"] * 30 + [going.folder]
    lines, _ = watch.frame(many, height=10)
    assert len(lines) == 9 and lines[1].startswith("run  running") and lines[-1] == "and 24 more: 24 ended"


def test_the_course_of_a_loss():
    assert watch.spark(np.array([0.0, 0.5, NAN, 1.0]), False) == "_~#"
    assert watch.spark(np.arange(64.0), True, 8) == watch.SPARKS[True] and watch.spark(np.ones(3), False) == "___"


def test_without_a_terminal_one_frame_is_printed_and_nothing_is_written(going):
    before = {path: path.stat().st_mtime_ns for path in going.folder.rglob("*")}
    done = cli("watch", going.folder)
    assert done.returncode == 0 and "\x1b" not in done.stdout and done.stdout.count("run  running") == 1, done.stderr
    assert "slowest rank   1: 20 ms" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in going.folder.rglob("*")} == before


def test_what_is_no_run_or_newer_is_told_in_one_line(tmp_path, going):
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "nowhere", "is no directory"), (tmp_path / "empty", "holds no run")):
        with pytest.raises(UserError, match=words):
            watch.watch(path)
    with h5py.File(going.folder / "log" / "rank-0000.h5", "r+") as file:
        file.attrs["format_version"] = 99
    done = cli("watch", going.folder)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "log format 99, this program reads 1; install" in done.stderr


class Terminal:
    """`mpiconsensus watch` on a terminal of its own."""

    def __init__(self, path, columns=80, **changes):
        self.side, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        words = [sys.executable, "-m", "mpiconsensus", "watch", str(path)]
        env = {k: v for k, v in environment(**{"TERM": "xterm", **changes}).items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(words, stdin=other, stdout=other, stderr=other, env=env, start_new_session=True)
        os.close(other)
        self.text = ""

    def until(self, words, seconds=60):
        """Read until `words` come, or the program ends."""
        end = time.monotonic() + seconds
        while words not in self.text and time.monotonic() < end:
            if select.select([self.side], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.side, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    break
        return self.text


def test_a_terminal_shows_what_comes_and_ctrl_c_ends_it_well(going):
    seen = Terminal(going.folder, columns=40)
    assert "step 15 of 40" in seen.until("slowest rank")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.text)
    assert max(len(line.strip("\r")) for line in shown.split("\n")) == 40
    assert next(line.strip("\r")[-1] for line in shown.split("\n") if line.startswith("slowest rank")) == "\u2026", "cut, not wrapped"
    going.steps(15, 5, 0.125)
    going.epoch(2, [0.5, 0.75, 1.0, 0.25], seconds=20.0, mean_accuracy=0.875)
    seen.until("20 s of training")
    seen.process.send_signal(signal.SIGINT)
    seen.until("never said", 5)
    assert seen.process.wait(20) == 0 and "Traceback" not in seen.text and "20 s of training" in seen.text
    assert seen.text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"


def test_a_view_ends_with_its_run_and_a_dumb_terminal_has_one_frame(tmp_path):
    run = Made(tmp_path / "run")
    run.steps(0, 15, 0.25)
    handle = run.held()
    dumb, seen = Terminal(run.folder, TERM="dumb"), Terminal(run.folder)
    dumb.until("never said")
    assert dumb.process.wait(20) == 0 and "\x1b" not in dumb.text and dumb.text.count("slowest rank") == 1
    seen.until("slowest rank")
    assert seen.process.poll() is None
    os.close(handle)
    seen.until("never said", 30)
    assert seen.process.wait(20) == 0 and "run  ended" in seen.text
