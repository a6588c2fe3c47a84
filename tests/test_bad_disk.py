"""A full quota and places that cannot be written: one line each, what was there stays, and what was flushed is read."""

import errno
import os
import sys

import h5py
import numpy as np
import pytest
from conftest import cli, run
from test_runlog import expect, write_rank

from mpiconsensus import merging, trace
from mpiconsensus.diskrows import created
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.runlog import RankLog
from mpiconsensus.runread import Run

# The command line with a quota: os.pwrite, by which logs are written, takes so many bytes in all.
QUOTA = """
import errno, os, sys
left, whole = int(sys.argv.pop(1)), os.pwrite
def pwrite(fd, data, at):
    global left
    left -= len(data)
    if left < 0:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    return whole(fd, data, at)
os.pwrite = pwrite
from mpiconsensus import cli
cli.main()
"""


def refuse_from(monkeypatch, call):
    """Make every write from the given call on meet a full quota; return a list that grows with each."""
    whole, calls = os.pwrite, []

    def pwrite(fd, data, at):
        calls.append(at)
        if len(calls) > call:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return whole(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return calls


def test_a_run_that_meets_a_full_quota_ends_with_one_line_and_a_log(tmp_path):
    words = ["train", "--set", "training.epochs=4000", "--set", "log.flush_s=0.05", "--set", "model.name=logistic", "--out", "run"]
    done = run(sys.executable, "-c", QUOTA, 400_000, *words, cwd=tmp_path)
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "Disk quota exceeded" in done.stderr and "readable up to the last flush" in done.stderr and "report run" in done.stderr
    told = cli("report", "run", cwd=tmp_path)
    assert told.returncode == 0 and "incomplete: the log ends after step" in told.stdout and not told.stderr
    with Run(tmp_path / "run") as log:
        assert np.isfinite(log.steps("loss")).all() and len(log.steps("loss"))
    # the same place again: what is there is not taken
    again = cli("train", "--out", "run", cwd=tmp_path)
    assert again.returncode == 2 and "is there already" in again.stderr and len(again.stderr.splitlines()) == 1


def test_a_report_on_a_full_disk_reads_all_the_same(tmp_path, monkeypatch, capfd):
    write_rank(tmp_path, 0, [0, 1], 20, 3, 2)
    with monkeypatch.context() as patch:
        calls = refuse_from(patch, 10**9)
        merging.assemble(tmp_path)
        total = len(calls)
    whole = (tmp_path / "run.h5").read_bytes()
    os.utime(tmp_path / "run.h5", (0, 0))
    assert total > 40
    for call in (0, 1, total // 3, total // 2, total - 2, total - 1):
        with monkeypatch.context() as patch:
            refuse_from(patch, call)
            with pytest.raises(OSError, match="quota"):
                merging.assemble(tmp_path)
            with Run(tmp_path) as log:
                expect(log, 20, 3, [0, 1])
        assert (tmp_path / "run.h5").read_bytes() == whole and sorted(path.name for path in tmp_path.iterdir()) == ["log", "run.h5"]
    assert capfd.readouterr() == ("", ""), "HDF5 has nothing to say"


def test_a_log_that_cannot_be_laid_out_is_told_in_one_line(tmp_path, monkeypatch, capfd):
    for call in range(0, 30, 4):
        with monkeypatch.context() as patch:
            refuse_from(patch, call)
            with pytest.raises(TrainingError, match=r"rank-0000.h5' cannot be written: Disk quota exceeded; [^\n]*$"):
                RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0], network=True)
        assert not list((tmp_path / "log").iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_file_written_through_us_is_the_one_that_hdf5_would_write(tmp_path):
    values = np.arange(20_000.0).reshape(-1, 4)
    with created(tmp_path / "a.h5") as file:
        file.create_dataset("x", data=values)
        file["y"] = 2 * file["x"][:]  # reads what it wrote
        file.attrs["k"] = "text"
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["x"], values) and np.array_equal(file["y"], 2 * values) and file.attrs["k"] == "text"
    with pytest.raises(KeyError), created(tmp_path / "b.h5") as file:
        file["nothing"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    # In sysfs not even root makes a directory or a file.
    done = cli("train", "--set", "training.max_steps=2", "--out", "/sys/run", cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "'/sys/run'" in done.stderr and "give a writable place (--out DIR)" in done.stderr and not list(tmp_path.iterdir())
    write_rank(tmp_path, 0, [0], 3, 1, 1)
    with pytest.raises(UserError, match="'/sys/t.json' cannot be written: .*give another place"):
        trace.write(tmp_path, "/sys/t.json")
