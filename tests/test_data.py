"""Shards: what is written comes back, and what is damaged is named."""

import hashlib
import json
import os
import resource
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpiconsensus.data import partition, shards
from mpiconsensus.data.manifest import Facts, file_name
from mpiconsensus.data.shardfile import ShardFile
from mpiconsensus.data.shards import Shard, open_shards, write_shards
from mpiconsensus.data.source import open_source
from mpiconsensus.errors import UserError

IMAGES = Facts(
    "pictures", (3, 5, 4), ("cat", "dog", "ship"), 1 / 255, "crop-flip", "free", "nobody", "data_prep/cifar10.py"
)
FEATURES = Facts("table", (6,), ("no", "yes"), 1.0, "none", "free", "nobody", "data_prep/libsvm.py")


def samples(facts, count, seed=0):
    random = np.random.default_rng(seed)
    if len(facts.shape) == 3:
        x = random.integers(0, 256, (count, *facts.shape), dtype=np.uint8)
    else:
        x = random.normal(3, 2, (count, *facts.shape)).astype(np.float32)
    return Shard(x, random.integers(0, facts.classes, count), np.arange(count) * 2)


def recipe(**changes):
    return {"partition": "iid", "seed": 1, "powers": None, "sources": {"raw": "00"}, "options": {}} | changes


def write(out, facts=IMAGES, count=23, n=3, powers=None, data_seed=0):
    train, test = samples(facts, count, data_seed), samples(facts, 7, data_seed + 1)
    parts = partition.divide(count, n, 1, powers)
    write_shards(out, recipe(powers=powers), facts, train, test, parts)
    return train, test


def job_data(**keys):
    return SimpleNamespace(**({"dataset": "digits", "shards": "", "partition": "iid", "normalize": "published", "augment": "auto"} | keys))


def same(a, b):
    return all(left.dtype == right.dtype and np.array_equal(left, right) for left, right in zip(a, b, strict=True))



@pytest.mark.parametrize("facts", [IMAGES, FEATURES])
def test_shards_come_back_as_they_were_written(tmp_path, facts):
    train, test = write(tmp_path / "set", facts, count=31, n=4, powers=[1, 2, 1, 3])
    found = open_shards(tmp_path / "set")
    loaded = [found.load(vertex) for vertex in range(4)]
    assert [len(shard.y) for shard in loaded] == found.sizes == partition.sizes(31, 4, [1, 2, 1, 3])
    order = np.argsort(np.concatenate([shard.id for shard in loaded]))
    together = Shard(*(np.concatenate([shard[field] for shard in loaded])[order] for field in range(3)))
    assert same(together, train) and same(found.load_test(), test)
    assert all(np.all(np.diff(shard.id) > 0) for shard in loaded)


def text(value):
    """Text of fixed length comes as bytes in UTF-8."""
    return value.decode() if isinstance(value, bytes) else value


def test_the_file_is_laid_out_as_documented(tmp_path):
    facts = IMAGES._replace(published_mean=(0.1, 0.2, 0.3), published_std=(1.0, 2.0, 3.0))
    train, _ = write(tmp_path / "set", facts)
    with h5py.File(tmp_path / "set" / "shard-0001.h5") as file:
        assert {name: file[name].dtype for name in file} == {"x": np.uint8, "y": np.int64, "id": np.int64}
        assert all(file[name].id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS for name in file)
        digest = hashlib.sha256(b"".join(file[name][()].tobytes() for name in ("x", "y", "id"))).hexdigest()
        expected = {
            "format": "mpiconsensus shard",
            "version": 3,
            "dataset": "pictures",
            "split": "train",
            "vertex": 1,
            "of": 3,
        }
        expected |= {"partition": "iid", "seed": 1, "scale": 1 / 255, "sha256": digest}
        assert {name: text(file.attrs[name]) for name in expected} == expected
        assert file.attrs["class_names"].tolist() == [b"cat", b"dog", b"ship"]
        scaled = train.x.astype(np.float64) / 255
        np.testing.assert_allclose(file.attrs["mean"], scaled.mean(axis=(0, 2, 3)), rtol=1e-13)
        np.testing.assert_allclose(file.attrs["std"], scaled.std(axis=(0, 2, 3)), rtol=1e-13)
        assert list(file.attrs["published_mean"]) == [0.1, 0.2, 0.3] and list(file.attrs["published_std"]) == [1, 2, 3]
    with h5py.File(tmp_path / "set" / "test.h5") as file:
        assert text(file.attrs["split"]) == "test" and file.attrs["vertex"] == -1
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    for name, digests in manifest["files"].items():
        content = (tmp_path / "set" / name).read_bytes()
        with h5py.File(tmp_path / "set" / name) as file:
            start, size = file["x"].id.get_offset(), file["x"].nbytes
        assert hashlib.sha256(content[:start] + content[start + size :]).hexdigest() == digests["frame_sha256"]
    assert sorted(manifest["files"]) == ["shard-0000.h5", "shard-0001.h5", "shard-0002.h5", "test.h5"]


