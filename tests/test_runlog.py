"""The log: what is written is read back, whatever the ranks; a kill loses no flushed row; a wrong file is named."""

import errno
import os
import signal
import time

import h5py
import numpy as np
import pytest

from mpiconsensus import description, merging, runlog, runread
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.merging import assemble
from mpiconsensus.runlog import AGES, COLUMNS, RankLog, columns
from mpiconsensus.runread import Run
from mpiconsensus.runtime import World

TOML = '[training]\nlr = 0.05\n[model]\nhidden = [64, 32]\n'
FACTS = {"hosts": ["a", "b"], "ranks": 3, "versions": {"torch": "2"}, "git": ""}


def graph(n):
    """A graph of n vertices with no edge of its own: what is stored is not checked for sense."""
    return {"n": n, "edges": [(i, (i + 1) % n) for i in range(n)], "W": np.full((n, n), 1 / n),
            "lambda2_modulus": 0.25, "spectral_gap": 0.75, "spec": f"ring:{n}", "weights": "metropolis"}  # fmt: skip


def value(column, row, vertex):
    """The number that every test writes in a place: all places differ, and no reader can guess one from another."""
    if column.name in ("step", "epoch") and not column.vertex:
        return row
    number = COLUMNS.index(column) * 1e6 + row * 100 + vertex
    return int(number) if column.dtype == "<i8" else number + 0.5


def block(column, rows, vertices):
    if not column.vertex:
        return np.array([value(column, row, 0) for row in rows])
    return np.array([[value(column, row, v) for v in vertices] for row in rows]).reshape(len(rows), len(vertices))


def write_steps(log, rows):
    log.steps(**{c.name: block(c, rows, log.vertices) for c in columns("steps")})


def write_epoch(log, row):
    log.epoch(**{c.name: block(c, [row], log.vertices)[0] for c in columns("epochs")})
    if log.is_network:
        log.network(**{c.name: block(c, [row], [])[0] for c in columns("network")})


def write_closing(log):
    values = {c.name: block(c, [0], log.vertices)[0] for c in columns("closing", log.is_network)}
    log.closing(**values | ({"split": "test"} if log.is_network else {}))


def write_rank(run_dir, rank, vertices, steps, epochs, n, closing=True):
    with RankLog(run_dir / "log" / f"rank-{rank:04d}.h5", rank, vertices, network=rank == 0) as log:
        if rank == 0:
            log.describe(TOML, FACTS, graph(n))
        for start in range(0, steps, 7):
            write_steps(log, range(start, min(start + 7, steps)))
        for row in range(epochs):
            write_epoch(log, row)
        if closing:
            write_closing(log)


def expect(run, steps, epochs, vertices):
    readers = {"steps": (run.steps, steps), "epochs": (run.epochs, epochs), "network": (run.network, epochs)}
    for column in COLUMNS:
        if column.group in readers:
            read, rows = readers[column.group]
            np.testing.assert_array_equal(read(column.name), block(column, range(rows), vertices), str(column))


def test_uneven_ranks_become_one_file_with_columns_in_vertex_order(tmp_path):
    write_rank(tmp_path, 0, [4, 1], 20, 3, 6)
    write_rank(tmp_path, 1, [0, 5, 3], 20, 3, 6)
    write_rank(tmp_path, 2, [2], 20, 3, 6)
    with Run(tmp_path) as run:
        expect(run, 20, 3, range(6))
        assert run.complete
        assert run.rank_of_vertex.tolist() == [1, 0, 2, 1, 0, 1]
        accuracy = COLUMNS.index(next(c for c in COLUMNS if c.group == "closing" and c.name == "accuracy"))
        assert run.closing["accuracy"].tolist() == [accuracy * 1e6 + v + 0.5 for v in range(6)]
        assert run.closing["split"] == "test"
        assert isinstance(run.closing["best_epoch"], int)


def test_the_ages_of_rows_are_a_histogram_a_vertex(tmp_path):
    counts = {rank: np.arange(2 * AGES).reshape(AGES, 2) + 1000 * rank for rank in range(2)}
    for rank, vertices in enumerate(([3, 0], [1, 2])):
        with RankLog(tmp_path / "log" / f"rank-{rank:04d}.h5", rank, vertices, network=rank == 0) as log:
            if rank == 0:
                log.describe(TOML, FACTS, graph(4))
            log.ages(np.zeros((AGES, 2), int))
            log.ages(counts[rank])
    with Run(tmp_path) as run:
        columns = [counts[0][:, 1], counts[1][:, 0], counts[1][:, 1], counts[0][:, 0]]
        np.testing.assert_array_equal(run.ages, np.stack(columns, axis=1))


