"""Sets of shards as a whole: from a stream, replaced, interrupted, refused; and the division in the log."""

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import ROOT, cli, environment, mpirun
from conftest import run as start
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import FEATURES, IMAGES, job_data, recipe, same, samples, write

from mpiconsensus.data import partition, writer
from mpiconsensus.data.manifest import FORMAT
from mpiconsensus.data.moments import Moments, moments, sums
from mpiconsensus.data.shardfile import ShardFile
from mpiconsensus.data.shards import Stream, already_written, open_shards, write_shards
from mpiconsensus.data.source import open_source, open_test
from mpiconsensus.errors import UserError
from mpiconsensus.runread import Run


def streamed(shard, sizes):
    """Return the Stream of a Shard's samples in blocks of these sizes, the last of which repeats."""

    def blocks():
        at = 0
        for size in [*sizes, *[sizes[-1]] * len(shard.y)]:
            if at < len(shard.y):
                yield shard.x[at : at + size]
            at += size

    return Stream(shard.y, blocks)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("facts", [IMAGES, FEATURES])
def test_a_stream_becomes_the_shards_that_memory_does(tmp_path, facts):
    train, test = (shard._replace(id=np.arange(len(shard.y))) for shard in (samples(facts, 57), samples(facts, 9, 1)))
    parts = partition.divide(57, 4, 2, [1, 2, 1, 5])
    write_shards(tmp_path / "memory", recipe(), facts, train, test, parts)
    write_shards(tmp_path / "stream", recipe(), facts, streamed(train, [5, 1, 20]), streamed(test, [4]), parts)
    told = []
    write_shards(tmp_path / "told", recipe(), facts, train, test, parts, progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (train.x.nbytes + test.x.nbytes,) * 2 and told == sorted(told)
    if facts is IMAGES:  # summed in whole numbers: the files are equal
        assert contents(tmp_path / "memory") == contents(tmp_path / "stream")
    one, two = (open_shards(tmp_path / name) for name in ("memory", "stream"))
    for vertex in range(4):
        assert same(one.load(vertex), two.load(vertex)) and same(one.load(vertex), train.take(parts[vertex]))
    np.testing.assert_allclose([one.facts.mean, one.facts.std], [two.facts.mean, two.facts.std], rtol=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.booleans())
def test_moments_of_blocks_are_those_of_numpy(sizes, images):
    facts = IMAGES if images else FEATURES
    x = samples(facts, sum(sizes), seed=sum(sizes)).x
    together = Moments()
    for block in np.split(x, np.cumsum(sizes)[:-1]):
        together.add(block)
    mean, std = together.result(facts.scale)
    exact = x.astype(np.float64) * facts.scale
    axes = (0, 2, 3) if images else 0
    np.testing.assert_allclose(mean, exact.mean(axis=axes), rtol=1e-12)
    if sum(sizes) > 1 or images:
        np.testing.assert_allclose(std, exact.std(axis=axes), rtol=1e-10)


@pytest.mark.parametrize("facts", [IMAGES, FEATURES], ids=["images", "features"])
def test_what_is_written_in_pieces_is_whole_and_its_moments_too(tmp_path, monkeypatch, facts):
    monkeypatch.setattr(writer, "PIECE", 200)
    train, test = write(tmp_path / "set", facts, count=50)
    found = open_shards(tmp_path / "set")
    for vertex in range(3):
        shard = found.load(vertex)
        assert same(shard, train.take(np.searchsorted(train.id, shard.id))) and found.is_whole(vertex)
    assert same(found.load_test(), test) and not np.array_equal(test.y, train.y[: len(test.y)])
    axes = (0, 2, 3) if len(facts.shape) == 3 else 0
    values = train.x.astype(np.float64) * facts.scale
    np.testing.assert_allclose(found.facts.mean, values.mean(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(found.facts.std, values.std(axis=axes), rtol=1e-12)


def test_a_constant_feature_is_divided_by_one():
    x = np.full((3000, 2), np.float32(0.1))
    assert moments(x, 1.0)[1].tolist() == [1, 1]
    together = Moments()
    for size in (7, 100, 1):
        together.add(x[:size])
    assert together.result(1.0)[1].tolist() == [1, 1]


def test_labels_and_skew_are_in_the_manifest(tmp_path):
    train, _ = write(tmp_path / "set", count=40, n=3)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    whole = open_shards(tmp_path / "set")
    counted = [[int((whole.load(v).y == c).sum()) for c in range(3)] for v in range(3)]
    assert manifest["labels"] == counted
    share = np.bincount(train.y) / 40
    by_hand = [sum(max(0, c / sum(row) - s) for c, s in zip(row, share)) for row in counted]
    np.testing.assert_allclose(manifest["skew"], by_hand, atol=1e-6)
    for labels in ([[1]], [[40, 0, 0]] * 3, [[14.0, 0, 0], [13, 0, 0], [13, 0, 0]], "x"):
        (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest | {"labels": labels}))
        with pytest.raises(UserError, match="labels are not 3 rows of 3 counts"):
            open_shards(tmp_path / "set")
    del manifest["labels"], manifest["skew"]
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest))
    assert open_source(job_data(shards=str(tmp_path / "set")), 3, [], 1).labels is None


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        (lambda x: [x[:10]], "gave 10 of 23 samples"),
        (lambda x: [x, x], "behind sample 23 of 23"),
        (lambda x: [x[:, :5]], "expected float32 [6]"),
        (lambda x: [x.astype(np.float64)], "x is float64"),
        (lambda x: [np.where(x > 3, np.float32("nan"), x)], "not finite"),
    ],
)
def test_a_stream_that_is_not_what_it_said_is_named(tmp_path, blocks, words):
    train = samples(FEATURES, 23)
    with pytest.raises(UserError) as error:
        write_shards(tmp_path / "set", recipe(), FEATURES, Stream(train.y, lambda: blocks(train.x)), samples(FEATURES, 3), partition.divide(23, 2, 1))
    assert words in str(error.value) and list(tmp_path.iterdir()) == []


