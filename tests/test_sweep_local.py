"""Sweeps on this machine: interrupted and gone on with, failing in part, with mpirun, cancelled; their runs in tables."""

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT, cli, environment
from safetensors.numpy import load_file

from mpiconsensus import process, status
from mpiconsensus.runread import Run
from mpiconsensus.sweep import children, costs, plan

sys.path.insert(0, str(ROOT))
LONG = 800
TEXT = f"""
[set]
"model.name" = "logistic"
"topology.graph" = "ring:4"
"training.epochs" = 1000
"evaluation.samples" = 10
[grid]
"training.max_steps" = [2, {LONG}]
"training.seed" = [1, 2]
"""
WORDS = ["sweep", "s.toml", "--out", "root", "--local", "--at-once", "1"]


def start(folder, *words, **changes):
    """Start `mpiconsensus words...` and return the process."""
    return subprocess.Popen(
        [sys.executable, "-m", "mpiconsensus", *words], cwd=folder, env=environment(**changes), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(found, process, what):
    until = time.monotonic() + 100
    while not found():
        assert process.poll() is None and time.monotonic() < until, (what, process.communicate())
        time.sleep(0.02)


def under_way(run):
    """Return whether a run trains: it has signed its directory, and listens for signals."""
    return process.alive(process.owner(run))


def models(run):
    """Return the weights of all models of a run, as bytes."""
    found = sorted((run / "model").rglob("*.safetensors"))
    return {(path.relative_to(run), name): array.tobytes() for path in found for name, array in load_file(path).items()}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A sweep of four runs, told to stop in the third, and called again: (folder, first process' output, what was there between, second)."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "s.toml").write_text(TEXT)
    # As in a Slurm step of its own: nothing of this may reach the runs.
    around = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "9", "PMIX_RANK": "0"}
    first = start(folder, *WORDS, **around)
    wait_for(lambda: under_way(folder / "root" / f"max_steps={LONG}-seed=1"), first, "the third run does not start")
    first.send_signal(signal.SIGTERM)
    said = first.communicate(timeout=60)
    between = {f["run"]: f for f in status.look([folder / "root"])}
    kept = {path: path.stat().st_mtime_ns for run in ("max_steps=2-seed=1", "max_steps=2-seed=2") for path in (folder / "root" / run).rglob("*")}
    second = cli(*WORDS, cwd=folder)
    return folder, (first.returncode, *said), between, kept, second


def test_a_signal_ends_the_sweep_behind_a_checkpoint(interrupted):
    _, (code, _, stderr), between, _, _ = interrupted
    assert code == 75 and "SIGTERM received: 2 of 4 runs are not finished" in stderr and "`mpiconsensus sweep s.toml --out root --local --at-once 1` goes on" in stderr
    assert [f["state"] for f in between.values()] == ["finished", "finished", "stopped", "missing"]
    assert list(between) == [f"max_steps={steps}-seed={seed}" for steps in (2, LONG) for seed in (1, 2)]


def test_called_again_it_goes_on_with_what_is_missing(interrupted):
    folder, _, between, kept, second = interrupted
    assert second.returncode == 0, second.stderr
    assert "4 runs, 2 finished, 2 to do" in second.stdout and second.stdout.count("started") == 2
    assert kept == {path: path.stat().st_mtime_ns for path in kept}, "what was finished is left alone"
    stopped = between[f"max_steps={LONG}-seed=1"]["step"]
    with Run(folder / "root" / f"max_steps={LONG}-seed=1") as run:
        assert [made["step"] for made in run.facts["resumed"]] == [stopped] and 0 < stopped < LONG
    rows = [line.split() for line in second.stdout.splitlines()[-4:]]
    assert [row[:2] for row in rows] == [[name, "finished"] for name in between]
    for row in rows:
        with Run(folder / "root" / row[0]) as run:
            assert row[2] == f"{100 * run.closing['accuracy'].mean():.2f}"


def test_the_end_is_that_of_the_run_left_alone(interrupted):
    folder, *_ = interrupted
    name = f"max_steps={LONG}-seed=1"
    done = cli("train", f"root/jobs/{name}.toml", "--out", "alone", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert models(folder / "root" / name) == models(folder / "alone") != models(folder / "root" / f"max_steps={LONG}-seed=2")
    assert sorted(path.name for path in (folder / "root").iterdir() if path.is_dir()) == sorted(["jobs", "output", *plan_names(folder)])


def plan_names(folder):
    return [run.name for run in plan.read(folder / "s.toml").runs]


def test_the_cost_was_told_ahead(interrupted):
    """Against the logs, which count what was sent and drawn."""
    folder, *_ = interrupted
    for found in costs.figures(plan.read(folder / "s.toml")):
        with Run(folder / "root" / found["run"]) as run:
            assert (found["steps"], found["samples"]) == (len(run.steps("step")), run.epochs("samples").sum())
            assert found["bytes_sent"] == run.epochs("bytes_sent").sum()


def test_a_run_does_not_see_the_launcher_around_the_sweep(interrupted):
    folder, *_ = interrupted
    with Run(folder / "root" / "max_steps=2-seed=1") as run:
        assert run.facts["ranks"] == 1 and run.facts["mpi"] == "none (one process)"
    assert process.owner(folder / "root" / "max_steps=2-seed=1")["slurm"] == ""
    around = {"SLURM_JOB_ID": "7", "OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0", "PRTE_LAUNCHED": "1", "OMPI_MCA_btl": "self", "HOME": "/h", "OMP_NUM_THREADS": "3"}
    made = children.environment(2, around)
    assert {k: v for k, v in made.items() if "ALLOW" not in k} == {"OMPI_MCA_btl": "self", "HOME": "/h", "OMP_NUM_THREADS": "3"}
    assert children.environment(2, {})["OMP_NUM_THREADS"] == "2"


def test_analysis_takes_the_sweep_and_keeps_the_spread_over_seeds_apart(interrupted, tmp_path):
    from analysis import compare, table

    folder, *_ = interrupted
    root = folder / "root"
    shown = CliRunner().invoke(table.main, [str(root), "--format", "json"])
    assert shown.exit_code == 0, shown.output
    for row, steps in zip(json.loads(shown.stdout), (2, LONG), strict=True):
        both = []
        for seed in (1, 2):
            with Run(root / f"max_steps={steps}-seed={seed}") as run:
                both.append(100 * run.closing["accuracy"])
        assert (row["training.max_steps"], row["seeds"]) == (steps, 2)
        assert row["accuracy"] == pytest.approx(np.mean(both)) and row["sd_seeds"] == pytest.approx(np.std(np.mean(both, axis=1), ddof=1))
        assert row["sd_vertices"] == pytest.approx(np.sqrt(np.mean(np.var(both, axis=1, ddof=1))))
    if importlib.util.find_spec("matplotlib"):
        shown = CliRunner().invoke(compare.main, [str(root), "-o", str(tmp_path / "c.png")])
        assert shown.exit_code == 0, shown.output
        with open(tmp_path / "c.csv") as file:
            drawn = list(csv.DictReader(file))
        assert [(row["x"], row["seeds"]) for row in drawn] == [("2", "2"), (str(LONG), "2")]
        assert float(drawn[1]["accuracy_sd_seeds"]) == pytest.approx(np.std(np.mean(both, axis=1), ddof=1))
    # a run put aside, and one that is missing: the first is no run of the sweep, without the second its means would be others
    (root / f"max_steps={LONG}-seed=2").rename(root / "aside.1")
    try:
        shown = CliRunner().invoke(table.main, [str(root)])
        told = shown.stderr
        assert shown.exit_code and f"max_steps={LONG}-seed=2" in told and "mpiconsensus sweep" in told and "\n" not in told.strip()
    finally:
        (root / "aside.1").rename(root / f"max_steps={LONG}-seed=2")


def test_a_failed_run_does_not_stop_the_others(tmp_path):
    text = '[set]\n"model.name" = "logistic"\n"topology.graph" = "ring:2"\n"training.max_steps" = 3\n[grid]\n"training.lr" = [1e38, 0.1]\n'
    (tmp_path / "s.toml").write_text(text)
    done = cli("sweep", "s.toml", "--out", "root", "--local", "--at-once", "1", cwd=tmp_path)
    assert done.returncode == 3 and "1 of 2 runs failed" in done.stderr and "root/output" in done.stderr, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()[-2:]] == ["failed", "finished"]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert "lr=1e+38" in line and "exit code 3" in line and "is nan at step 1" in line
    told = status.look([tmp_path / "root"])
    assert [f["state"] for f in told] == ["ended", "finished"] and "is nan at step 1" in told[0]["note"]


def test_cancel_ends_a_sweep_under_mpirun_and_refuses_what_is_finished(tmp_path, interrupted):
    (tmp_path / "s.toml").write_text(TEXT.replace(f"[2, {LONG}]", "[500000, 500001]"))
    sweep = start(tmp_path, "sweep", "s.toml", "--out", "root", "--local", "--ranks", "2", "--at-once", "1")
    run = tmp_path / "root" / "max_steps=500000-seed=1"
    wait_for(lambda: under_way(run), sweep, "the run does not start")
    twice = cli("sweep", "s.toml", "--out", "root", "--local", "--ranks", "2", cwd=tmp_path)
    assert twice.returncode == 2 and "under way in another process" in twice.stderr and "mpiconsensus cancel root" in twice.stderr
    done = cli("cancel", "root", cwd=tmp_path)
    assert done.returncode == 0 and f"root: SIGUSR2 to process {sweep.pid}" in done.stdout and str(run.relative_to(tmp_path)) in done.stdout
    _, stderr = sweep.communicate(timeout=60)
    assert sweep.returncode == 75 and "4 of 4 runs are not finished" in stderr
    assert [f["state"] for f in status.look([tmp_path / "root"])] == ["stopped"] + ["missing"] * 3
    with Run(run) as log:
        assert log.facts["ranks"] == 2
    for path, told in (("root", "not under way"), (interrupted[0] / "root", "all runs of"), (interrupted[0] / "root" / "max_steps=2-seed=1", "is finished")):
        done = cli("cancel", path, cwd=tmp_path)
        assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_process_is_told_from_another_with_its_number(tmp_path, monkeypatch):
    other = subprocess.Popen(["sleep", "60"])
    try:
        process.sign(tmp_path)
        mine = process.owner(tmp_path)
        assert process.alive(mine) and mine["pid"] == os.getpid()
        assert not process.alive(mine | {"pid": other.pid}), "started at another time"
        assert not process.alive(mine | {"host": "another"}) and not process.alive(mine | {"boot": "before"})
        reused = mine | {"pid": other.pid}
        assert not process.tell(reused, signal.SIGKILL) and other.poll() is None
        theirs = mine | {"pid": other.pid, "start": process._start(other.pid)}
        assert process.tell(theirs, signal.SIGTERM) and other.wait(10) == -signal.SIGTERM
        assert not process.alive(theirs) and not process.tell(theirs, signal.SIGTERM)
    finally:
        other.kill()
        other.wait()
    Path(tmp_path, process.NAME).write_text("{")
    assert process.owner(tmp_path) is None and not process.alive(None)