def test_logs_of_earlier_versions_lack_columns(tmp_path, monkeypatch):
    lacking = ("gradient_norm", "age_mean", "age_max", "ended_s", "bits_formula", "residual", "consensus_distance", "mass")
    with monkeypatch.context() as before:
        before.setattr(runlog, "COLUMNS", [c for c in COLUMNS if c.name not in lacking and c.group != "ages"])
        before.setattr(runlog, "ROOM", {name: room for name, room in runlog.ROOM.items() if name != "ages"})
        with RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0, 1], network=True) as log:
            log.describe(TOML, FACTS, graph(2))
            log.steps(step=np.arange(3), loss=0.5, lr=0.1, compute_s=0.0, wait_s=0.0, mix_s=0.0, hidden_s=0.0, io_s=0.0, bytes_sent=7)
    with Run(tmp_path) as run:
        assert run.steps("bytes_sent").tolist() == [[7, 7]] * 3
        assert run.ages is None
        with pytest.raises(UserError, match="no column 'age_max'"):
            run.steps("age_max")
    # A run of then is gone on with: what was not measured is not a number.
    found = runread.rows(tmp_path, World.start(), [1, 0], {"steps": 3, "epochs": 0, "network": 0})["steps"]
    assert np.isnan(found["gradient_norm"]).tolist() == [True] * 3 and np.isnan(found["age_max"]).tolist() == [[True] * 2] * 3
    assert found["bytes_sent"].tolist() == [[7, 7]] * 3 and set(found) == {c.name for c in runlog.columns("steps")}


def test_the_description_is_read_back(tmp_path):
    write_rank(tmp_path, 0, [0, 1, 2], 1, 1, 3)
    with Run(tmp_path) as run:
        assert run.config == {"training": {"lr": 0.05}, "model": {"hidden": [64, 32]}}
        assert run.facts == FACTS
        assert run.graph["edges"].tolist() == [[0, 1], [1, 2], [2, 0]]
        assert np.array_equal(run.graph["W"], np.full((3, 3), 1 / 3))
        names = ("n", "lambda2_modulus", "spectral_gap", "spec", "weights")
        assert [run.graph[k] for k in names] == [3, 0.25, 0.75, "ring:3", "metropolis"]
        assert (run.graph["directed"], run.graph["changing"]) == (False, False)


def test_a_large_graph_keeps_its_weights_as_triplets(tmp_path, monkeypatch):
    monkeypatch.setattr(description, "DENSE", 2)
    write_rank(tmp_path, 0, [0, 1, 2], 1, 1, 3)
    with Run(tmp_path) as run:
        rows, cols, weights = run.graph["triplets"]
        dense = np.zeros((3, 3))
        dense[rows, cols] = weights
        assert run.graph["W"] is None
        assert np.array_equal(dense, np.full((3, 3), 1 / 3))


def test_rows_outgrow_their_room(tmp_path, monkeypatch):
    monkeypatch.setattr(runlog, "ROOM", {"steps": 5, "epochs": 2, "network": 1, "closing": 1})
    write_rank(tmp_path, 0, [0, 1], 53, 9, 2)
    with Run(tmp_path) as run:
        expect(run, 53, 9, [0, 1])
        assert run.complete


def test_every_dataset_has_unit_and_description(tmp_path):
    write_rank(tmp_path, 0, [0, 1], 3, 2, 2)
    missing, seen = [], set()

    def look(name, item):
        if isinstance(item, h5py.Dataset):
            seen.add(name)
            missing.extend((name, key) for key in ("unit", "description") if not item.attrs.get(key))

    for path in (tmp_path / "log" / "rank-0000.h5", assemble(tmp_path)):
        with h5py.File(path) as file:
            file.visititems(look)
    assert not missing
    assert {f"{c.group}/{c.name}" for c in COLUMNS} < seen
    assert {"config/toml", "graph/W", "graph/edges", "vertices"} < seen


@pytest.mark.parametrize("short", [0, 1])
def test_ranks_cut_at_different_lengths_are_cut_to_the_shortest(tmp_path, short):
    write_rank(tmp_path, short, [short], 15, 1, 2, closing=False)
    write_rank(tmp_path, 1 - short, [1 - short], 29, 2, 2)
    with Run(tmp_path) as run:
        expect(run, 15, 1, [0, 1])
        assert not run.complete
        assert run.closing == {}


def test_a_run_that_raised_is_incomplete_and_keeps_its_rows(tmp_path):
    log = RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0], network=True)
    with pytest.raises(RuntimeError), log:
        log.describe(TOML, FACTS, graph(1))
        write_steps(log, range(4))
        raise RuntimeError
    with Run(tmp_path) as run:
        expect(run, 4, 0, [0])
        assert not run.complete


def test_a_missing_rank_file_leaves_the_other_vertices(tmp_path):
    write_rank(tmp_path, 0, [0, 2], 6, 1, 3)
    with Run(tmp_path) as run:
        expect(run, 6, 1, [0, 2])
        assert run.vertices.tolist() == [0, 2]
        assert not run.complete


def test_rows_are_seen_after_a_flush_and_run_h5_follows(tmp_path):
    with RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0], network=True) as log:
        log.describe(TOML, FACTS, graph(1))
        write_steps(log, range(3))
        log.flush()
        write_steps(log, range(3, 5))
        with Run(tmp_path) as run:
            expect(run, 3, 0, [0])
        time.sleep(0.02)  # file times tick in milliseconds
        log.flush()
        with Run(tmp_path / "run.h5") as run:
            expect(run, 5, 0, [0])