def test_force_replaces_a_set_and_nothing_else(tmp_path):
    out = tmp_path / "set"
    write(out, data_seed=1)
    train, test = samples(IMAGES, 23, 5), samples(IMAGES, 7, 6)
    write_shards(out, recipe(), IMAGES, train, test, partition.divide(23, 2, 1), force=True)
    found = open_shards(out)
    assert same(found.load(0), train.take(partition.divide(23, 2, 1)[0])) and not (out / "shard-0002.h5").exists()
    assert not already_written(out, recipe(seed=9), IMAGES, 3, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    (out / "thesis.tex").write_text("dear")
    with pytest.raises(UserError, match="not a set of shards"):
        already_written(out, recipe(seed=9), IMAGES, 3, force=True)
    with pytest.raises(UserError, match="more than shards"):
        write_shards(out, recipe(), IMAGES, train, test, partition.divide(23, 2, 1), force=True)
    assert (out / "thesis.tex").read_text() == "dear" and [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_failure_under_force_keeps_the_old_set(tmp_path, monkeypatch):
    write(tmp_path / "set")
    before = contents(tmp_path / "set")

    def full(file, x):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardFile, "append", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); nothing was left there"):
        write_shards(tmp_path / "set", recipe(), IMAGES, samples(IMAGES, 23), samples(IMAGES, 7), partition.divide(23, 2, 1), force=True)
    assert contents(tmp_path / "set") == before and len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_cannot_keep_a_file_is_told(tmp_path, monkeypatch):
    def refused(path, real=writer.synchronise):
        if path.name == "shard-0001.h5":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(path)

    monkeypatch.setattr(writer, "synchronise", refused)
    with pytest.raises(UserError, match=r"cannot be written \(Input/output error\); nothing was left there"):
        write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: SimpleNamespace(free=4000))
    read = []
    with pytest.raises(UserError, match=r"the shards take 0\.01 MB, .* has 0\.00 MB free") as error:
        write_shards(tmp_path / "set", recipe(), IMAGES, Stream(samples(IMAGES, 9).y, lambda: read.append(1) or []), samples(IMAGES, 3), partition.divide(9, 2, 1))
    assert "Free space, or choose another OUT" in str(error.value)
    assert not read and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["set", "s[1-2]"])
