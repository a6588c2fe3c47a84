"""Runs that shuffle: killed, stopped and resumed elsewhere they end with the same bits; and nobody opens what is not theirs."""

import shutil
import signal
import sys

import h5py
import numpy as np
import pytest
from conftest import ROOT, mpirun
from conftest import cli as start
from conftest import run as program
from test_checkpoint import assert_same, checkpoints, cli, job, killed_then_told, server

from mpiconsensus.runread import Run

__all__ = ["cli", "server"]  # fixtures
# Four vertices, epochs of seven steps.
WAYS = {
    "partial": {"data__shuffle": "partial", "data__exchange_fraction": 0.4},
    "global": {"data__shuffle": "global"},
    "neighbors": {"data__shuffle": "neighbors", "data__exchange_fraction": 0.7, "data__partition": "labels:5", "data__mix_owners": True},
}


def kept(run):
    """Return the sample bytes of each epoch and vertex."""
    with Run(run) as of:
        return of.epochs("sample_bytes_sent")


@pytest.mark.parametrize("way, at", [("partial", 16), ("global", 16), ("neighbors", 9), ("global", 2), ("partial", 13)])
def test_stopped_within_an_epoch_or_at_its_end_it_goes_on_with_the_same_bits(cli, tmp_path, way, at):
    """A signal at step 13 stops the run behind the last step of the second epoch, ahead of its row in the log."""
    words = job("batch-norm", **WAYS[way])
    assert cli(*words, "--out", "whole").returncode == 0
    done = cli(*words, "--out", "run", what="SIGUSR2", where="step", at=at)
    assert done.returncode == 75 and f"stopped at step {at + 1} of 28" in done.stderr, done.stderr
    assert cli("train", "--resume", "run").returncode == 0
    assert_same(tmp_path / "whole", tmp_path / "run")
    sent = kept(tmp_path / "run")
    assert (sent[:3] > 0).all() and (sent[3] == 0).all(), "behind the last epoch nothing is wanted any more"


def test_more_epochs_end_with_the_bits_of_a_run_that_had_them_from_the_start(cli, tmp_path):
    """Stopped in what was its last epoch, during which nothing had to move."""
    words = job(**WAYS["partial"])
    assert cli(*words, "--out", "whole").returncode == 0
    assert cli(*words, "--out", "run", "--set", "training.epochs=2", what="SIGUSR2", where="step", at=9).returncode == 75
    assert cli("train", "--resume", "run", "--set", "training.epochs=4").returncode == 0
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_killed_on_4_ranks_it_goes_on_on_2_and_ends_on_1(cli, tmp_path):
    words = job(**WAYS["partial"])
    assert cli(*words, "--out", "whole").returncode == 0
    killed_then_told(words, tmp_path, ranks=4)
    done = cli(*words, "--out", "run", "--resume", "auto")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "whole", tmp_path / "run", ranks_differ=True)
    assert not np.array_equal(Run(tmp_path / "whole").epochs("sample_bytes_wire"), Run(tmp_path / "run").epochs("sample_bytes_wire"))


def test_another_way_of_shuffling_is_another_job(cli, tmp_path):
    assert cli(*job(**WAYS["partial"]), "--out", "run", what="kill", where="step", at=16).returncode == -signal.SIGKILL
    for key in ("data.exchange_fraction=0.5", "data.shuffle=neighbors"):
        done = cli("train", "--resume", "run", "--set", key)
        assert done.returncode == 2 and key.partition("=")[0] in done.stderr and "was started with" in done.stderr
    assert checkpoints(tmp_path / "run")


@pytest.mark.parametrize("way, wire", [("local", False), ("partial", True)])
def test_no_rank_opens_shards_that_are_not_its_own(tmp_path, way, wire):
    """Each rank sees the other's shards poisoned: the run is the one with whole shards, and local sends not a byte."""
    raw = tmp_path / "raw"
    raw.write_text("".join(f"{1 + k % 2} {1 + k % 3}:1 {4 + k % 5}:0.5\n" for k in range(80)))
    assert program(sys.executable, ROOT / "data_prep" / "libsvm.py", raw, tmp_path / "shards", "--shards", 4).returncode == 0
    for rank in range(2):
        shutil.copytree(tmp_path / "shards", tmp_path / f"rank{rank}" / "shards")
        for vertex in range(4):
            if vertex // 2 != rank:
                poison(tmp_path / f"rank{rank}" / "shards" / f"shard-{vertex:04d}.h5")
    keys = [f"data.shuffle={way}", "data.shards=shards", "training.epochs=3", "training.batch_size=4", "topology.graph=ring:4"]
    words = ["train", *(word for key in keys for word in ("--set", key)), "--out"]
    whole = start(*words, "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    code = "import os; from mpiconsensus.cli import main; os.chdir('rank' + os.environ['OMPI_COMM_WORLD_RANK']); main()"
    apart = mpirun(2, "-c", code, *words, tmp_path / "apart", cwd=tmp_path)
    assert apart.returncode == 0, apart.stderr
    with Run(tmp_path / "apart") as one, Run(tmp_path / "whole") as other:
        assert np.array_equal(one.steps("loss"), other.steps("loss"))
        assert one.epochs("sample_bytes_sent").any() == one.epochs("sample_bytes_wire").any() == wire
        assert np.array_equal(one.epochs("sample_bytes_sent"), other.epochs("sample_bytes_sent"))
        # A sample is 8 features of 4 bytes, its class and its number; of 20 a vertex gives 2.
        assert set(np.unique(one.epochs("sample_bytes_sent")).tolist()) <= {0, 48, 96}
    if way == "local":
        alone = start(*words, "alone", cwd=tmp_path / "rank0")
        assert alone.returncode == 2 and "shard-0002.h5: x holds features that are not finite" in alone.stderr, "the poison is there"


def poison(path):
    with h5py.File(path, "r+") as file:
        file["x"][...] = np.nan
        file["y"][...] = 1 - file["y"][...]
