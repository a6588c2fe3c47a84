"""verify.py, info.py and stripe.sh."""

import hashlib
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT
from conftest import run as start
from test_data import DAMAGES, FEATURES, IMAGES, write
from test_data_prep import fashion_raw, run

sys.path.insert(0, str(ROOT / "data_prep"))

import fashion_mnist
import info
import verify


@pytest.fixture
def made(tmp_path):
    fashion_raw(tmp_path / "raw")
    assert run(fashion_mnist, tmp_path / "raw", tmp_path / "set", "--shards", 3, "--partition", "dirichlet:1", "--powers", "1,1,2").exit_code == 0
    return tmp_path / "set"


def test_a_sound_set_is_verified(made):
    result = run(verify, made)
    assert result.exit_code == 0 and "13 training samples, each in one shard, and 5 test samples" in result.stdout


@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_names_every_damage(tmp_path, damage):
    change, words = DAMAGES[damage]
    write(tmp_path / "set", FEATURES)
    change(tmp_path / "set" / "shard-0001.h5")
    result = run(verify, tmp_path / "set")
    assert result.exit_code == 2 and "shard-0001.h5" in result.stderr and words in result.stderr and result.stdout == ""


def resealed(folder, name, change):
    """Change a file and let the manifest's checksums fit it."""
    with h5py.File(folder / name, "r+") as file:
        change(file)
        samples = hashlib.sha256(b"".join(file[key][()].tobytes() for key in ("x", "y", "id"))).hexdigest()
        file.attrs["sha256"] = samples
        start, size = file["x"].id.get_offset(), file["x"].nbytes
    manifest, content = json.loads((folder / "manifest.json").read_text()), (folder / name).read_bytes()
    frame = hashlib.sha256(content[:start] + content[start + size :]).hexdigest()
    manifest["files"][name] = {"frame_sha256": frame, "samples_sha256": samples}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_verify_names_a_sample_that_is_in_two_shards(tmp_path):
    write(tmp_path / "set", IMAGES)
    with h5py.File(tmp_path / "set" / "shard-0000.h5") as file:
        ids = file["id"][()]

    def change(file):
        file["id"][:] = ids

    resealed(tmp_path / "set", "shard-0001.h5", change)
    result = run(verify, tmp_path / "set")
    assert result.exit_code == 2 and "shard-0000.h5 and shard-0001.h5 both hold sample" in result.stderr and "7 more" in result.stderr


def test_verify_compares_the_manifest(made):
    path = made / "manifest.json"
    manifest = json.loads(path.read_text())
    labels = np.array(manifest["labels"])
    labels[0, labels[0].argmax()] -= 1
    labels[0, labels[0].argmin()] += 1
    for changed, words in [
        ({"labels": labels.tolist()}, "labels of shard 0"),
        ({"skew": [0.1, 0.2, 0.3]}, "skew is not"),
        ({"mean": [0.25]}, "mean is not what"),
        ({"scale": 1.0}, "scale is not what"),
        ({"class_names": manifest["class_names"][::-1]}, "class_names is not what"),
        ({"published_mean": None, "published_std": None}, "published_mean is not what"),
        ({"files": manifest["files"] | {"test.h5": {"frame_sha256": "0", "samples_sha256": manifest["files"]["test.h5"]["samples_sha256"]}}}, "test.h5"),
        ({"sizes": [1, 2]}, "sizes"),
    ]:
        path.write_text(json.dumps(manifest | changed))
        result = run(verify, made)
        assert result.exit_code == 2 and words in result.stderr, result.output
    path.write_text(json.dumps(manifest))
    (made / "notes.txt").write_text("")
    assert "notes.txt is not in the manifest" in run(verify, made).stderr
    (made / "notes.txt").unlink()
    (made / "shard-0002.h5").unlink()
    (made / "test.h5").write_bytes(b"<html>")
    assert "shard-0002.h5 is missing or empty" in run(info, made).stderr
    result = run(verify, made)
    assert "shard-0002.h5: the file is missing" in result.stderr and "test.h5: not a readable" in result.stderr
    assert run(verify, made.parent / "nowhere").exit_code == 2