def test_many_features_and_many_shards_have_room(tmp_path):
    wide = FEATURES._replace(shape=(20000,))
    write(tmp_path / "set", wide, count=2, n=1)
    assert open_shards(tmp_path / "set").load(0).x.shape == (2, 20000)
    assert [file_name(7, 9), file_name(7, 10000), file_name(7, 10001)] == [
        "shard-0007.h5",
        "shard-0007.h5",
        "shard-00007.h5",
    ]


def test_computed_moments_are_those_of_numpy_and_divide():
    x = samples(FEATURES, 5000).x
    x[:, 2] = 4
    mean, std = shards.moments(x, 1.0)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-13)
    np.testing.assert_allclose(np.delete(std, 2), np.delete(x.astype(np.float64).std(axis=0), 2), rtol=1e-13)
    assert std[2] == 1


def test_a_vertex_reads_its_own_file_alone(tmp_path):
    write(tmp_path / "set", n=4)
    whole = open_shards(tmp_path / "set").load(2)
    (tmp_path / "set" / "shard-0000.h5").write_bytes(b"poison")
    (tmp_path / "set" / "shard-0001.h5").unlink()
    (tmp_path / "set" / "shard-0003.h5").unlink()
    (tmp_path / "set" / "test.h5").unlink()
    alone = open_source(job_data(shards=str(tmp_path / "set")), 4, [], 1)
    assert same(alone.load(2), whole)
    for vertex in (0, 1, 3):
        with pytest.raises(UserError, match=f"shard-000{vertex}.h5"):
            alone.load(vertex)
    with pytest.raises(UserError, match="test.h5"):
        alone.load_test()


def _set(name, value):
    def change(path):
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return change


def _replace(name, function):
    """Replace a dataset by function(values), and make the sha256 attribute fit it."""

    def change(path):
        with h5py.File(path, "r+") as file:
            values = function(file[name][()])
            del file[name]
            file[name] = values
            file.attrs["sha256"] = hashlib.sha256(b"".join(file[n][()].tobytes() for n in ("x", "y", "id"))).hexdigest()

    return change


def _first(value):
    def function(values):
        values.reshape(-1)[0] = value
        return values

    return function


def _elsewhere(path):
    """Let x be a link to the same samples in another file."""
    other = path.parent / "other.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["x"]
        file["x"] = h5py.ExternalLink(str(other), "x")


def _virtual(path):
    other = path.parent / "other.h5"
    other.write_bytes(path.read_bytes())
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout(file["x"].shape, file["x"].dtype)
        layout[...] = h5py.VirtualSource(str(other), "x", file["x"].shape)
        del file["x"]
        file.create_virtual_dataset("x", layout)


def _huge(path):
    """Claim 24 TB of samples, none of which is stored."""
    with h5py.File(path, "r+") as file:
        del file["x"]
        file.create_dataset("x", (10**12, 6), "<f4", chunks=(1000, 6))


def _drop(name):
    def change(path):
        with h5py.File(path, "r+") as file:
            del file[name]

    return change


