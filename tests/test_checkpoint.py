"""Checkpoints: a run that is killed, told to stop or short of disk goes on with the bits of the run that was left alone."""

import json
import random
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, environment, mpirun
from safetensors.torch import load_file

from mpiconsensus import checkpoint, config, runlog
from mpiconsensus.runread import Run
from mpiconsensus.runtime import World

FAULTS = ROOT / "tests" / "mpi" / "faults.py"
# Four vertices, epochs of seven steps; a batch-norm model with dropout, small enough for milliseconds a step.
MODEL = """
import torch


def build(shape, classes):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Dropout(0.3),
        torch.nn.Linear(144, classes),
    )
"""
BASE = {
    "topology.graph": "ring:4", "training.batch_size": 48, "model.name": "logistic", "training.epochs": 4, "checkpoint.every_epochs": 1,
    "evaluation.samples": 60, "evaluation.every": 1,
}  # fmt: skip
CASES = {
    "momentum": {"algorithm.period": 2, "evaluation.validation_fraction": 0.1, "training.batch_size": 46},
    "gossip": {"algorithm.name": "gossip", "algorithm.pairs": 3, "training.decay": "cosine", "training.momentum_policy": "mixed"},
    "adam": {"training.optimizer": "adam", "training.lr": 0.01, "training.arithmetic": "torch", "model.name": "mine:build"},
    "delay": {"algorithm.delay": 1, "model.name": "mlp"},
    "batch-norm": {"model.name": "mine:build", "data.augment": "crop-flip", "model.buffers": "mixed", "algorithm.order": "dpsgd"},
    "push-sum": {"topology.graph": "matchings:star:4", "topology.weights": "push-sum", "algorithm.name": "push-sum"},
    "overlap": {"topology.graph": "star:4", "topology.weights": "push-sum", "algorithm.name": "push-sum", "algorithm.delay": 1},
    "local-sgd": {"algorithm.name": "local-sgd", "algorithm.tau": 3, "model.name": "mine:build", "model.buffers": "reset", "training.lr": 0.3},
}
TIMES = {"ended_s", "compute_s", "wait_s", "mix_s", "hidden_s", "io_s", "seconds", "samples_per_s"}
# What depends on the number of ranks by its meaning.
OF_RANKS = {"bytes_wire", "sample_bytes_wire"}

# One process has loaded torch and forks for each command: a start of its own would take seconds.
SERVER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import faults
import torch
torch.optim.SGD([torch.zeros(1)], lr=1.0)  # loads what every torch.optim needs
import mpiconsensus.run, mpiconsensus.topology, mpiconsensus.cli.train, mpiconsensus.cli.results
for line in sys.stdin:
    words, cwd, fault = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(cwd)
        sys.path.insert(0, cwd)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv, code = ["mpiconsensus", *words], 1
        try:
            if fault:
                faults.plant(fault)
            faults.cli.main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def server():
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(FAULTS.parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )
    yield process
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture
def cli(server, tmp_path):
    """Return a function that runs the command line in one process, with a fault or without."""
    (tmp_path / "mine.py").write_text(MODEL)

    def call(*words, **fault):
        server.stdin.write(json.dumps([[str(w) for w in words], str(tmp_path), {"rank": 0, **fault} if fault else None]) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return SimpleNamespace(returncode=code, stdout=(tmp_path / "stdout").read_text(), stderr=(tmp_path / "stderr").read_text())

    return call


def job(case="momentum", **changes):
    """Return the words of `train` for a case."""
    keys = {**BASE, **CASES[case], **{name.replace("__", ".", 1): value for name, value in changes.items()}}
    return ["train", *(word for name, value in keys.items() for word in ("--set", f"{name}={config.toml_value(value)}"))]


def launch(ranks, *words, cwd, fault=None):
    return mpirun(ranks, FAULTS, *words, cwd=cwd, **({"FAULT": json.dumps(fault)} if fault else {}), PYTHONPATH=f"{ROOT}:{cwd}")


def assert_same(one, other, ranks_differ=False):
    """Assert that two run directories hold the same models, bit for bit, and the same log but for times."""
    files = sorted(p.relative_to(one / "model") for p in (one / "model").rglob("*.safetensors"))
    assert len(files) == 10
    for file in files:
        a, b = load_file(one / "model" / file), load_file(other / "model" / file)
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a), file
    assert (one / "model" / "index.json").read_text() == (other / "model" / "index.json").read_text()
    with Run(one) as a, Run(other) as b:
        assert a.complete and b.complete
        for column in runlog.COLUMNS:
            if column.group == "closing" or column.name in TIMES or (ranks_differ and column.name in OF_RANKS):
                continue
            x, y = a._column(column.group, column.name), b._column(column.group, column.name)
            assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), (column.group, column.name)
        for name, value in a.closing.items():
            assert np.array_equal(value, b.closing[name], equal_nan=not isinstance(value, str)), name
        assert (np.diff(b.network("seconds")) > 0).all()