def test_info_says_what_is_there(made):
    facts = json.loads(run(info, made, "--json").stdout)
    with h5py.File(made / "shard-0001.h5") as file:
        labels = np.bincount(file["y"][()], minlength=10).tolist()
    shard = facts["shards"][1]
    assert shard["labels"] == labels and shard["samples"] == sum(labels) and shard["bytes"] == (made / "shard-0001.h5").stat().st_size
    assert facts["powers"] == [1, 1, 2] and facts["partition"] == "dirichlet:1" and facts["test_samples"] == 5
    skews = [one["skew"] for one in facts["shards"]]
    assert facts["skew"]["mean"] == pytest.approx(np.mean(skews)) and facts["skew"]["largest"] == max(skews)
    assert "total variation" in facts["skew"]["measure"]
    lines = run(info, made).stdout.splitlines()
    assert lines[0].startswith("fashion-mnist: 13 training samples in 3 shards, 5 test samples, 10 classes, shape 1x28x28")
    assert lines[1] == "partition dirichlet:1, seed 1, powers 1, 1, 2" and lines[-2].split()[3:] == list(map(str, labels))
    # A set of an earlier version: its manifest does not count labels.
    manifest = json.loads((made / "manifest.json").read_text())
    del manifest["labels"], manifest["skew"]
    (made / "manifest.json").write_text(json.dumps(manifest))
    assert json.loads(run(info, made, "--json").stdout) == facts
    assert run(info, made.parent).exit_code == 2


def test_info_of_many_classes_is_one_line_a_shard(tmp_path):
    write(tmp_path / "set", IMAGES._replace(class_names=tuple(f"c{k}" for k in range(40))))
    lines = run(info, tmp_path / "set").stdout.splitlines()
    assert len(lines) == 8 and " of 40, c" in lines[-1]


FAKE = """#!/bin/sh
echo "$@" >> "$LFS_LOG"
case "$1 $LFS_MODE" in "getstripe elsewhere") exit 1;; "setstripe full") echo no >&2; exit 1;; esac
"""


def stripe(folder, *words, mode="", lfs=True):
    """Run stripe.sh with a stand-in for lfs; return the CompletedProcess and what lfs was asked."""
    log, programs = folder / "asked", folder / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("bash", "find", "mkdir", "cat"):
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(next(Path(p, name) for p in os.get_exec_path() if Path(p, name).exists()))
    (programs / "lfs").unlink(missing_ok=True)
    if lfs:
        (programs / "lfs").write_text(FAKE.replace("/bin/sh", str(Path("/bin/sh").resolve())))
        (programs / "lfs").chmod(0o755)
    log.write_text("")
    done = start("bash", ROOT / "data_prep" / "stripe.sh", *words, cwd=folder, PATH=str(programs), LFS_LOG=str(log), LFS_MODE=mode)
    return done, log.read_text().splitlines()


def test_striping_is_set_before_writing(tmp_path):
    done, asked = stripe(tmp_path, "my shards", "4")
    assert done.returncode == 0, done.stderr
    assert asked == ["getstripe -d -- my shards", "setstripe -c 4 -- my shards"] and (tmp_path / "my shards").is_dir()
    assert done.stderr == "" and "4 storage targets" in done.stdout
    (tmp_path / "my shards" / "old.h5").write_text("")
    done, asked = stripe(tmp_path, "my shards")
    assert done.returncode == 0 and asked[1] == "setstripe -c 1 -- my shards" and "keep their striping" in done.stderr


def test_striping_explains_itself(tmp_path):
    done, asked = stripe(tmp_path, "shards", lfs=False)
    assert done.returncode == 0 and "no lfs" in done.stderr and "Lustre" in done.stderr and not asked and not (tmp_path / "shards").exists()
    (tmp_path / "file").write_text("")
    for words, mode, said in [
        ((), "", "give DIR"), (("a", "b", "c"), "", "give DIR"), (("shards", "many"), "", "'many'"), (("shards", "0"), "", "'0'"),
        (("file",), "", "file is not a directory"), (("shards",), "elsewhere", "not on Lustre"), (("shards",), "full", "was refused"),
    ]:  # fmt: skip
        done, _ = stripe(tmp_path, *words, mode=mode)
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr
    assert stripe(tmp_path, "shards", "-1")[0].returncode == 0
