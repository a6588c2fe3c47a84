"""MNIST, digits, .npz, image folders, archives, dense text, owners: what comes in is in the shards, what is wrong is named."""

import gzip
import io
import os
import pickle
import shlex
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT
from conftest import run as start
from PIL import Image
from test_data_prep import HTML, TEXT, check, cifar10_raw, cifar100_raw, fashion_raw, run

from mpiconsensus.data import shards
from mpiconsensus.data.shards import open_shards
from mpiconsensus.data.source import open_source

sys.path.insert(0, str(ROOT / "data_prep"))

import cifar10
import cifar100
import common
import digits
import embedded
import fashion_mnist
import imagefolder
import libsvm
import mnist
import npz


def refused(result, *words):
    """The last line of standard error names what is wrong, and the exit code is 2."""
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert all(word in line for word in words), line


def pack(folder, archive, mode="w:gz"):
    with tarfile.open(archive, mode) as tar:
        tar.add(folder, folder.name)


@pytest.mark.parametrize("place", ["file", "folder"])
def test_cifar_is_read_from_its_archive(tmp_path, place):
    train, test = cifar10_raw(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "raw").mkdir()
    archive = tmp_path / "raw" / "cifar-10-binary.tar.gz"
    pack(tmp_path / "cifar-10-batches-bin", archive)
    raw = archive if place == "file" else archive.parent
    assert run(cifar10, raw, tmp_path / "out", "--shards", 2).exit_code == 0
    check(tmp_path / "out", train, test, 2)
    # The same bytes from the folder: the same set.
    again = run(cifar10, tmp_path / "cifar-10-batches-bin", tmp_path / "out", "--shards", 2)
    assert again.exit_code == 0 and "already" in again.stdout
    archive.write_bytes(archive.read_bytes()[:-2000])
    refused(run(cifar10, raw, tmp_path / "new", "--shards", 2), "cifar-10-binary.tar.gz", "complete archive", "download")
    archive.write_bytes(HTML)
    refused(run(cifar10, archive, tmp_path / "new", "--shards", 2), "cifar-10-binary.tar.gz", "web page")
    archive.write_bytes(b"no archive")
    refused(run(cifar10, archive, tmp_path / "new", "--shards", 2), "not a tar archive")
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").unlink()
    pack(tmp_path / "cifar-10-batches-bin", archive)
    refused(run(cifar10, archive, tmp_path / "new", "--shards", 2), "holds no test_batch.bin")
    assert not (tmp_path / "new").exists()


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(("script", "folder", "archive"), [
    (cifar10, "cifar-10-batches-py", "cifar-10-python.tar.gz"), (cifar100, "cifar-100-python", "cifar-100-python.tar.gz"),
])  # fmt: skip
def test_a_pickle_is_not_read(tmp_path, script, folder, archive):
    ran = tmp_path / "ran"
    (tmp_path / "raw" / folder).mkdir(parents=True)
    for name in ("data_batch_1", "train", "test", "test_batch", "meta"):
        (tmp_path / "raw" / folder / name).write_bytes(pickle.dumps(Evil(ran)))
    pack(tmp_path / "raw" / folder, tmp_path / archive)
    for raw in (tmp_path / "raw", tmp_path / "raw" / folder, tmp_path / archive):
        result = run(script, raw, tmp_path / "out", "--shards", 2)
        refused(result, "pickled", archive.replace("python", "binary"), "Download")
    assert not ran.exists() and not (tmp_path / "out").exists()
    pickle.loads(pickle.dumps(Evil(ran)))
    assert ran.exists()


def test_mnist_packed_or_not(tmp_path):
    train, test = fashion_raw(tmp_path / "mnist")
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert run(mnist, tmp_path, tmp_path / "out", "--shards", 3, "--partition", "sorted").exit_code == 0
    found = check(tmp_path / "out", train, test, 3)
    assert found.facts.dataset == "mnist" and found.facts.published_mean == (0.1307,) and found.manifest["partition"] == "sorted"
    assert next(iter(found.manifest["sources"])) == "train-images-idx3-ubyte"


