"""Compressed methods under a real mpirun: the same bits on any ranks, bytes as counted, and runs that are gone on with."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, cli, mpirun

from mpiconsensus import config, runlog
from mpiconsensus.runread import Run

DRIVER, FAULTS = ROOT / "tests" / "mpi" / "compressed.py", ROOT / "tests" / "mpi" / "faults.py"
TESTS = f"{ROOT}:{ROOT / 'tests'}"


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Return {ranks: {"method operator|vertex": row}}, resumed runs among those of two ranks."""
    out = tmp_path_factory.mktemp("compressed")
    found = {}
    for ranks in (4, 2, 1):
        done = mpirun(ranks, DRIVER, out, PYTHONPATH=TESTS)
        assert done.returncode == 0, done.stderr[-3000:]
        found[ranks] = {}
        for path in sorted(Path(out).glob(f"{ranks}-*.npz")):
            with np.load(path, allow_pickle=False) as rows:
                found[ranks] |= dict(rows)
    return found


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_do_not_change_a_bit(ended, ranks):
    """Nine methods, each with two compressors or more, eleven in all; five vertices; parameters and the algorithm's own state."""
    assert len(ended[1]) == 5 * (2 * 11 + 5 * 5 + 4 + 2)
    names = [name for name in ended[ranks] if not name.startswith("resumed")]
    assert set(names) == set(ended[1])
    differing = sorted({name.split("|")[0] for name in names if not np.array_equal(ended[1][name], ended[ranks][name])})
    assert not differing
    assert not np.array_equal(ended[1]["ef21 top-k:0.1|0"], ended[1]["ef14 top-k:0.1|0"])


def test_four_ranks_stopped_half_way_go_on_on_two_with_the_same_bits(ended):
    resumed = {name.removeprefix("resumed "): row for name, row in ended[2].items() if name.startswith("resumed")}
    assert len(resumed) == 5 * 8
    differing = sorted({name.split("|")[0] for name, row in resumed.items() if not np.array_equal(ended[1][name], row)})
    assert not differing


def test_messages_of_any_length_arrive_whole_and_in_turn():
    """Empty ones too; a rank that hears nobody."""
    done = mpirun(4, ROOT / "tests" / "mpi" / "packets_stress.py", 1000)
    assert done.returncode == 0 and json.loads(done.stdout) == {"rounds": 1000}, done.stderr[-3000:]


JOB = {
    "topology.graph": "ring:4", "training.batch_size": 48, "model.name": "logistic", "training.epochs": 4, "checkpoint.every_epochs": 1,
    "evaluation.samples": 60, "algorithm.name": "ef21", "compression.operator": "top-k:0.05+power-of-two",
}  # fmt: skip
TIMES = {"ended_s", "compute_s", "wait_s", "mix_s", "hidden_s", "io_s", "seconds", "samples_per_s", "bytes_wire", "sample_bytes_wire"}


def test_killed_on_two_ranks_and_resumed_on_one_it_is_the_run_left_alone(tmp_path):
    """By the command line: the log with its bits and residuals too, which are those of the messages."""
    words = ["train", *(word for name, value in JOB.items() for word in ("--set", f"{name}={config.toml_value(value)}"))]
    assert cli(*words, "--out", "whole", cwd=tmp_path).returncode == 0
    fault = json.dumps({"rank": 1, "what": "kill", "where": "step", "at": 12})
    assert mpirun(2, FAULTS, *words, "--out", "run", cwd=tmp_path, FAULT=fault, PYTHONPATH=TESTS).returncode != 0
    done = cli("train", "--resume", "run", cwd=tmp_path)
    assert done.returncode == 0 and "going on at step 7 of 28" in done.stdout, done.stderr
    with Run(tmp_path / "whole") as whole, Run(tmp_path / "run") as run:
        for column in runlog.COLUMNS:
            if column.group in ("steps", "epochs", "network") and column.name not in TIMES:
                x, y = (r._column(column.group, column.name) for r in (whole, run))
                assert np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), (column.group, column.name)
        bits, residual, sent = (run.steps(name) for name in ("bits_formula", "residual", "bytes_sent"))
        assert np.isnan(residual[0]).all() and (residual[1:] > 0).all()
        # 650 parameters, 32 of them with 9 bits each; the indices in plain take 320 bits, a choice among all 181.
        choices = np.ceil(sum(np.log2((650 - i) / (32 - i)) for i in range(32)))
        assert (bits[0] == 32 * 650).all() and (bits[1:] == 32 * 9 + min(320, 650, choices)).all()
        assert (sent[0] == 2 * 3 * 650 * 4 // 4).all()
        message = sent[1:] / 3
        assert (message == message.round()).all() and (message >= 32 + 4 + 181 / 8).all() and (message <= 32 + 4 + 1 + 40).all()
        assert (run.epochs("bytes_uncompressed").sum(axis=0) == 28 * (2 * 3 * 650 * 4 // 4)).all()


def test_a_wrong_job_ends_with_one_line_and_leaves_nothing(tmp_path):
    done = cli("train", "--out", "run", "--set", "algorithm.name=diana", "--set", "compression.operator=top-k:0.1", cwd=tmp_path)
    assert done.returncode == 2 and "unbiased" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()
