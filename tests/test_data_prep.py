"""The data preparation scripts on small raw files in the publishers' formats."""

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from mpiconsensus.data.shardfile import ShardFile
from mpiconsensus.data.shards import open_shards
from mpiconsensus.data.source import open_source

SCRIPTS = Path(__file__).resolve().parent.parent / "data_prep"
sys.path.insert(0, str(SCRIPTS))

import cifar
import cifar10
import cifar100
import fashion_mnist
import libsvm

TRAIN_FILE = "train-images-idx3-ubyte.gz"


def run(script, *args):
    return CliRunner().invoke(script.main, [str(arg) for arg in args])


def cifar10_raw(folder, records=4, classes=10):
    """Write six batches; return (pixels, labels) of the five training ones and of the test one."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (6 * records, 3, 32, 32), dtype=np.uint8)
    labels = random.integers(0, classes, 6 * records, dtype=np.uint8)
    for number, name in enumerate([f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]):
        rows = range(number * records, (number + 1) * records)
        (folder / name).write_bytes(b"".join(bytes([labels[row]]) + pixels[row].tobytes() for row in rows))
    cut = 5 * records
    return (pixels[:cut], labels[:cut]), (pixels[cut:], labels[cut:])


def cifar100_raw(folder, names=True, counts=(11, 3)):
    folder.mkdir(parents=True)
    random = np.random.default_rng(2)
    sets = []
    for name, count in zip(("train.bin", "test.bin"), counts, strict=True):
        pixels = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        fine = random.integers(20, 100, count, dtype=np.uint8)
        (folder / name).write_bytes(
            b"".join(bytes([row % 20, fine[row]]) + pixels[row].tobytes() for row in range(count))
        )
        sets.append((pixels, fine))
    if names:
        (folder / "fine_label_names.txt").write_text("".join(f"thing_{number}\n" for number in range(100)))
    return sets


def idx(array):
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return gzip.compress(header + array.tobytes())


def fashion_raw(folder, counts=(13, 5)):
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    sets = []
    for split, count in zip(("train", "t10k"), counts, strict=True):
        pixels = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = random.integers(0, 10, count, dtype=np.uint8)
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(idx(pixels))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(idx(labels))
        sets.append((pixels[:, None], labels))
    return sets


TEXT = "+1 1:0.5 3:-2\n-1 2:1e-3\n\n+1\n2.5 1:1 2:2 3:3 5:4  \r\n-1 5:7\n"
DENSE = [[0.5, 0, -2, 0, 0], [0, 1e-3, 0, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 0, 4], [0, 0, 0, 0, 7]]
CLASSES = [1, 0, 1, 2, 0]


def check(out, train, test, n):
    """Every sample of the raw files is in exactly one shard, under its index, and the test set is whole."""
    found = open_shards(out)
    loaded = [found.load(vertex) for vertex in range(n)]
    ids = np.concatenate([shard.id for shard in loaded])
    assert sorted(ids) == list(range(len(train[1])))
    for shard in loaded:
        assert np.array_equal(shard.x, train[0][shard.id]) and np.array_equal(shard.y, train[1][shard.id])
    held = found.load_test()
    assert (
        np.array_equal(held.x, test[0])
        and np.array_equal(held.y, test[1])
        and held.id.tolist() == list(range(len(test[1])))
    )
    return found


@pytest.mark.parametrize("inside", [True, False])
def test_cifar10(tmp_path, inside):
    folder = tmp_path / "raw" / "cifar-10-batches-bin"
    train, test = cifar10_raw(folder)
    result = run(cifar10, folder if inside else folder.parent, tmp_path / "out", "--shards", 3, "--seed", 4)
    assert result.exit_code == 0, result.output
    assert "20 training samples in 3 shards of 6 to 7, 4 test samples" in result.stdout
    assert (
        "reading" in result.stderr and "writing 3 shards" in result.stderr and "published file 10000" in result.stderr
    )
    found = check(tmp_path / "out", train, test, 3)
    assert found.facts.class_names[0] == "airplane" and found.facts.class_names[9] == "truck"
    assert found.facts.augment == "crop-flip" and found.manifest["seed"] == 4
    data = SimpleNamespace(dataset="", shards=str(tmp_path / "out"), partition="iid", normalize="published", augment="auto")
    one = open_source(data, 3, [], 1)
    assert np.array_equal(one.mean, np.float32([0.485, 0.456, 0.406])) and np.array_equal(
        one.std, np.float32([0.229, 0.224, 0.225])
    )


@pytest.mark.parametrize("names", [True, False])
def test_cifar100(tmp_path, names):
    train, test = cifar100_raw(tmp_path / "cifar-100-binary", names)
    result = run(cifar100, tmp_path, tmp_path / "out", "--shards", 2)
    assert result.exit_code == 0, result.output
    found = check(tmp_path / "out", train, test, 2)
    assert found.facts.classes == 100 and found.facts.class_names[99] == ("thing_99" if names else "99")
    assert found.facts.published_std == (0.229, 0.224, 0.225) and found.facts.augment == "crop-flip"


def test_fashion_mnist(tmp_path):
    train, test = fashion_raw(tmp_path / "fashion-mnist")
    result = run(fashion_mnist, tmp_path, tmp_path / "out", "--shards", 4, "--powers", "1,2,1,2")
    assert result.exit_code == 0, result.output
    found = check(tmp_path / "out", train, test, 4)
    assert found.sizes == [2, 5, 2, 4] and found.manifest["powers"] == [1, 2, 1, 2]
    assert (found.facts.published_mean, found.facts.published_std) == ((0.28604,), (0.35302,))
    assert found.facts.class_names[9] == "Ankle boot" and found.facts.augment == "none"


def test_libsvm_with_a_test_file(tmp_path):
    (tmp_path / "table").write_text(TEXT)
    (tmp_path / "table.t").write_text("2.5 4:9\n-1 1:1\n")
    result = run(libsvm, tmp_path / "table", tmp_path / "out", "--shards", 2, "--test", tmp_path / "table.t")
    assert result.exit_code == 0, result.output
    dense, classes = np.array(DENSE, np.float32), np.array(CLASSES)
    held = np.array([[0, 0, 0, 9, 0], [1, 0, 0, 0, 0]], np.float32)
    found = check(tmp_path / "out", (dense, classes), (held, np.array([2, 0])), 2)
    assert found.facts.class_names == ("-1", "1", "2.5") and found.facts.dataset == "table" and found.facts.scale == 1
    assert found.load(0).x.dtype == np.float32


def test_a_test_file_may_have_the_most_features(tmp_path):
    (tmp_path / "table").write_text("1 1:1\n2 1:1\n")
    (tmp_path / "table.t").write_text("1 3:1\n")
    assert (
        run(libsvm, tmp_path / "table", tmp_path / "out", "--shards", 1, "--test", tmp_path / "table.t").exit_code == 0
    )
    assert open_shards(tmp_path / "out").load(0).x.tolist() == [[1, 0, 0], [1, 0, 0]]


def test_libsvm_draws_a_fifth_as_test_samples(tmp_path):
    (tmp_path / "table").write_text("".join(f"{row % 2} 1:{row} 2:1\n" for row in range(50)))
    rows = {}
    for seed, more in ((1, []), (2, []), (1, ["--test-fraction", 0.5])):
        out = tmp_path / f"out{len(rows)}"
        assert run(libsvm, tmp_path / "table", out, "--shards", 3, "--seed", seed, *more).exit_code == 0
        found = open_shards(out)
        parts = [found.load(vertex) for vertex in range(3)] + [found.load_test()]
        ids = np.concatenate([part.id for part in parts])
        assert sorted(ids) == list(range(50))
        for part in parts:
            assert np.array_equal(part.x[:, 0], part.id) and np.array_equal(part.y, part.id % 2)
        rows[seed, *more] = parts[-1].id.tolist()
    held = list(rows.values())
    assert [len(ids) for ids in held] == [10, 10, 25] and held[0] != held[1] and held[0] != list(range(40, 50))


def no_change(folder):
    return None


def edit(name, function):
    def change(folder):
        (folder / name).write_bytes(function((folder / name).read_bytes()))

    return change


def labels_for_images(folder):
    (folder / TRAIN_FILE).write_bytes((folder / "train-labels-idx1-ubyte.gz").read_bytes())


def gz(function):
    return lambda content: gzip.compress(function(gzip.decompress(content)))


HTML = b"<!DOCTYPE html>\n<html><body>404</body></html>" * 100
BAD_FILES = {
    "cifar10 missing": (
        cifar10,
        cifar10_raw,
        lambda f: (f / "data_batch_3.bin").unlink(),
        ["data_batch_3.bin", "missing"],
    ),
    "cifar10 empty": (cifar10, cifar10_raw, edit("test_batch.bin", lambda c: b""), ["test_batch.bin", "empty"]),
    "cifar10 truncated": (
        cifar10,
        cifar10_raw,
        edit("data_batch_2.bin", lambda c: c[:-1]),
        ["data_batch_2.bin", "truncated"],
    ),
    "cifar10 test truncated": (
        cifar10,
        cifar10_raw,
        edit("test_batch.bin", lambda c: c[:-9]),
        ["test_batch.bin", "3073", "truncated"],
    ),
    "cifar10 a record short": (
        cifar10,
        cifar10_raw,
        edit("data_batch_5.bin", lambda c: c[:-3073]),
        ["data_batch_5.bin", "truncated"],
    ),
    "cifar10 label": (
        cifar10,
        cifar10_raw,
        edit("data_batch_4.bin", lambda c: c[:3073] + b"\x0a" + c[3074:]),
        ["data_batch_4.bin", "record 1", "label 10"],
    ),
    "cifar10 page": (cifar10, cifar10_raw, edit("data_batch_1.bin", lambda c: HTML), ["data_batch_1.bin", "web page"]),
    "cifar100 label": (
        cifar100,
        cifar100_raw,
        edit("test.bin", lambda c: c[:1] + b"\x64" + c[2:]),
        ["test.bin", "record 0", "label 100"],
    ),
    "cifar100 truncated": (cifar100, cifar100_raw, edit("train.bin", lambda c: c[:-1000]), ["train.bin", "3074"]),
    "cifar100 names": (
        cifar100,
        cifar100_raw,
        edit("fine_label_names.txt", lambda c: c[:50]),
        ["fine_label_names.txt", "100"],
    ),
    "fashion page": (fashion_mnist, fashion_raw, edit(TRAIN_FILE, lambda c: HTML), [TRAIN_FILE, "web page"]),
    "fashion not gz": (fashion_mnist, fashion_raw, edit(TRAIN_FILE, lambda c: b"x" * 99), [TRAIN_FILE, "gzip"]),
    "fashion gz truncated": (fashion_mnist, fashion_raw, edit(TRAIN_FILE, lambda c: c[:-300]), [TRAIN_FILE, "gzip"]),
    "fashion gz altered": (
        fashion_mnist,
        fashion_raw,
        edit(TRAIN_FILE, lambda c: c[:-8] + b"\0\0\0\0" + c[-4:]),
        [TRAIN_FILE, "gzip"],
    ),
    "fashion cut before packing": (
        fashion_mnist,
        fashion_raw,
        edit(TRAIN_FILE, gz(lambda c: c[:-1])),
        [TRAIN_FILE, "(13, 28, 28)"],
    ),
    "fashion header": (fashion_mnist, fashion_raw, edit(TRAIN_FILE, gz(lambda c: c[:6])), [TRAIN_FILE, "header"]),
    "fashion magic": (
        fashion_mnist,
        fashion_raw,
        edit(TRAIN_FILE, gz(lambda c: b"\0\0\x0d" + c[3:])),
        [TRAIN_FILE, "00000d03"],
    ),
    "fashion labels for images": (fashion_mnist, fashion_raw, labels_for_images, [TRAIN_FILE, "28 x 28"]),
    "fashion fewer labels": (
        fashion_mnist,
        fashion_raw,
        lambda f: fashion_labels(f, 12),
        ["train-labels", "12", "13 images"],
    ),
    "fashion label": (fashion_mnist, fashion_raw, lambda f: fashion_labels(f, 13, 10), ["train-labels", "label 10"]),
    "too many shards": (fashion_mnist, fashion_raw, no_change, ["fewer samples than vertices"], "--shards", 14),
    "too few powers": (fashion_mnist, fashion_raw, no_change, ["2 powers for 3 vertices"], "--powers", "1,2"),
    "no numbers": (fashion_mnist, fashion_raw, no_change, ["'1,x,2' is not a list of numbers"], "--powers", "1,x,2"),
    "no shards": (fashion_mnist, fashion_raw, no_change, ["--shards"], "--shards", 0),
}


def fashion_labels(folder, count=13, last=0):
    labels = np.zeros(count, np.uint8)
    labels[-1] = last
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(idx(labels))


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_raw_files_are_named(tmp_path, case):
    script, raw, change, words, *more = BAD_FILES[case]
    raw(tmp_path / "raw")
    change(tmp_path / "raw")
    result = run(script, tmp_path / "raw", tmp_path / "out", "--shards", 3, *more)
    assert result.exit_code == 2, result.output
    assert all(word in result.stderr.splitlines()[-1] for word in words), result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 1:1\n2 x:1\n", ["line 2"]),
        ("1 1:1\n2 1:1\n\n2 3:1 2:1\n", ["line 4", "index 2 after 3", "ascend"]),
        ("1 1:1\n2 2:1 2:1\n", ["line 2", "index 2 after 2"]),
        ("1 0:1\n", ["line 1", "index 0: indices begin at 1", "add 1"]),
        ("1 1:1\n2 2000000000:1\n" + "1 1:1\n" * 500, ["largest index is 2000000000", "4.02e+03 GB", "without gaps"]),
        ("1 -4:1\n", ["line 1", "index -4"]),
        ("1 99999999999999999999:1\n", ["line 1", "below 2^31"]),
        ("1 1:1\n2 1\n", ["line 2"]),
        ("1 1:1\n2 1:\n", ["line 2"]),
        ("1 1:1\n2 1:nan\n", ["line 2", "nan"]),
        ("1 1:1\n2 1:1e39\n", ["line 2", "1e+39"]),
        ("inf 1:1\n", ["line 1", "inf"]),
        ("1 1:1\n2 1:1_0\n", ["line 2", "_"]),
        ("1,2 1:1\n", ["line 1"]),
        ("1 qid:3 1:1\n", ["line 1"]),
        ("a b c\n", ["line 1"]),
        ("1 1:1\n1 2:1\n", ["one label 1", "two or more"]),
        ("\n\n", ["no line"]),
        ("<html>no</html>", ["web page"]),
        (b"\x1f\x8b\x08\0", ["compressed"]),
        (b"BZh91AY", ["compressed"]),
        (b"\xff\xfe\x00 1:1\n", ["line 1"]),
    ],
)
def test_malformed_libsvm_lines_are_named(tmp_path, text, words):
    (tmp_path / "table").write_bytes(text if isinstance(text, bytes) else text.encode())
    result = run(libsvm, tmp_path / "table", tmp_path / "out", "--shards", 1)
    assert result.exit_code == 2, result.output
    line = result.stderr.splitlines()[-1]
    assert all(word in line for word in ["table", *words]), line
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_comments_a_byte_order_mark_and_labels_that_differ_late(tmp_path):
    (tmp_path / "table").write_text("\ufeff# from 1:0\n1 1:1 # the first\n\n1.0000001 2:3#x\n", encoding="utf-8")
    (tmp_path / "test").write_text("1 1:7\n")
    assert run(libsvm, tmp_path / "table", tmp_path / "out", "--shards", 1, "--test", tmp_path / "test").exit_code == 0
    found = open_shards(tmp_path / "out")
    assert found.load(0).x.tolist() == [[1, 0], [0, 3]] and found.facts.class_names == ("1", "1.0000001")


def test_libsvm_test_files_that_do_not_fit_are_named(tmp_path):
    (tmp_path / "table").write_text(TEXT)
    (tmp_path / "other").write_text("7 1:1\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "table").write_text(TEXT)
    for more, words in [
        (["--test", tmp_path / "other"], "label 7, which"),
        (["--test", tmp_path / "none"], "none is missing"),
        (["--test", tmp_path / "folder"], "cannot be read"),
        (["--test", tmp_path / "folder" / "table"], "same name"),
        (["--test", tmp_path / "other", "--test-fraction", 0.5], "exclude one another"),
        (["--test-fraction", 0], "--test-fraction"),
    ]:
        result = run(libsvm, tmp_path / "table", tmp_path / "out", "--shards", 1, *more)
        assert result.exit_code == 2 and words in result.stderr, result.output
    assert not (tmp_path / "out").exists()


def test_a_finished_set_is_left_alone_and_another_is_refused(tmp_path):
    fashion_raw(tmp_path / "raw")
    args = [tmp_path / "raw", tmp_path / "out", "--shards", 2]
    assert run(fashion_mnist, *args).exit_code == 0
    before = {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "out").iterdir()}
    again = run(fashion_mnist, *args)
    assert again.exit_code == 0 and "already" in again.stdout
    other_seed = run(fashion_mnist, *args, "--seed", 2)
    assert other_seed.exit_code == 2 and "seed is 1, asked for is 2" in other_seed.stderr
    fashion_labels(tmp_path / "raw")
    other_files = run(fashion_mnist, *args)
    assert other_files.exit_code == 2 and "other files" in other_files.stderr
    assert {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (tmp_path / "out").iterdir()} == before


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    fashion_raw(tmp_path / "raw")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("dear")
    result = run(fashion_mnist, tmp_path / "raw", tmp_path / "out", "--shards", 2)
    assert result.exit_code == 2 and "not a set of shards" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    assert run(fashion_mnist, tmp_path / "nothing", tmp_path / "new", "--shards", 2).exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(tmp_path, monkeypatch, number):
    fashion_raw(tmp_path / "raw")
    real = ShardFile.append

    def append(file, x):
        if file.path.name == "shard-0001.h5":
            os.kill(os.getpid(), number)
        return real(file, x)

    monkeypatch.setattr(ShardFile, "append", append)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A test run in the background ignores SIGINT, and its children would with it.
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    result = run(fashion_mnist, tmp_path / "raw", tmp_path / "out", "--shards", 3)
    signal.signal(signal.SIGINT, interrupt)
    assert result.exit_code == 130 and "interrupted" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_DFL


@pytest.mark.parametrize("script", ["cifar10", "cifar100", "fashion_mnist", "mnist", "libsvm", "digits", "npz", "imagefolder", "embedded"])
def test_the_scripts_run_from_any_folder(tmp_path, script):
    env = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    result = subprocess.run(
        [sys.executable, SCRIPTS / f"{script}.py", "--help"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0 and "Usage" in result.stdout and "OUT" in result.stdout


def test_the_command_line_ends_with_exit_code_2_and_one_line(tmp_path):
    env = os.environ | {"PYTHONPATH": str(SCRIPTS.parent)}
    args = [sys.executable, SCRIPTS / "libsvm.py", "absent", "out", "--shards", "2"]
    result = subprocess.run(args, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: absent is missing") and result.stderr.count("\n") == 1


def test_manifests_name_the_sources(tmp_path):
    (tmp_path / "table").write_bytes(b"1 1:1\n2 1:2\n3 1:3\n")
    assert run(libsvm, tmp_path / "table", tmp_path / "out", "--shards", 2, "--test-fraction", 0.4).exit_code == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    # From `printf '1 1:1\n2 1:2\n3 1:3\n' | sha256sum`.
    assert manifest["sources"] == {"table": "f556788cfb90a01d3dcfaad2adeede21c4b15c8e3dbb49caeae9fa02bb4cd59b"}
    assert manifest["options"] == {"test_fraction": 0.4} and manifest["prepared_by"] == "data_prep/libsvm.py"


def test_pieces_that_follow_one_another_in_memory_are_joined_without_a_copy():
    whole = np.arange(60, dtype=np.uint8).reshape(20, 3)
    pieces = [whole[:7], whole[7:8], whole[8:]]
    for columns in (slice(0, 1), slice(1, 3)):
        views = [piece[:, columns] for piece in pieces]
        found = cifar.joined(views)
        assert np.array_equal(found, whole[:, columns]) and np.shares_memory(found, whole)
        for others in (views[::-1], [views[0], views[2]], [views[0], views[1].copy(), views[2]]):
            found = cifar.joined(others)
            assert np.array_equal(found, np.concatenate(others)) and not np.shares_memory(found, whole)
