"""A log whose writing was cut: a full disk, short writes, a kill at any write and at any moment."""

import errno
import os
import signal
import time

import h5py
import numpy as np
import pytest
from test_runlog import FACTS, TOML, block, expect, graph, write_epoch, write_rank, write_steps

from mpiconsensus import runlog
from mpiconsensus.errors import TrainingError
from mpiconsensus.runlog import RankLog, columns
from mpiconsensus.runread import Run


def test_a_full_disk_is_named_and_keeps_what_was_flushed(tmp_path, monkeypatch):
    whole = os.pwrite
    log = RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0, 1], network=True)
    log.describe(TOML, FACTS, graph(2))
    write_steps(log, range(1000))
    log.flush()

    def half(fd, data, offset):
        if len(data) < 16:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(fd, bytes(data[: len(data) // 2]), offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        for rows in (range(1000, 1010), range(1000, 1100)):  # the second needs a larger file
            with pytest.raises(TrainingError, match="No space left.*last flush"):
                write_steps(log, rows)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["rank-0000.h5"]  # nothing takes the space
    with Run(tmp_path) as run:
        expect(run, 1000, 0, [0, 1])
    write_steps(log, range(1000, 1100))  # once there is space again
    log.close()
    with Run(tmp_path) as run:
        expect(run, 1100, 0, [0, 1])


def test_a_short_write_is_continued(tmp_path, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: whole(fd, bytes(data[:13]), offset))
    write_rank(tmp_path, 0, [0, 1], 9, 1, 2)
    with Run(tmp_path) as run:
        expect(run, 9, 1, [0, 1])


class Killed(BaseException):
    """Stands for a SIGKILL: nothing of the log runs after it that would touch the file."""


@pytest.mark.parametrize("torn", [False, True])
def test_a_log_cut_at_any_write_shows_the_last_flush(tmp_path, monkeypatch, torn):
    monkeypatch.setattr(runlog, "ROOM", {"steps": 8, "epochs": 2, "network": 2, "closing": 1})
    few = [c for group in runlog.ROOM for c in columns(group)[:2]]
    monkeypatch.setattr(runlog, "COLUMNS", few)
    whole = {name: getattr(os, name) for name in ("pwrite", "replace")}
    left = flushed = 0

    def count(name):
        def call(*args):
            nonlocal left
            left -= 1
            if left == 0:
                if torn and name == "pwrite":
                    whole[name](args[0], bytes(args[1])[: len(args[1]) // 2], args[2])
                raise Killed
            return whole[name](*args)

        return call

    for name in whole:
        monkeypatch.setattr(os, name, count(name))
    trial = 0
    while left <= 0:  # until a trial comes to its end
        trial += 1
        path = tmp_path / f"{trial}.h5"
        left = 0
        log = RankLog(path, 0, [0, 1], network=True)
        flushed, left = 0, trial
        try:
            for epoch in range(4):
                write_steps(log, range(epoch * 5, epoch * 5 + 5))
                write_epoch(log, epoch)
                log.flush()
                flushed = epoch + 1
        except Killed:
            pass
        os.close(log._fd)
        with h5py.File(path) as file:
            steps, epochs, network = (int(v) for v in file["committed"][:3])
            assert steps == 5 * epochs
            assert epochs == network
            assert flushed <= epochs <= flushed + 1
            for column in few:
                rows = range({"steps": steps, "closing": 0}.get(column.group, epochs))
                read = file[f"{column.group}/{column.name}"][: len(rows)] if rows else block(column, rows, [0, 1])
                np.testing.assert_array_equal(read, block(column, rows, [0, 1]))
    assert trial > 45


def write_until_killed(run_dir, pipe):
    try:
        runlog.ROOM.update(steps=16, epochs=4, network=4)  # a file outgrown every few epochs, killed on the way
        log = RankLog(run_dir / "log" / "rank-0000.h5", 0, [0, 1, 2], network=True)
        log.describe(TOML, FACTS, graph(3))
        for epoch in range(10**6):
            os.write(pipe, b"%d\n" % epoch)
            write_steps(log, range(epoch * 5, epoch * 5 + 5))
            write_epoch(log, epoch)
            log.flush()
    finally:
        os._exit(1)


def test_a_kill_at_any_moment_loses_no_flushed_row(tmp_path):
    random = np.random.default_rng(5)
    for trial in range(15):
        run_dir = tmp_path / str(trial)
        out, into = os.pipe()
        writer = os.fork()
        if not writer:
            write_until_killed(run_dir, into)
        os.close(into)
        with open(out) as pipe:
            said = pipe.readline()
            time.sleep(random.uniform(0, 0.05))
            os.kill(writer, signal.SIGKILL)
            assert os.waitpid(writer, 0)[1] == signal.SIGKILL
            flushed = int((said + pipe.read()).split()[-1])
        with Run(run_dir) as run:
            epochs = len(run.epochs("epoch"))
            assert flushed <= epochs <= flushed + 1
            expect(run, epochs * 5, epochs, range(3))
            assert not run.complete