def test_what_a_killed_run_left_is_no_set_and_goes_with_the_next(tmp_path, name):
    code = (
        "import os, signal, sys\n"
        "from test_data import *\nfrom mpiconsensus.data.shardfile import ShardFile\n"
        "def kill(*args): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"ShardFile.append = kill\nwrite({str(tmp_path / name)!r})\n"
    )
    env = environment()
    env["PYTHONPATH"] += os.pathsep + str(ROOT / "tests")
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == -9
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(f".{name}.partial-") and list(leftover.iterdir())
    with pytest.raises(UserError, match=r"no manifest\.json"):
        open_shards(leftover)
    busy = tmp_path / f".{name}.partial-busy"
    busy.mkdir()
    lock = os.open(busy, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{name}.partial-busy", name]
    os.close(lock)
    write(tmp_path / "set2")
    write_shards(tmp_path / name, recipe(), IMAGES, samples(IMAGES, 5), samples(IMAGES, 5), partition.divide(5, 2, 1), force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "set2"]


def test_a_shard_of_another_division_is_named(tmp_path):
    for name, n, data_seed in (("a", 3, 0), ("b", 3, 5), ("c", 4, 0)):
        write(tmp_path / name, FEATURES, n=n, data_seed=data_seed)
    shard = tmp_path / "a" / "shard-0001.h5"
    for other, words in (("b", "sha256 that was recorded"), ("c", "of is 4, expected 3")):
        shard.write_bytes((tmp_path / other / "shard-0001.h5").read_bytes())
        with pytest.raises(UserError, match=words) as error:
            open_shards(tmp_path / "a").load(1)
        assert "shard-0001.h5" in str(error.value) and "copy the file again" in str(error.value)


def test_a_file_is_one_that_h5py_alone_would_read(tmp_path):
    train, _ = write(tmp_path / "set")
    with h5py.File(tmp_path / "set" / "shard-0000.h5") as file:
        assert file.attrs["format"].decode() == FORMAT and file["x"].shape == (8, 3, 5, 4) and file["x"].chunks is None
        assert np.array_equal(file["x"][()], train.x[partition.divide(23, 3, 1)[0]])
        size = (tmp_path / "set" / "shard-0000.h5").stat().st_size
        assert size == file.id.get_filesize()


def test_embedded_data_take_any_partition(tmp_path):
    whole = open_source(job_data(), 1, [], 1).load(0)
    for spec in ("dirichlet:0.3", "labels:2", "sorted", "by:label"):
        one = open_source(job_data(partition=spec), 5, [], 3)
        loaded = [one.load(vertex) for vertex in range(5)]
        assert one.partition == spec and [len(shard.y) for shard in loaded] == one.sizes
        assert sorted(np.concatenate([shard.id for shard in loaded])) == whole.id.tolist()
        assert np.array_equal(one.labels, [np.bincount(shard.y, minlength=10) for shard in loaded])
        # The test samples are those of every partition, and of one vertex.
        assert len(open_test(job_data(partition=spec))[1].y) == 360
    for spec, words in (("by:site", "no such column"), ("owners", "no such column"), ("labels:1", "labels:2 or more"), ("x", "not known")):
        with pytest.raises(UserError, match=words):
            open_source(job_data(partition=spec), 5, [], 1)


def test_shards_of_another_partition_than_asked_for_are_named(tmp_path):
    train, test = samples(IMAGES, 60), samples(IMAGES, 5)
    for powers in (None, [1, 2, 4]):
        out = tmp_path / f"set{powers is None}"
        parts = partition.assign("dirichlet:0.5", train.y, 3, 1, powers)
        write_shards(out, recipe(partition="dirichlet:0.5", powers=powers), IMAGES, train, test, parts)
    data = job_data(shards=str(tmp_path / "setFalse"), partition="dirichlet:0.5")
    assert open_source(data, 3, [2, 4, 8], 1).partition == "dirichlet:0.5"
    assert open_source(job_data(shards=data.shards), 3, [], 1).labels.sum() == 60
    with pytest.raises(UserError, match=r"--shards 3 --partition dirichlet:0.5 --powers 1,2,3`"):
        open_source(data, 3, [1, 2, 3], 1)
    with pytest.raises(UserError, match="--powers 1,2,3"):
        open_source(job_data(shards=str(tmp_path / "setTrue")), 3, [1, 2, 3], 1)
    with pytest.raises(UserError, match=r"data.partition = 'labels:2', .* divided by 'dirichlet:0.5'; .*--partition labels:2`"):
        open_source(job_data(shards=data.shards, partition="labels:2"), 3, [], 1)


def prepared(folder, vertices=4):
    """Make a set of shards with prep's own script; return its directory."""
    raw = folder / "raw"
    raw.write_text("".join(f"{1 + k % 2} {1 + k % 3}:1 {4 + k % 5}:0.5\n" for k in range(96)))
    done = start(sys.executable, ROOT / "data_prep" / "libsvm.py", raw, folder / "shards", "--shards", vertices, "--partition", "dirichlet:0.8")
    assert done.returncode == 0, done.stderr
    return folder / "shards"


def poison(path):
    """Put NaN where the features are, with checksums that fit: only the check of features could tell."""
    with h5py.File(path, "r+") as file:
        file["x"][:] = np.nan
        file.attrs["sha256"] = hashlib.sha256(b"".join(file[n][()].tobytes() for n in ("x", "y", "id"))).hexdigest()


def test_a_rank_opens_its_own_vertices_shards_alone(tmp_path):
    """Each of two ranks sees the other's shards poisoned, one with NaN and one as a directory: the run is the clean one."""
    shards = prepared(tmp_path)
    for rank in range(2):
        own = tmp_path / f"rank{rank}" / "shards"
        own.parent.mkdir()
        subprocess.run(["cp", "-r", shards, own], check=True)
        first, second = (own / f"shard-{vertex:04d}.h5" for vertex in ((2, 3), (0, 1))[rank])
        poison(first)
        second.unlink()
        second.mkdir()  # cannot be read, by root either
    words = ["train", "--set", "data.shards=shards", "--set", "training.max_steps=4", "--set", "training.batch_size=4"]
    words += ["--set", "topology.graph=ring:4", "--set", "evaluation.validation_fraction=0.2", "--out"]
    clean = cli(*words, "whole", cwd=tmp_path)
    assert clean.returncode == 0, clean.stderr
    code = "import os; from mpiconsensus.cli import main; os.chdir('rank' + os.environ['OMPI_COMM_WORLD_RANK']); main()"
    apart = mpirun(2, "-c", code, *words, tmp_path / "apart", cwd=tmp_path)
    assert apart.returncode == 0, apart.stderr
    with Run(tmp_path / "apart") as one, Run(tmp_path / "whole") as other:
        assert np.array_equal(one.steps("loss"), other.steps("loss"), equal_nan=True)
        manifest = json.loads((shards / "manifest.json").read_text())
        assert one.data["partition"] == "dirichlet:0.8" and one.data["labels"].tolist() == manifest["labels"]
        np.testing.assert_allclose(one.data["skew"], manifest["skew"], atol=1e-6)
    with h5py.File(tmp_path / "apart" / "run.h5") as file:
        assert all(file["data"][name].attrs["unit"] == "1" for name in ("labels", "skew"))
    # The poison works: whoever loads it stumbles.
    for vertex, words in ((2, "not finite"), (3, "not a readable HDF5 file")):
        with pytest.raises(UserError, match=words) as error:
            open_shards(tmp_path / "rank0" / "shards").load(vertex)
        assert f"shard-000{vertex}.h5" in str(error.value)


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (16, 16), (17, 19), (32, 32), (48, 16), (32, 64)])
@pytest.mark.parametrize("fill", ["random", "white", "dark"])
def test_moments_of_images_are_exact(size, fill):
    x = np.full((130, 3, *size), 255, np.uint8)
    if fill == "random":
        x = np.random.default_rng(0).integers(0, 256, x.shape, dtype=np.uint8)
    elif fill == "dark":  # the largest squares about the middle of 8 bits, and odd ones among them
        x = np.random.default_rng(0).integers(0, 4, x.shape, dtype=np.uint8)
    wide = x.astype(np.int64)
    values, first, second = sums(x)
    assert values == 130 * size[0] * size[1]
    assert list(first) == wide.sum(axis=(0, 2, 3)).tolist() and list(second) == np.square(wide).sum(axis=(0, 2, 3)).tolist()
    assert all(type(value) is int for value in first)