def snapshot(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def checkpoints(run):
    return checkpoint.names(run)


@pytest.mark.parametrize("case", CASES)
def test_killed_anywhere_and_resumed_it_is_the_run_left_alone(cli, tmp_path, case):
    """Checkpoints by the clock, so that they fall into epochs too; killed at random instants, three times or more."""
    words = job(case, checkpoint__every_minutes=0.0003)
    assert cli(*words, "--out", "whole").returncode == 0
    seconds = Run(tmp_path / "whole").network("seconds")[-1]
    chance, killed, longest = random.Random(case), 0, 0.5 * seconds
    for _ in range(24):
        done = cli(*words, "--out", "run", "--resume", "auto", what="kill", where="seconds", at=chance.uniform(0, longest))
        killed += done.returncode == -signal.SIGKILL
        if killed == 3 or (killed and done.returncode == 0):
            break
        if done.returncode == 0:  # The machine was slower when it timed the whole run: from the start, killed sooner.
            shutil.rmtree(tmp_path / "run")
            longest /= 2
    done = cli(*words, "--out", "run", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert killed
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("case", CASES)
def test_stopped_within_an_epoch_it_goes_on_with_the_same_bits(cli, tmp_path, case):
    assert cli(*job(case), "--out", "whole").returncode == 0
    done = cli(*job(case), "--out", "run", what="SIGUSR2", where="step", at=16)
    assert done.returncode == 75 and "SIGUSR2 received: stopped at step 17 of 28" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "train --resume run" in done.stderr
    with Run(tmp_path / "run") as stopped:
        assert not stopped.complete and len(stopped.steps("step")) == 17
    done = cli("train", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert "going on at step 17 of 28, epoch 3, from checkpoint run/checkpoint/step-000000017" in done.stdout
    assert_same(tmp_path / "whole", tmp_path / "run")
    shown = (tmp_path / "run" / "stdout.log").read_text()
    assert shown.count("algorithm  ") == 2, "what was said before stays"


def killed_then_told(words, cwd, ranks):
    """Leave a run in cwd/run that was killed on `ranks` ranks, resumed on two and told to stop there, at step 9 of 28."""
    first = launch(ranks, *words, "--out", "run", cwd=cwd, fault={"rank": 1, "what": "kill", "where": "step", "at": 12})
    assert first.returncode != 0 and checkpoints(cwd / "run") == ["step-000000007"]
    # The signal reaches one rank alone, ahead of its first beat: the ranks hear of it one step later.
    second = launch(2, *words, "--out", "run", "--resume", "auto", cwd=cwd, fault={"rank": 1, "what": "SIGTERM", "where": "step", "at": 7})
    assert second.returncode == 75, second.stderr
    assert sum("SIGTERM received: stopped at step 9 of 28" in line for line in second.stderr.splitlines()) == 1
    with Run(cwd / "run") as run:
        assert len(run.steps("step")) == 9 and run.facts["ranks"] == 2 and list(run.rank_of_vertex) == [0, 0, 1, 1]


def test_killed_on_4_ranks_it_goes_on_on_2_and_ends_on_1(cli, tmp_path):
    words = job("batch-norm")
    assert cli(*words, "--out", "whole").returncode == 0
    killed_then_told(words, tmp_path, ranks=4)
    done = cli(*words, "--out", "run", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "whole", tmp_path / "run", ranks_differ=True)


def test_killed_and_told_on_2_ranks_its_log_counts_the_bytes_of_the_run_left_alone(tmp_path):
    words = job("delay")
    assert launch(2, *words, "--out", "whole", cwd=tmp_path).returncode == 0
    killed_then_told(words, tmp_path, ranks=2)
    done = launch(2, *words, "--out", "run", "--resume", "auto", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "whole").epochs("bytes_wire").all()
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_ranks_agree_on_one_step_and_soon(tmp_path):
    done = mpirun(4, ROOT / "tests" / "mpi" / "pulse.py", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.split() == ["agreed"] * 4, done.stderr


@pytest.mark.parametrize("fault", [{"rank": 1, "at": 3}, {"rank": 0, "at": 19}])
def test_a_rank_that_dies_while_it_writes_leaves_the_checkpoints_before(cli, tmp_path, fault):
    assert cli(*job(), "--out", "whole").returncode == 0
    done = launch(2, *job(), "--out", "run", cwd=tmp_path, fault={"what": "kill", "where": "operation", **fault})
    assert done.returncode != 0
    done = cli("train", "--resume", "run") if checkpoints(tmp_path / "run") else cli(*job(), "--out", "run", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "whole", tmp_path / "run", ranks_differ=True)


def test_killed_at_each_operation_of_writing_and_of_resuming(cli, tmp_path):
    """The third checkpoint, which removes the first, and then a resume: at every file operation the two before are whole."""
    words = job(checkpoint__every_minutes=0.0)
    assert cli(*words, "--out", "whole").returncode == 0
    operations = 0
    for at in range(20, 45):  # about as many operations lie behind two checkpoints
        done = cli(*words, "--out", f"run{at}", what="kill", where="operation", at=at)
        found = checkpoints(tmp_path / f"run{at}")
        if "step-000000014" not in found:
            assert operations == 0
            continue
        assert len(found) >= 2 and checkpoint.choose(tmp_path / f"run{at}", World())[1] == [], (at, found)
        if "step-000000021" in found:
            break
        operations += 1
        done = cli("train", "--resume", f"run{at}")
        assert done.returncode == 0, (at, done.stderr)
        assert_same(tmp_path / "whole", tmp_path / f"run{at}")
    assert operations >= 7
    assert cli(*words, "--out", "begun", what="kill", where="step", at=17).returncode == -signal.SIGKILL
    for at in range(1, 30):
        shutil.copytree(tmp_path / "begun", tmp_path / f"again{at}")
        done = cli("train", "--resume", f"again{at}", "--set", "checkpoint.every_epochs=0", what="kill", where="operation", at=at)
        if done.returncode == 0:
            break
        with Run(tmp_path / f"again{at}") as run:  # wherever the resume was killed
            assert len(run.steps("step")) >= 14
        done = cli("train", "--resume", f"again{at}")
        assert done.returncode == 0, (at, done.stderr)
        assert_same(tmp_path / "whole", tmp_path / f"again{at}")
    assert at >= 6
    assert sorted(p.name for p in (tmp_path / "again1").iterdir()) == ["checkpoint", "job.toml", "log", "model", "process.json", "run.h5", "stdout.log"]


def test_a_signal_while_a_checkpoint_is_written_does_not_break_it(cli, tmp_path):
    done = cli(*job(), "--out", "run", what="SIGTERM", where="operation", at=3, times=4)
    assert done.returncode == 75, done.stderr
    assert checkpoints(tmp_path / "run") == ["step-000000008", "step-000000007"]
    assert checkpoint.choose(tmp_path / "run", World())[1] == []


def test_a_full_disk_leaves_the_checkpoints_before_and_training_goes_on(cli, tmp_path):
    assert cli(*job(), "--out", "whole").returncode == 0
    for at in (13, 14, 16, 19):
        done = cli(*job(), "--out", f"run{at}", what="refuse", where="operation", at=at)
        assert done.returncode == 0, done.stderr
        assert "the checkpoint of step 14 could not be written" in done.stderr and "No space left" in done.stderr
        assert "the checkpoint of step 14" in (tmp_path / f"run{at}" / "stdout.log").read_text()
        assert checkpoints(tmp_path / f"run{at}") == ["step-000000021", "step-000000007"]
        assert_same(tmp_path / "whole", tmp_path / f"run{at}")


def test_a_signal_whose_checkpoint_cannot_be_written_ends_with_3(tmp_path):
    (tmp_path / "mine.py").write_text(MODEL)
    script = tmp_path / "both.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(FAULTS.parent)!r})\nimport faults\n"
        "faults.plant(dict(rank=1, what='refuse', where='operation', at=1, times=99))\n"
        "faults.plant(dict(rank=0, what='SIGUSR1', where='step', at=3))\nfaults.cli.main()\n"
    )
    done = mpirun(2, script, *job(training__epochs=5000, checkpoint__every_epochs=0), "--out", "run", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "SIGUSR1 received" in done.stderr and "no checkpoint could be written" in done.stderr and "No space left" in done.stderr
    assert not checkpoints(tmp_path / "run") and not list((tmp_path / "run" / "checkpoint").iterdir())
    assert len(Run(tmp_path / "run").steps("step")) >= 4


def test_what_is_written_is_what_is_read(tmp_path):
    strided = torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    state = {"row": torch.randn(7), "optimizer": {"state": {0: {"step": torch.tensor(3.0), "v": strided}}, "groups": [{"betas": [0.9, 0.1]}]}, "late": None}
    checkpoint.write(tmp_path, World(), 5, {2: {"row": torch.zeros(2)}, 4: state}, {"w": np.eye(3), "edges": np.arange(4)}, {"drift": float("nan")})
    found, damaged = checkpoint.choose(tmp_path, World())
    assert not damaged and found.content["step"] == 5 and np.isnan(found.content["drift"])
    again = found.vertices([4])[4]
    assert torch.equal(again["row"], state["row"]) and again["late"] is None
    v = again["optimizer"]["state"][0]["v"]
    assert torch.equal(v, strided) and v.stride() == strided.stride()
    assert again["optimizer"]["groups"] == [{"betas": [0.9, 0.1]}]
    common = found.common()
    assert np.array_equal(common["w"], np.eye(3)) and common["edges"].dtype == np.int64


def test_nothing_is_unpickled():
    for name in ("checkpoint", "resume", "saving"):
        text = (ROOT / "mpiconsensus" / f"{name}.py").read_text()
        assert "pickle" not in text.replace("Nothing is pickled", "") and "torch.load" not in text