def test_rows_that_come_during_an_assembly_are_in_the_next(tmp_path, monkeypatch):
    merge = merging.merge
    with RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0], network=True) as log:
        log.describe(TOML, FACTS, graph(1))

        def late(sources, out):
            merge(sources, out)
            time.sleep(0.02)
            write_steps(log, range(3))
            log.flush()
            time.sleep(0.02)

        with monkeypatch.context() as patch:
            patch.setattr(merging, "merge", late)
            assemble(tmp_path)
        with Run(tmp_path) as run:
            expect(run, 3, 0, [0])


def test_a_directory_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    write_rank(tmp_path, 0, [0], 6, 1, 1)

    def refuse(*args):
        raise PermissionError(errno.EACCES, "denied")

    monkeypatch.setattr(os, "replace", refuse)
    with Run(tmp_path) as run:
        expect(run, 6, 1, [0])
    assert [p.name for p in tmp_path.iterdir()] == ["log"]


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


def test_a_log_is_never_overwritten(tmp_path):
    write_rank(tmp_path, 0, [0], 1, 1, 1)
    with pytest.raises(UserError, match="is there already; give the run another directory"):
        RankLog(tmp_path / "log" / "rank-0000.h5", 0, [0])


def test_the_columns_given_are_exactly_those_of_the_table(tmp_path):
    with RankLog(tmp_path / "rank-0001.h5", 1, [0]) as log:
        with pytest.raises(ValueError, match="take exactly the columns"):
            log.closing(accuracy=0.5, loss=0.1, samples=3)
        with pytest.raises(TypeError):
            log.epoch(**{c.name: 0.5 for c in columns("epochs")})  # half a sample


def damage(path, kind):
    if kind == "truncated":
        os.truncate(path, os.path.getsize(path) // 2)
    elif kind == "text":
        path.write_text("not HDF5")
    else:
        with h5py.File(path, "r+") as file:
            if kind == "newer":
                file.attrs["format_version"] = runlog.VERSION + 1
            else:
                file.attrs["format"] = "something else"


@pytest.mark.parametrize(
    ("kind", "message"),
    [("truncated", "truncated, or not HDF5; {}"), ("text", "truncated, or not HDF5; {}"),
     ("newer", "has log format 2, this program reads 1; install"), ("other", "not a log of a run; give")],
)  # fmt: skip
@pytest.mark.parametrize("where", ["run.h5", "run.h5 alone", "log/rank-0000.h5"])
def test_a_file_that_cannot_be_read_is_named_with_the_remedy(tmp_path, kind, message, where):
    write_rank(tmp_path, 0, [0], 5, 1, 1)
    if where != "log/rank-0000.h5":
        assemble(tmp_path)
    if where == "run.h5 alone":
        (tmp_path / "log" / "rank-0000.h5").unlink()
    damage(tmp_path / where.split()[0], kind)
    with pytest.raises(UserError) as error:
        Run(tmp_path)
    assert message.format("delete it" if where == "run.h5" else "copy it again") in str(error.value)
    assert where.split()[0] in str(error.value)
    assert "\n" not in str(error.value)


def test_the_systems_reason_is_given_in_one_line(tmp_path):
    (tmp_path / "run.h5").mkdir()
    with pytest.raises(UserError, match=r"run.h5' cannot be read: Is a directory; copy it again[^\n]*$"):
        Run(tmp_path)
    (tmp_path / "rank-0000.h5.new").mkdir()
    with pytest.raises(TrainingError, match=r"rank-0000.h5' cannot be written: Is a directory; [^\n]*$"):
        RankLog(tmp_path / "rank-0000.h5", 0, [0])


def test_places_that_are_no_run_are_named(tmp_path):
    with pytest.raises(UserError, match="does not exist; give a run directory"):
        Run(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not a run directory.*neither run.h5 nor log"):
        Run(tmp_path)
    write_rank(tmp_path, 1, [1], 5, 1, 2)
    with pytest.raises(UserError, match="lacks rank 0's file"):
        Run(tmp_path)


def test_files_of_two_runs_in_one_log_are_refused(tmp_path):
    write_rank(tmp_path, 0, [0, 1], 5, 1, 2)
    write_rank(tmp_path, 1, [1], 5, 1, 2)
    with pytest.raises(UserError, match="holds a vertex twice"):
        Run(tmp_path)
    (tmp_path / "log" / "rank-0001.h5").unlink()
    with RankLog(tmp_path / "log" / "rank-0001.h5", 1, [2]) as log:
        write_steps(log, range(3, 8))
    with pytest.raises(UserError, match="the ranks count steps differently"):
        Run(tmp_path)


def test_an_unknown_column_is_named(tmp_path):
    write_rank(tmp_path, 0, [0], 1, 1, 1)
    with Run(tmp_path) as run, pytest.raises(UserError, match="steps has no column 'los'.*Did you mean 'loss'"):
        run.steps("los")
