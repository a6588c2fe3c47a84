"""`mpiconsensus status` of runs under way, finished, stopped and ended, against what their logs hold."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import h5py
import pytest
from conftest import cli, environment

from mpiconsensus import status

EPOCHS = 4000
SLOW = ["--set", f"training.epochs={EPOCHS}", "--set", "log.flush_s=0.2", "--set", "evaluation.every=1"]


def told(folder, *words):
    done = cli("status", *words, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return {f["run"]: f for f in json.loads(done.stdout)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs: done (two epochs), going (killed at the end of the module)."""
    folder = tmp_path_factory.mktemp("status")
    # With samples held out the closing evaluation, on the test set, is not that of the last epoch.
    held_out = ["--set", "evaluation.validation_fraction=0.3"]
    done = cli("train", "--set", "training.epochs=2", *held_out, "--out", "runs/done", cwd=folder, timeout=200)
    assert done.returncode == 0, done.stderr
    words = [sys.executable, "-m", "mpiconsensus", "train", *SLOW, "--out", "runs/going"]
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(words, cwd=folder, env=environment(), stdout=said, stderr=said)
    until = time.monotonic() + 120
    while "going" not in _seen(folder) and time.monotonic() < until:
        assert process.poll() is None, (folder / "said").read_text()
        time.sleep(0.2)
    yield folder, process
    process.kill()
    process.wait()


def _seen(folder):
    """Return the runs that have an epoch in their log."""
    return [d.name for d in (folder / "runs").iterdir() if (d / "job.toml").is_file() and status.figures(d)["epoch"]]


def test_a_finished_run_is_what_its_log_says(folder):
    folder, _ = folder
    found = told(folder)["done"]
    with h5py.File(folder / "runs" / "done" / "run.h5") as log:
        assert (found["step"], found["epoch"]) == (len(log["steps/step"]), len(log["epochs/epoch"])) == (found["steps"], 2)
        accuracy = log["closing/accuracy"][:]
        assert found["accuracy"] == pytest.approx(accuracy.mean()) and found["accuracy_sd"] == pytest.approx(accuracy.std(ddof=1))
        assert found["consensus_distance"] == log["network/consensus_distance"][-1] > 0
        assert found["seconds"] == log["network/seconds"][-1]
    assert (found["state"], found["left_s"]) == ("finished", None)


def test_a_run_under_way_says_how_long_it_will_take(folder):
    folder, _ = folder
    found = told(folder, "runs/going")["going"]
    assert found["state"] == "running" and 0 < found["step"] < found["steps"] and found["written_s"] < 60
    # At the pace of the epochs that are complete: their end is one epoch behind the last step at most, and one there is.
    rest_s, epoch = found["seconds"] * (found["steps"] - found["step"]), found["steps"] / EPOCHS
    assert rest_s / found["step"] <= found["left_s"] * (1 + 1e-9) and found["left_s"] <= rest_s / max(epoch, found["step"] - epoch) * (1 + 1e-9)
    table = cli("status", cwd=folder).stdout.splitlines()
    assert table[0].split()[:3] == ["run", "state", "step"] and [line.split()[:2] for line in table[1:]] == [
        ["done", "finished"], ["going", "running"],
    ]  # fmt: skip


def test_run_h5_follows_a_run_under_way_and_whoever_asks_writes_nothing(folder):
    folder, process = folder
    run = folder / "runs" / "going"
    until = time.monotonic() + 60
    while not (run / "run.h5").exists() and time.monotonic() < until:
        time.sleep(0.1)
    with h5py.File(run / "run.h5") as log:
        steps = log["steps/step"][:]
        assert steps.tolist() == list(range(len(steps))) and len(steps) and not log.attrs["complete"]
    os.kill(process.pid, signal.SIGSTOP)
    try:
        time.sleep(0.5)  # an assembly that had begun
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        found, shown = status.figures(run), cli("watch", run)
        assert found["step"] >= len(steps) and "going  running" in shown.stdout
        assert f"step {found['step']:,} of {found['steps']:,}" in shown.stdout
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    finally:
        os.kill(process.pid, signal.SIGCONT)


def test_a_run_that_was_stopped_can_be_told_from_one_that_ended(folder):
    folder, process = folder
    os.kill(process.pid, signal.SIGSTOP)
    assert told(folder)["going"]["state"] == "running", "it holds its directory, whatever it does"
    os.kill(process.pid, signal.SIGCONT)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(60) == 75
    assert told(folder)["going"]["state"] == "stopped"
    (folder / "runs" / "going" / "checkpoint").rename(folder / "kept")
    assert (told(folder)["going"]["state"], told(folder)["going"]["left_s"]) == ("ended", None)


def test_another_machine_s_run_is_running_while_its_log_is_written_to(folder, monkeypatch):
    folder, _ = folder
    run = folder / "runs" / "done"
    (run / "model" / "index.json").rename(folder / "index.json")
    log = run / "log" / "rank-0000.h5"
    try:
        os.utime(log)
        assert status.figures(run)["state"] == "ended", "on this machine the lock tells"
        monkeypatch.setattr(socket, "gethostname", lambda: "another")
        assert status.figures(run)["state"] == "running"
        os.utime(log, (time.time() - 3600,) * 2)
        assert status.figures(run)["state"] == "ended"
    finally:
        (folder / "index.json").rename(run / "model" / "index.json")


def test_a_log_that_cannot_be_read_is_told_beside_the_others(folder, tmp_path):
    folder, _ = folder
    runs = tmp_path / "runs"
    (runs / "bad" / "log").mkdir(parents=True)
    (runs / "bad" / "job.toml").write_text("")
    (runs / "bad" / "log" / "rank-0000.h5").write_bytes(b"no log")
    (runs / "good").symlink_to(folder / "runs" / "done")
    lines = status.table([status.figures(path) for path in status.find([runs])])
    assert [line.split()[:2] for line in lines[1:3]] == [["bad", "ended"], ["good", "finished"]]
    assert lines[3].startswith("bad: ") and "rank-0000.h5' cannot be read" in lines[3]


@pytest.mark.parametrize(
    "words, told", [(["nowhere"], ["'nowhere'", "no directory"]), ([], ["'runs'", "no directory"]), (["."], ["'.'", "holds no run", "mpiconsensus train"])]
)
def test_what_holds_no_run_is_named(tmp_path, words, told):
    done = cli("status", *words, cwd=tmp_path)
    assert done.returncode == 2 and [word for word in told if word not in done.stderr] == []
    assert len(done.stderr.splitlines()) == 1


def test_times_are_in_two_units():
    given = [0.4, 59.4, 59.6, 61, 3599.4, 3600, 7500, 172800]
    told = ["0 s", "59 s", "1 min 00 s", "1 min 01 s", "59 min 59 s", "1 h 00 min", "2 h 05 min", "2 d 00 h"]
    assert [status.duration(s) for s in given] == told