def digits_csv(path):
    """Write the digits as their publisher does, from the embedded file."""
    with h5py.File(Path(shards.__file__).parent / "embedded" / "digits.h5") as file:
        x, y, ids = (np.concatenate([file[f"train/{key}"][()], file[f"test/{key}"][()]]) for key in ("x", "y", "id"))
    order = np.argsort(ids)
    path.write_text("".join(f"{','.join(map(str, [*row, label]))}\n" for row, label in zip(x.reshape(len(y), -1)[order], y[order])))


def test_the_digits_are_those_of_the_package(tmp_path):
    digits_csv(tmp_path / "optdigits.tes")
    assert run(digits, tmp_path / "optdigits.tes", tmp_path / "out", "--shards", 4, "--seed", 6).exit_code == 0
    from test_data import job_data, same

    made = open_source(job_data(shards=str(tmp_path / "out")), 4, [], 6)
    there = open_source(job_data(), 4, [], 6)
    for one, other in zip([*map(made.load, range(4)), made.load_test()], [*map(there.load, range(4)), there.load_test()]):
        assert np.array_equal(one.x, other.x) and np.array_equal(one.y, other.y)
    assert same(made.load_test(), there.load_test()) and made.scale == there.scale


@pytest.mark.parametrize("form", ["gray", "first", "last", "alpha", "features", "integers"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, monkeypatch, form, save):
    monkeypatch.setattr(npz, "BLOCK", 700)  # several blocks, and no whole number of them
    random = np.random.default_rng(0)
    shape = {"gray": (5, 6), "first": (3, 5, 6), "last": (5, 6, 3), "alpha": (5, 6, 4), "features": (7,), "integers": (7,)}[form]
    x = random.normal(size=(31, *shape)) if form == "features" else random.integers(0, 256, (31, *shape), np.uint8)
    y = np.arange(31) % 3
    save(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x[:5], y_test=y[:5], site=np.arange(31) % 4)
    result = run(npz, tmp_path / "mine.npz", tmp_path / "out", "--shards", 4, "--partition", "by:site")
    assert result.exit_code == 0, result.output
    def as_first():
        return x.transpose(0, 3, 1, 2)

    ways = {"gray": lambda: x[:, None], "last": as_first, "alpha": as_first, "first": lambda: x}
    stored = ways.get(form, lambda: x.astype(np.float32))()
    found = check(tmp_path / "out", (stored, y), (stored[:5], y[:5]), 4)
    assert [set(found.load(v).id % 4) for v in range(4)] == [{0}, {1}, {2}, {3}]
    assert found.facts.scale == (1.0 if len(shape) == 1 else 1 / 255) and found.facts.dataset == "mine"


def test_npz_draws_test_samples(tmp_path):
    x = np.arange(50, dtype=np.float32)[:, None] * [1, 2]
    np.savez(tmp_path / "mine.npz", x=x, y=np.arange(50) % 2)
    assert run(npz, tmp_path / "mine.npz", tmp_path / "out", "--shards", 3, "--classes", 3).exit_code == 0
    found = open_shards(tmp_path / "out")
    parts = [*map(found.load, range(3)), found.load_test()]
    rows = np.concatenate([part.x[:, 0] for part in parts])
    assert sorted(rows) == list(range(50)) and len(parts[-1].y) == 10 and found.facts.classes == 3
    assert all(np.array_equal(part.x[:, 0] % 2, part.y) for part in parts)


X, Y = np.ones((6, 4), np.float32), np.array([0, 1, 2, 0, 1, 2])
BAD_ARRAYS = {
    "pickled": ({"x": np.array([{}] * 6, object), "y": Y}, ["x.npy is pickled"]),
    "no x": ({"z": X, "y": Y}, ["holds z, y", "needs x or x_train"]),
    "NaN": ({"x": np.where(np.arange(24).reshape(6, 4) == 13, np.nan, X), "y": Y, "x_test": X, "y_test": Y}, ["sample 3", "NaN"]),
    "NaN, test samples drawn": ({"x": np.where(np.arange(24).reshape(6, 4) == 13, np.nan, X), "y": Y}, ["x of sample 3", "NaN"]),
    "infinite": ({"x": X.astype(float) * 1e300, "y": Y}, ["beyond float32"]),
    "negative": ({"x": X, "y": Y - 1}, ["label -1 at sample 0"]),
    "empty class": ({"x": X, "y": np.array([0, 1, 3, 0, 1, 3])}, ["class 2 is empty", "--classes 4"]),
    "out of range": ({"x": X, "y": Y}, ["label 2, labels are 0 to 1", "--classes"], "--classes", 2),
    "unknown in test": ({"x": X, "y": Y, "x_test": X, "y_test": Y + 1}, ["label 3, labels are 0 to 2", "no training sample"]),
    "fractions": ({"x": X, "y": Y + 0.5}, ["y is float64", "whole numbers"]),
    "lengths": ({"x": X[:5], "y": Y}, ["x holds 5 samples, its labels are 6"]),
    "float images": ({"x": X.reshape(6, 2, 2), "y": Y}, ["float32 (6, 2, 2)", "uint8 images"]),
    "one half of a test": ({"x": X, "y": Y, "y_test": Y}, ["one of x_test and y_test"]),
    "other test": ({"x": X, "y": Y, "x_test": X[:, :2], "y_test": Y}, ["x_test has samples (2,)", "(4,)"]),
    "Fortran": ({"x": np.asfortranarray(np.arange(24.0).reshape(6, 4)), "y": Y}, ["Fortran"]),
    "huge label": ({"x": X, "y": Y + 2**40}, ["label 1099511627778 at sample 2", "0 to 999999", "return_inverse"]),
    "a label beyond int64": ({"x": X, "y": np.uint64([0, 1, 2, 0, 1, 2**63 + 5])}, ["label 9223372036854775813 at sample 5"]),
    "a column with NaN": ({"x": X, "y": Y, "w": np.array([1, 2, 1, np.nan, 1, 2])}, ["column 'w'", "not a number"], "--partition", "by:w", "--shards", 1),
    "a column with an empty text": ({"x": X, "y": Y, "w": np.array(["a", ""] * 3)}, ["column 'w'", "is empty"], "--partition", "by:w"),
    "too many shards": ({"x": X, "y": Y}, ["fewer samples than vertices"], "--shards", 9),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named(tmp_path, case):
    arrays, words, *more = BAD_ARRAYS[case]
    np.savez(tmp_path / "mine.npz", **arrays)
    refused(run(npz, tmp_path / "mine.npz", tmp_path / "out", "--shards", 2, *more), *words)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_a_damaged_npz_is_named(tmp_path):
    path, stored = tmp_path / "mine.npz", io.BytesIO()
    np.savez(stored, x=X, y=Y)
    short = stored.getvalue()[:-30]
    damaged = bytearray(stored.getvalue())
    damaged[200] ^= 1  # within x: the checksum of the archive tells
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
    for content, words in [
        (HTML, "web page"), (b"", "empty"), (short, "complete .npz"), (bytes(damaged), "complete .npz"), (b"PK" * 99, "complete .npz"),
        (path.read_bytes(), "complete .npz"),
    ]:  # fmt: skip
        path.write_bytes(content)
        refused(run(npz, path, tmp_path / "out", "--shards", 2), "mine.npz", words)
    locked = bytearray(stored.getvalue())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for place in [k for k in range(len(locked)) if locked[k : k + 4] == mark]:
            locked[place + flags] |= 1
    path.write_bytes(locked)
    refused(run(npz, path, tmp_path / "out", "--shards", 2), "mine.npz", "encrypted")
    path.unlink()
    refused(run(npz, path, tmp_path / "out", "--shards", 2), "mine.npz", "missing")


def picture(path, color, size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB" if isinstance(color, tuple) else "L", size, color).save(path)


def test_a_folder_of_images(tmp_path):
    raw = tmp_path / "raw"
    colors = {"cat": (200, 10, 10), "dog": (10, 200, 10), "eel": 90}
    for name, color in colors.items():
        for number in range(5):
            picture(raw / "train" / name / "images" / f"{number}.png", color, (20 + number, 12))
        picture(raw / "val" / name / "0.png", color)
    half = Image.new("RGB", (32, 8))
    half.paste((255, 255, 255), (12, 0, 20, 8))  # what is cut out is white
    half.save(raw / "train" / "cat" / "half.png")
    args = [raw, tmp_path / "out", "--shards", 3, "--size", 8]
    assert run(imagefolder, *args, "--partition", "by:label").exit_code == 0
    found = open_shards(tmp_path / "out")
    assert found.facts.class_names == ("cat", "dog", "eel") and found.facts.shape == (3, 8, 8) and found.facts.augment == "crop-flip"
    cat, dog, eel = map(found.load, range(3))
    assert (cat.x[0] == 255).all() and len(cat.y) == 6 and set(cat.y) == {0}
    assert (dog.x == np.array([10, 200, 10])[:, None, None]).all() and (eel.x == 90).all()
    assert found.load_test().y.tolist() == [0, 1, 2] and (found.load_test().x[1] == dog.x[0]).all()
    assert "already" in run(imagefolder, *args, "--partition", "by:label").stdout
    picture(raw / "train" / "cat" / "more.png", (1, 1, 1))
    refused(run(imagefolder, *args, "--partition", "by:label"), "other files")


def test_tiny_imagenet_and_a_tree_without_test_images(tmp_path):
    for name, color in (("n01", 10), ("n02", 200)):
        for number in range(10):
            picture(tmp_path / "tiny" / "train" / name / "images" / f"{name}_{number}.JPEG", color)
    picture(tmp_path / "tiny" / "val" / "images" / "val_0.JPEG", 200)
    picture(tmp_path / "tiny" / "val" / "images" / "val_1.JPEG", 10)
    notes = tmp_path / "tiny" / "val" / "val_annotations.txt"
    notes.write_text("val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
    assert run(imagefolder, tmp_path / "tiny", tmp_path / "out", "--shards", 2, "--size", 8, "--workers", 1).exit_code == 0
    test = open_shards(tmp_path / "out").load_test()
    assert dict(zip(test.y.tolist(), test.x[:, 0, 0, 0].tolist())) == {0: 10, 1: 200}
    assert run(imagefolder, tmp_path / "tiny" / "train", tmp_path / "flat", "--shards", 2, "--size", 8).exit_code == 0
    flat = open_shards(tmp_path / "flat")
    assert sum(flat.sizes) == 16 and len(flat.load_test().y) == 4
    notes.write_text("val_7.JPEG\tn02\n")
    refused(run(imagefolder, tmp_path / "tiny", tmp_path / "new", "--shards", 2), "val_annotations.txt, line 1", "val_7.JPEG")
    notes.write_text("val_0.JPEG\tn99\n")
    refused(run(imagefolder, tmp_path / "tiny", tmp_path / "new", "--shards", 2), "'n99'", "no training folder")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: (raw / "dog" / "1.png").write_bytes(HTML), ["dog/1.png", "web page"]),
        (lambda raw: (raw / "dog" / "1.png").write_bytes(b""), ["dog/1.png", "empty"]),
        (lambda raw: (raw / "dog" / "1.png").write_bytes((raw / "dog" / "0.png").read_bytes()[:-30]), ["dog/1.png", "complete image"]),
        (lambda raw: (raw / "eel").mkdir(), ["eel holds no image", "class is empty", "remove it"]),
        (lambda raw: [path.unlink() for path in (raw / "dog").iterdir()] + [(raw / "dog").rmdir()], ["1 class folders"]),
        (lambda raw: (raw / "dog" / "9.png").symlink_to("away.png"), ["dog/9.png links to away.png", "not there"]),
        (lambda raw: (raw / os.fsdecode(b"e\xff")).mkdir() or picture(raw / os.fsdecode(b"e\xff") / "0.png", 1), ["the name 'e\\udcff'", "UTF-8"]),
        (lambda raw: picture(raw / "dog" / "1.png", 7, (1, 2**24)), ["dog/1.png", "1 x 16777216 pixels", "8 x 134217728"]),
        (lambda raw: Image.new("F", (9, 9), 0.5).save(raw / "dog" / "9.tif"), ["dog/9.tif", "mode F", "save it with 8 bits"]),
        (lambda raw: raw.rename(raw.with_name("away")) and raw.write_bytes(HTML), ["raw is a web page"]),
    ],
)
def test_bad_images_are_named(tmp_path, change, words):
    for name in ("cat", "dog"):
        for number in range(4):
            picture(tmp_path / "raw" / name / f"{number}.png", number)
    change(tmp_path / "raw")
    refused(run(imagefolder, tmp_path / "raw", tmp_path / "out", "--shards", 2, "--size", 8), *words)
    assert not {"out"} & {path.name for path in tmp_path.iterdir()} and not list(tmp_path.glob(".out*"))


@pytest.mark.skipif(os.geteuid() == 0 and not shutil.which("setpriv"), reason="root reads everything")
@pytest.mark.parametrize(
    ("locked", "words"),
    [
        ("raw/dog", ["raw/dog cannot be used (Permission denied)"]),
        ("raw/dog/deeper", ["raw/dog/deeper cannot be used (Permission denied)"]),
        ("raw/dog/1.png", ["raw/dog/1.png cannot be read (Permission denied)"]),
        ("set", ["set/out cannot be used (Permission denied)"]),
    ],
)
def test_what_may_not_be_read_is_named(tmp_path, locked, words):
    for name in ("cat", "dog", "dog/deeper"):
        for number in range(2):
            picture(tmp_path / "raw" / name / f"{number}.png", number)
    (tmp_path / "set").mkdir()
    (tmp_path / locked).chmod(0)
    plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    made = [sys.executable, ROOT / "data_prep" / "imagefolder.py", tmp_path / "raw", tmp_path / "set" / "out", "--shards", 2]
    result = start(*plain, *made)
    (tmp_path / locked).chmod(0o755)
    assert result.returncode == 2 and all(word in result.stderr.splitlines()[-1] for word in words), result.stderr
    assert list((tmp_path / "set").iterdir()) == []


def test_images_of_every_mode_are_what_they_show(tmp_path):
    for name in ("cat", "dog"):
        picture(tmp_path / "raw" / name / "0.png", 0)
    modes = {"L": 90, "P": 90, "1": 255, "LA": (90, 9), "RGBA": (10, 90, 200, 0), "CMYK": (0, 0, 0, 165), "I;16": 90 * 256 + 77}
    for mode, color in modes.items():
        Image.new(mode, (9, 9), color).save(tmp_path / "raw" / "dog" / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}")
    palette = Image.new("P", (9, 9), 3)
    palette.putpalette([0] * 9 + [10, 90, 200])
    palette.save(tmp_path / "raw" / "dog" / "P.png")
    shown = {"1": [255] * 3, "RGBA": [10, 90, 200], "P": [10, 90, 200]}
    for path in (tmp_path / "raw" / "dog").iterdir():
        if path.stem != "0":
            found = imagefolder.decode(path, 4)
            assert found.shape == (3, 4, 4) and found.dtype == np.uint8
            assert (found == np.array(shown.get(path.stem, [90] * 3))[:, None, None]).all(), path


def test_a_folder_of_test_images_without_classes_is_not_passed_over(tmp_path):
    for name in ("cat", "dog"):
        for number in range(4):
            picture(tmp_path / "raw" / "train" / name / f"{number}.png", number)
    picture(tmp_path / "raw" / "val" / "ILSVRC2012_val_00000001.png", 1)
    refused(run(imagefolder, tmp_path / "raw", tmp_path / "out", "--shards", 2), "raw/val holds no class folders", "move it away")


@pytest.mark.parametrize("script", [imagefolder, libsvm, npz])
def test_a_share_that_is_no_number_is_refused(tmp_path, script):
    result = run(script, tmp_path, tmp_path / "out", "--shards", 2, "--test-fraction", "nan")
    assert result.exit_code == 2 and "nan is not in the range 0<x<1" in result.stderr


def test_what_is_to_be_typed_next_can_be_typed(tmp_path):
    (tmp_path / "table").write_text(TEXT)
    result = run(libsvm, tmp_path / "table", tmp_path / "o é [1]", "--shards", 1)
    assert result.exit_code == 0 and shlex.split(result.stdout.splitlines()[-1].split(": ", 1)[1])[-1] == f"data.shards={tmp_path / 'o é [1]'}"


def test_dense_text_and_two_labels_of_any_value(tmp_path):
    (tmp_path / "dense").write_text("+1 0.5 0 -2\n-1 0 1e-3 0\n\n+1 0 0 0\n")
    (tmp_path / "commas").write_text("7, 0.5, 0, -2\n3.5, 0, 1e-3, 0\n7, 0, 0, 0\n")
    x = np.array([[0.5, 0, -2], [0, 1e-3, 0], [0, 0, 0]], np.float32)
    for name, names in (("dense", ("-1", "1")), ("commas", ("3.5", "7"))):
        out = tmp_path / f"{name}-out"
        (tmp_path / "held").write_text((tmp_path / name).read_text())
        assert run(libsvm, tmp_path / name, out, "--shards", 2, "--test", tmp_path / "held").exit_code == 0
        found = check(out, (x, np.array([1, 0, 1])), (x, np.array([1, 0, 1])), 2)
        assert found.facts.class_names == names
    for text, words in (("1 2 3\n2 3\n", "line 2: 1 values, 2 in the first"), ("1 2 nan\n", "line 1: nan"), ("1 2\n2 3:1\n", "line 2")):
        (tmp_path / "dense").write_text(text)
        refused(run(libsvm, tmp_path / "dense", tmp_path / "new", "--shards", 1), "dense", words, "label value value")


def test_a_column_of_the_text_and_coarse_classes_are_owners(tmp_path):
    (tmp_path / "table").write_text("".join(f"{row % 2} 1:{row % 3 + 1} 2:{row}\n" for row in range(60)))
    assert run(libsvm, tmp_path / "table", tmp_path / "out", "--shards", 3, "--partition", "by:1").exit_code == 0
    found = open_shards(tmp_path / "out")
    assert [set(found.load(vertex).x[:, 0]) for vertex in range(3)] == [{1}, {2}, {3}]
    refused(run(libsvm, tmp_path / "table", tmp_path / "new", "--shards", 3, "--partition", "by:7"), "no column '7'", "label, 1, 2")
    cifar100_raw(tmp_path / "cifar-100-binary")
    assert run(cifar100, tmp_path, tmp_path / "coarse", "--shards", 11, "--partition", "by:coarse").exit_code == 0
    # The raw file has coarse label row % 20 in row `row`, of 11 rows.
    assert [open_shards(tmp_path / "coarse").load(vertex).id.tolist() for vertex in range(11)] == [[row] for row in range(11)]


def test_a_file_of_owners(tmp_path):
    fashion_raw(tmp_path / "raw")
    owners = np.array(list("aabbccaabbcca"))
    (tmp_path / "owners.txt").write_text("\n".join(owners) + "\n")
    np.save(tmp_path / "owners.npy", owners)
    for name in ("owners.txt", "owners.npy"):
        out = tmp_path / f"{name}-out"
        result = run(fashion_mnist, tmp_path / "raw", out, "--shards", 3, "--owners", tmp_path / name)
        assert result.exit_code == 0, result.output
        found = open_shards(out)
        assert [set(owners[found.load(vertex).id]) for vertex in range(3)] == [{"a"}, {"b"}, {"c"}]
        assert found.manifest["partition"] == "owners" and len(found.manifest["options"]["owners"]) == 64
    np.save(tmp_path / "pickled.npy", np.array([{}] * 13, object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.array([1.0] * 12 + [np.nan]))
    (tmp_path / "short.txt").write_text("a\nb\n")
    (tmp_path / "page.txt").write_bytes(HTML)
    (tmp_path / "blank.txt").write_text("a\n" * 12 + " \n")
    for more, words in [
        (["--owners", tmp_path / "short.txt"], ["short.txt", "ids (2,)", "13 training samples"]),
        (["--owners", tmp_path / "pickled.npy"], ["pickled.npy"]),
        (["--owners", tmp_path / "nan.npy"], ["sample 12", "not a number"]),
        (["--owners", tmp_path / "blank.txt"], ["blank.txt", "sample 12", "is empty"]),
        (["--owners", tmp_path / "nowhere.txt"], ["nowhere.txt is missing", "--owners is a file of one id"]),
        (["--owners", tmp_path / "page.txt"], ["web page"]),
        (["--owners", tmp_path / "owners.txt", "--partition", "sorted"], ["exclude one another"]),
        (["--partition", "owners"], ["--owners FILE"]),
        (["--partition", "by:site"], ["no column 'site'", "it has label"]),
        (["--partition", "labels:99"], ["labels:99", "at most"]),
        (["--partition", "dirichlet:x"], ["dirichlet:x", "alpha"]),
    ]:
        refused(run(fashion_mnist, tmp_path / "raw", tmp_path / "out", "--shards", 3, *more), *words)
    assert not (tmp_path / "out").exists()


def test_another_partition_takes_force(tmp_path):
    fashion_raw(tmp_path / "raw")
    args = [tmp_path / "raw", tmp_path / "out", "--shards", 2]
    assert run(fashion_mnist, *args).exit_code == 0
    refused(run(fashion_mnist, *args, "--partition", "sorted"), "partition is 'iid', asked for is 'sorted'", "--force")
    assert open_shards(tmp_path / "out").manifest["partition"] == "iid"
    result = run(fashion_mnist, *args, "--partition", "sorted", "--force")
    assert result.exit_code == 0 and "label skew" in result.stdout
    assert open_shards(tmp_path / "out").manifest["partition"] == "sorted"
    assert "already" in run(fashion_mnist, *args, "--partition", "sorted", "--force").stdout
    assert "0 training sample" not in result.stderr


def test_progress_has_rate_and_time_left(monkeypatch, capsys):
    clock = iter([0.0, 5.0, 11.0, 12.0, 31.0])
    monkeypatch.setattr(common.time, "monotonic", lambda: next(clock))
    progress = common.Progress()
    for done in (50e6, 110e6, 120e6, 310e6):
        progress(done, 620e6)
    # 110 MB in 11 s leave 510 MB: 51 s; a line every ten seconds.
    assert capsys.readouterr().err.splitlines() == [" 18%  10 MB/s  51 s left", " 50%  10 MB/s  31 s left"]


def test_the_embedded_files_are_what_their_script_makes(tmp_path):
    """Write the raw files from the embedded ones, and make these again."""
    there = Path(shards.__file__).parent / "embedded"
    tables = {}
    for name in ("digits", "mushrooms"):
        with h5py.File(there / f"{name}.h5") as file:
            arrays = {
                key: np.concatenate([file[f"train/{key}"][()], file[f"test/{key}"][()]]) for key in ("x", "y", "id")
            }
            assert {"source", "citation", "licence"} <= set(file.attrs)
        order = np.argsort(arrays["id"])
        tables[name] = arrays["x"][order].reshape(len(order), -1), arrays["y"][order]
    lines = [",".join(map(str, [*x, y])) for x, y in zip(*tables["digits"])]
    (tmp_path / "digits.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    lines = [
        f"{y + 1} " + " ".join(f"{column + 1}:1" for column in np.flatnonzero(x)) for x, y in zip(*tables["mushrooms"])
    ]
    (tmp_path / "mushrooms").write_text("\n".join(lines))
    (tmp_path / "out").mkdir()
    result = run(embedded, tmp_path / "digits.csv.gz", tmp_path / "mushrooms", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for name in ("digits", "mushrooms"):
        with h5py.File(there / f"{name}.h5") as old, h5py.File(tmp_path / "out" / f"{name}.h5") as new:
            for split in ("train", "test"):
                assert all(np.array_equal(old[split][key], new[split][key]) for key in ("x", "y", "id"))
            assert set(old.attrs) == set(new.attrs)
            for key in old.attrs:
                close = np.testing.assert_allclose if key in ("mean", "std") else np.testing.assert_array_equal
                close(old.attrs[key], new.attrs[key])


def test_the_embedded_script_refuses_other_files(tmp_path):
    (tmp_path / "digits.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "table").write_text(TEXT)
    digits = run(embedded, tmp_path / "digits.csv", tmp_path / "table", tmp_path)
    assert digits.exit_code == 2 and "expected 1797 rows" in digits.stderr


