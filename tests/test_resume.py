"""What a run may be gone on with: damaged checkpoints, other jobs and data, runs that ended or are under way."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, environment
from test_checkpoint import assert_same, checkpoints, cli, job, server, snapshot

from mpiconsensus import checkpoint, config
from mpiconsensus.runread import Run
from mpiconsensus.runtime import World

__all__ = ["cli", "server"]  # fixtures


@pytest.fixture
def stopped(cli, tmp_path):
    """A run with two checkpoints, at steps 7 and 14, killed at step 16."""
    assert cli(*job(), "--out", "run", what="kill", where="step", at=16).returncode == -signal.SIGKILL
    assert checkpoints(tmp_path / "run") == ["step-000000014", "step-000000007"]
    return tmp_path / "run"


def flip(path):
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))


DAMAGES = {
    "sha256 of rank-0000.safetensors differs": lambda p: flip(p / "rank-0000.safetensors"),
    "has 100 bytes": lambda p: os.truncate(p / "rank-0000.safetensors", 100),
    "rank-0000.safetensors: No such file": lambda p: (p / "rank-0000.safetensors").unlink(),
    "manifest.json was changed": lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text().replace('"epochs": 2', '"epochs": 1')),
    "manifest.json cannot be read": lambda p: os.truncate(p / "manifest.json", 200),
}  # fmt: skip


@pytest.mark.parametrize("told", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(cli, tmp_path, stopped, told):
    whole = shutil.copytree(stopped, tmp_path / "whole")
    assert cli("train", "--resume", "whole").returncode == 0
    DAMAGES[told](stopped / "checkpoint" / "step-000000014")
    done = cli("train", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert "step-000000014 is not whole" in done.stderr and told in done.stderr and "going back to step-000000007" in done.stderr
    assert_same(whole, stopped)
    assert checkpoints(stopped) == ["step-000000021", "step-000000014"]


def test_without_a_whole_checkpoint_nothing_is_touched(cli, stopped):
    for name in checkpoints(stopped):
        flip(stopped / "checkpoint" / name / "rank-0000.safetensors")
    before = snapshot(stopped)
    for word in (["run"], ["auto", "--out", "run"]):
        done = cli(*job(), "--resume", *word)
        assert done.returncode == 2 and "no checkpoint of 'run' is whole" in done.stderr
        assert "step-000000014: the sha256" in done.stderr and "step-000000007: the sha256" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert snapshot(stopped) == before


def test_a_newer_checkpoint_is_refused(cli, stopped):
    path = stopped / "checkpoint" / "step-000000014" / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    before = snapshot(stopped)
    done = cli("train", "--resume", "run")
    assert done.returncode == 2 and "has format 2, this program reads 1" in done.stderr
    assert snapshot(stopped) == before


@pytest.mark.parametrize(
    "keys, told",
    [
        (["training.lr=0.1"], "training.lr = 0.1, but run 'run' was started with 0.05"),
        (["topology.graph=ring:5"], 'topology.graph = "ring:5", but run'),
        (["training.epochs=2"], "14 steps are done"),
        (["training.seed=2"], "training.seed = 2"),
        (["data.dataset=mushrooms"], "data.dataset"),
    ],
)
def test_another_job_is_refused_and_nothing_touched(cli, stopped, keys, told):
    before = snapshot(stopped)
    for words in (["train", "--resume", "run"], [*job(), "--resume", "auto", "--out", "run"]):
        done = cli(*words, *(word for key in keys for word in ("--set", key)))
        assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert snapshot(stopped) == before


@pytest.mark.parametrize(
    "words, told",
    [
        (["--resume", "nowhere"], "not a run directory"),
        (["--resume", "auto"], "--out DIR, or --set log.name=NAME"),
        (["--resume", "run", "--out", "other"], "leave --out away"),
        (["--resume", "auto", "--out", "foreign"], "not a run directory"),
    ],
)
def test_what_cannot_be_resumed_is_told_in_one_line(cli, tmp_path, words, told):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("years of work")
    done = cli(*job(), *words)
    assert done.returncode == 2 and told in done.stderr and len(done.stderr.splitlines()) == 1
    assert (tmp_path / "foreign" / "thesis.tex").exists() and not (tmp_path / "other").exists()


def test_other_data_under_the_same_name_are_refused(cli, tmp_path):
    raw, shards = tmp_path / "raw", tmp_path / "shards"

    def prepare(shift):
        shutil.rmtree(shards, ignore_errors=True)
        raw.write_text("".join(f"{1 + k % 2} {1 + k % 3}:1 4:{0.5 + shift}\n" for k in range(80)))
        words = [sys.executable, ROOT / "data_prep" / "libsvm.py", raw, shards, "--shards", "4"]
        assert subprocess.run(words, env=environment(), capture_output=True, check=False).returncode == 0

    prepare(0.0)
    words = job(data__shards="shards", training__batch_size=4, data__normalize="none")
    assert cli(*words, "--out", "run", what="kill", where="step", at=8).returncode == -signal.SIGKILL
    kept = shutil.copytree(shards, tmp_path / "moved")
    prepare(0.25)
    done = cli(*words, "--out", "run", "--resume", "auto")
    assert done.returncode == 2 and "other data" in done.stderr
    done = cli(*words, "--out", "run", "--resume", "auto", "--set", f"data.shards={kept}")
    assert done.returncode == 0, done.stderr


def test_what_may_change_does_not_change_the_numbers(cli, tmp_path, stopped):
    """More epochs end with the bits of a run that had them from the start."""
    assert cli(*job(training__epochs=6), "--out", "whole").returncode == 0
    keys = ["training.epochs=6", "transport.name=inprocess", "checkpoint.every_epochs=2", "log.flush_s=0", "training.threads=1"]
    done = cli("train", "--resume", "run", *(word for key in keys for word in ("--set", key)))
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "whole", stopped)
    assert config.load(stopped / "job.toml").training.epochs == 6 and Run(stopped).config["checkpoint"]["every_epochs"] == 2
    # A run that has ended goes on from its last checkpoint.
    assert cli(*job(training__epochs=7), "--out", "longer").returncode == 0
    assert cli("train", "--resume", "run", "--set", "training.epochs=7").returncode == 0
    assert_same(tmp_path / "longer", stopped)


def test_a_schedule_that_depends_on_the_end_keeps_it(cli):
    words = job("gossip")
    assert cli(*words, "--out", "run", what="kill", where="step", at=16).returncode == -signal.SIGKILL
    done = cli("train", "--resume", "run", "--set", "training.epochs=6")
    assert done.returncode == 2 and "training.epochs = 6, but the run was started with 4" in done.stderr and "cosine" in done.stderr


def test_a_finished_run_says_so(cli, tmp_path):
    words = [*job(training__epochs=1), "--out", "run", "--resume", "auto"]
    assert cli(*words).returncode == 0, "where there is none, auto starts one"
    before = snapshot(tmp_path / "run")
    for again in (words, ["train", "--resume", "run"]):
        done = cli(*again)
        assert done.returncode == 0 and "run is finished" in done.stdout
    assert snapshot(tmp_path / "run") == before
    done = cli("train", "--resume", "run", "--set", "training.epochs=2")
    assert done.returncode == 2 and "no checkpoint to go on from" in done.stderr


def test_a_run_that_ended_ahead_of_its_first_checkpoint_is_kept_aside(cli, tmp_path):
    words = [*job(), "--out", "run"]
    assert cli(*words, what="kill", where="step", at=3).returncode == -signal.SIGKILL
    done = cli("train", "--resume", "run")
    assert done.returncode == 2 and "holds no checkpoint" in done.stderr
    done = cli(*words, "--resume", "auto")
    assert done.returncode == 0 and "is kept as run.1; starting afresh" in done.stderr
    assert (tmp_path / "run.1" / "job.toml").exists() and Run(tmp_path / "run").complete
    (tmp_path / "empty" / "log").mkdir(parents=True)
    (tmp_path / "empty" / "job.toml.new").write_text('[training]\nepo')
    assert cli(*job(training__epochs=1), "--out", "empty", "--resume", "auto").returncode == 0


def test_a_run_under_way_is_not_taken(cli, tmp_path):
    words = [sys.executable, "-m", "mpiconsensus", *job(training__epochs=100000), "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        next(line for line in process.stdout if line.split()[:1] == ["2"])
        done = cli("train", "--resume", "run")
        assert done.returncode == 2 and "under way in another process" in done.stderr
        # Ctrl-C, more than once, while it trains and while it writes.
        since = time.monotonic()
        for _ in range(5):
            os.kill(process.pid, signal.SIGINT)
            time.sleep(0.002)
        assert process.wait(timeout=60) == 75 and time.monotonic() - since < 30
    finally:
        process.kill()
        process.wait()
    found, damaged = checkpoint.choose(tmp_path / "run", World())
    assert not damaged and found.content["step"] == len(Run(tmp_path / "run").steps("step"))


def test_a_sequence_whose_files_have_changed_is_not_gone_on_with(cli, tmp_path):
    (tmp_path / "a.txt").write_text("0 1\n2 3\n")
    (tmp_path / "b.txt").write_text("1 2\n3 0\n")
    words = job(topology__graph="sequence:a.txt,b.txt")
    assert cli(*words, "--out", "run", "--set", "training.epochs=2").returncode == 0
    (tmp_path / "b.txt").write_text("1 3\n2 0\n")
    before = sorted(p.name for p in (tmp_path / "run" / "checkpoint").iterdir())
    done = cli("train", "--resume", "run", "--set", "training.epochs=4")
    assert done.returncode == 2 and "sequence:a.txt,b.txt" in done.stderr and "files have changed" in done.stderr
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoint").iterdir()) == before
    (tmp_path / "b.txt").write_text("1 2\n3 0\n")
    assert cli("train", "--resume", "run", "--set", "training.epochs=4").returncode == 0