DAMAGES = {
    "missing": (lambda path: path.unlink(), "missing"),
    "empty": (lambda path: path.write_bytes(b""), "HDF5"),
    "web page": (lambda path: path.write_bytes(b"<html>" * 999), "HDF5"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-50]), "HDF5"),
    "format": (_set("format", "table"), "format is table"),
    "version": (_set("version", 7), "version is 7, expected 3"),
    "data set": (_set("dataset", "digits"), "dataset is digits, expected"),
    "split": (_set("split", "test"), "split is test, expected train"),
    "vertex": (_set("vertex", 0), "vertex is 0, expected 1"),
    "of": (_set("of", 9), "of is 9, expected 3"),
    "seed": (_set("seed", 2), "seed is 2, expected 1"),
    "array for a number": (_set("of", [3, 3]), "of is"),
    "no labels": (_drop("y"), "no dataset 'y'"),
    "a group": (lambda path: (_drop("y")(path), h5py.File(path, "r+").create_group("y")), "no dataset 'y'"),
    "external link": (_elsewhere, "no dataset 'x' of its own"),
    "virtual": (_virtual, "no dataset 'x' of its own"),
    "huge": (_huge, "x is float32 (1000000000000, 6), expected float32 (8, 6)"),
    "x type": (_replace("x", lambda x: x.astype(np.float64)), "x is float64"),
    "x shape": (_replace("x", lambda x: x[:-1]), "expected float32 (8, 6)"),
    "y shape": (_replace("y", lambda y: y[:, None]), "y is int64 (8, 1), expected"),
    "y type": (_replace("y", lambda y: y.astype(np.int32)), "y is int32"),
    "label high": (_replace("y", _first(2)), "labels go from 0 to 2, allowed are 0 to 1"),
    "label low": (_replace("y", _first(-1)), "labels go from -1"),
    "not a number": (_replace("x", _first(np.nan)), "not finite"),
    "infinite": (_replace("x", _first(np.inf)), "not finite"),
    "id": (_replace("id", lambda ids: ids[::-1].copy()), "id does not ascend"),
    "another sample": (_replace("x", _first(0.5)), "sha256"),
    "attribute": (_set("sha256", "0" * 64), "sha256"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_named(tmp_path, damage):
    change, words = DAMAGES[damage]
    write(tmp_path / "set", FEATURES)
    change(tmp_path / "set" / "shard-0001.h5")
    with pytest.raises(UserError) as error:
        open_shards(tmp_path / "set").load(1)
    assert "shard-0001.h5" in str(error.value) and words in str(error.value) and "data_prep" in str(error.value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_altered_byte_is_refused_or_harmless(tmp_path, data):
    if not (tmp_path / "set").exists():
        write(tmp_path / "set", FEATURES)
    path = tmp_path / "set" / "shard-0002.h5"
    kept = path.with_suffix(".kept")
    if not kept.exists():
        kept.write_bytes(path.read_bytes())
    content = bytearray(kept.read_bytes())
    path.write_bytes(content)
    good = open_shards(tmp_path / "set").load(2)
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        assert same(open_shards(tmp_path / "set").load(2), good)
    except UserError as error:
        assert "shard-0002.h5" in str(error)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("format", "log", "not a manifest of shards"),
        ("version", 7, "version 7"),
        ("dataset", None, "dataset"),
        ("dataset", 5, "dataset"),
        ("shards", 4, "sizes"),
        ("seed", True, "seed = True"),
        ("sizes", [8, 8, 0], "sizes"),
        ("sizes", [8, 8, 7.5], "sizes"),
        ("test_size", 0, "test_size"),
        ("shape", [3, 5], "shape"),
        ("class_names", ["cat"], "class_names"),
        ("mean", [0.5, 0.5], "mean is not 3"),
        ("mean", [0.5, 0.5, float("nan")], "mean is not 3"),
        ("std", [0.5, 0.5, 0], "std"),
        ("published_mean", [0.5, 0.5, 0.5], "published_std"),
        ("scale", 0.0, "scale"),
        ("dataset", "x\ud800", "cannot be read"),
        ("powers", ["a", "b", "c"], "powers are not 3 positive numbers"),
        ("powers", [1.0, 2.0], "powers"),
        ("skew", "high", "skew is not 3 finite numbers"),
        ("skew", [0.1, 0.2], "skew"),
        ("files", {}, "shard-0000.h5"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, field, value, words):
    write(tmp_path / "set")
    path = tmp_path / "set" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[field] = value
    if value is None:
        del manifest[field]
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError) as error:
        open_shards(tmp_path / "set")
    assert "manifest.json" in str(error.value) and words in str(error.value)


def test_a_directory_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(UserError, match=r"manifest\.json cannot be read .*Permission denied"):
        open_shards(tmp_path)


def test_a_directory_without_a_manifest_is_no_set(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        open_shards(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no manifest\.json"):
        open_shards(tmp_path)
    for content in (b"{", b"[]", b"\xff\xfe", b""):
        (tmp_path / "manifest.json").write_bytes(content)
        with pytest.raises(UserError, match=r"manifest\.json"):
            open_shards(tmp_path)


@pytest.mark.parametrize("n_written", [0, 1, 3])
def test_an_interrupt_leaves_nothing(tmp_path, monkeypatch, n_written):
    real, calls = ShardFile.append, []

    def append(*args):
        if len(calls) == n_written:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(ShardFile, "append", append)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        with pytest.raises(UserError, match=r"set: the shards cannot be written \(File too large\)"):
            write(tmp_path / "set", count=2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_something_is_not_overwritten(tmp_path):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set")
    before = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "set", data_seed=5)
    assert {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def of_version(version, folder):
    """Make of a set what version 1 or 2 of the format had: another number in each file, and sha256 (version 1: of whole files)."""
    manifest = json.loads((folder / "manifest.json").read_text()) | {"version": version}
    for name in manifest["files"]:
        with h5py.File(folder / name, "r+") as file:
            samples = hashlib.sha256(b"".join(file[n][()].tobytes() for n in ("x", "y", "id"))).hexdigest()
            del file.attrs["sha256"]
            file.attrs["version"], file.attrs["sha256"] = version, samples
            start, end = file["x"].id.get_offset(), file["x"].id.get_offset() + file["x"].nbytes
        content = (folder / name).read_bytes()
        rest = content if version == 1 else content[:start] + content[end:]
        rest = {"sha256" if version == 1 else "frame_sha256": hashlib.sha256(rest).hexdigest()}
        manifest["files"][name] = {"samples_sha256": samples} | rest
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("version", [1, 2])
def test_a_set_of_an_earlier_version_is_read_and_recognised(tmp_path, version):
    train, test = write(tmp_path / "set")
    of_version(version, tmp_path / "set")
    found = open_shards(tmp_path / "set")
    shard = found.load(1)
    assert same(shard, train.take(np.searchsorted(train.id, shard.id))) and same(found.load_test(), test)
    assert all(found.is_whole(vertex) for vertex in (-1, 0, 1, 2)) and shards.already_written(tmp_path / "set", recipe(), IMAGES, 3)
    file, digest = found.open(1)
    assert same(file.check(found.facts, digest, np.arange(8)), shard)
    file.close()
    with h5py.File(tmp_path / "set" / "shard-0001.h5", "r+") as file:
        file.attrs["mean"] = [0.5, 0.5, 0.5]
    assert not found.is_whole(1)
    with h5py.File(tmp_path / "set" / "shard-0002.h5", "r+") as file:
        file["x"][0, 0, 0, 0] ^= 1
    with pytest.raises(UserError, match="sha256"):
        found.load(2)


@pytest.mark.parametrize("part", ["superblock", "first pixel", "last pixel", "label", "id", "mean", "last byte"])
def test_every_byte_of_a_file_counts(tmp_path, part):
    write(tmp_path / "set")
    path = tmp_path / "set" / "shard-0001.h5"
    content = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        x, y, ids = (file[name].id.get_offset() for name in ("x", "y", "id"))
        places = {"superblock": 9, "first pixel": x, "last pixel": x + file["x"].nbytes - 1, "label": y, "id": ids, "last byte": len(content) - 1}
        places["mean"] = content.index(np.asarray(file.attrs["mean"]).tobytes())
    found = open_shards(tmp_path / "set")
    assert found.is_whole(1)
    content[places[part]] ^= 1
    path.write_bytes(content)
    assert not found.is_whole(1) and found.is_whole(0)
    assert part.endswith("pixel") or not found.has_frame(1)


def test_a_set_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """fsync of every file and of the directory comes before the rename, and of the directory around it behind it."""
    events = []
    names = {"fsync": lambda file: os.path.realpath(f"/proc/self/fd/{file}"), "rename": lambda source, target: str(target)}
    for name, told in names.items():
        before = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, told=told, before=before: (events.append((name, Path(told(*given)).name)), before(*given))[1])
    write(tmp_path / "set")
    *files, rename, around = events
    assert rename == ("rename", "set") and around == ("fsync", tmp_path.name)
    assert files[-1][1].startswith(".set.partial-") and files[-2] == ("fsync", "manifest.json")
    assert sorted(files[:-2]) == [("fsync", f"shard-{v:04d}.h5") for v in range(3)] + [("fsync", "test.h5")]


def test_samples_that_do_not_fit_are_not_written(tmp_path):
    for change in ({"y": np.full(9, 3)}, {"x": np.zeros((9, 3, 5, 5), np.uint8)}, {"id": np.zeros(9, np.int64)}):
        train = samples(IMAGES, 9)._replace(**change)
        with pytest.raises(UserError):
            write_shards(tmp_path / "set", recipe(), IMAGES, train, samples(IMAGES, 3), partition.divide(9, 2, 1))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_set_is_recognised(tmp_path):
    out = tmp_path / "set"
    assert not shards.already_written(out, recipe(), IMAGES, 3)
    out.mkdir()
    assert not shards.already_written(out, recipe(), IMAGES, 3)
    write(out)
    assert shards.already_written(out, recipe(), IMAGES, 3)
    for changed, n, words in [
        (recipe(), 4, "shards is 3, asked for is 4"),
        (recipe(seed=2), 3, "seed is 1, asked for is 2"),
        (recipe(powers=[1, 2, 3]), 3, "powers is None, asked for is"),
        (recipe(sources={"raw": "01"}), 3, "sources is of other files"),
        (recipe(options={"test_fraction": 0.1}), 3, "options"),
    ]:
        with pytest.raises(UserError) as error:
            shards.already_written(out, changed, IMAGES, n)
        assert words in str(error.value) and "another OUT" in str(error.value)
    with pytest.raises(UserError, match="dataset"):
        shards.already_written(out, recipe(), IMAGES._replace(dataset="other"), 3)
    (out / "shard-0001.h5").write_bytes((out / "shard-0000.h5").read_bytes())
    with pytest.raises(UserError, match=r"shard-0001\.h5 is missing or altered"):
        shards.already_written(out, recipe(), IMAGES, 3)
    (out / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a set of shards"):
        shards.already_written(out, recipe(), IMAGES, 3)
