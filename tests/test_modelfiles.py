"""Model files: tensors and facts come back as they went, nothing half-written is left, a wrong wish is named."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mpiconsensus import modelfiles
from mpiconsensus.errors import TrainingError, UserError

FACTS = {"model": "cnn", "shape": [1, 8, 8], "hidden": [64], "class_names": ["null", "eins"], "epoch": 7, "mean": [0.5]}
ACCURACY = {0: 0.5, 1: 0.75, 2: 0.75}


def state(vertex):
    """Rows of one block, as the trainer holds them: views of shared memory, one of them channels_last."""
    block = torch.arange(100.0).reshape(2, 50) + 1000 * vertex
    images = block[1, 0:24].view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    return {"conv": images, "bias": block[1, 24:30], "count": torch.tensor(vertex), "half": torch.ones(3).bfloat16()}


@pytest.fixture
def run_dir(tmp_path):
    for which in ("last", "best"):
        for vertex in ACCURACY:
            modelfiles.save_vertices(tmp_path, which, {vertex: state(vertex)}, FACTS, ACCURACY)
        modelfiles.save_mean(tmp_path, which, state(9), FACTS)
    modelfiles.save_index(tmp_path, "last", ACCURACY, 7, "test")
    modelfiles.save_index(tmp_path, "best", {0: float("nan"), 1: 0.1, 2: 0.9}, 3, "validation")
    return tmp_path


def numbers(found):
    return {name: tensor.flatten().tolist() for name, tensor in found.items()}


@pytest.mark.parametrize(
    ("vertex", "which", "source"),
    [(0, "last", 0), ("2", "best", 2), ("mean", "last", 9), ("best", "last", 1), ("best", "best", 2)],
)
def test_tensors_and_facts_come_back(run_dir, vertex, which, source):
    found, facts = modelfiles.load(run_dir, vertex, which)
    assert numbers(found) == numbers(state(source))
    assert {name: tensor.dtype for name, tensor in found.items()} == {k: t.dtype for k, t in state(source).items()}
    own = {"vertex": "mean"} if source == 9 else {"vertex": source, "accuracy": ACCURACY[source]}
    assert facts == FACTS | own


def test_the_file_is_laid_out_as_the_format_says(run_dir):
    path = run_dir / "model" / "last" / "vertex-0001.safetensors"
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + length])
    first, last = head["conv"]["data_offsets"]
    assert head["conv"]["shape"] == [2, 3, 2, 2]
    assert np.frombuffer(data[8 + length :][first:last], "<f4").tolist() == [1050.0 + i for i in range(24)]


def test_the_index_names_the_best_vertex_and_what_chose_it(run_dir):
    index = json.loads((run_dir / "model" / "index.json").read_text())
    assert index["last"] == {
        "best_vertex": 1, "accuracy": {"0": 0.5, "1": 0.75, "2": 0.75}, "selected_by": "test", "epoch": 7,
    }  # fmt: skip
    assert (index["best"]["best_vertex"], index["best"]["selected_by"], index["best"]["epoch"]) == (2, "validation", 3)


def test_tied_tensors_are_each_written(tmp_path):
    weight = torch.arange(6.0)
    modelfiles.save_mean(tmp_path, "last", {"in": weight, "out": weight.view(2, 3)}, {})
    found, _ = modelfiles.load(tmp_path)
    assert numbers(found) == {"in": [0, 1, 2, 3, 4, 5], "out": [0, 1, 2, 3, 4, 5]}


def test_export_copies_one_file_and_never_overwrites(run_dir, tmp_path):
    out = modelfiles.export(run_dir, "best", tmp_path / "net.safetensors")
    assert load_file(modelfiles.export(run_dir, 2, tmp_path / "two.st", "best"))["count"] == 2
    assert out.read_bytes() == (run_dir / "model" / "last" / "vertex-0001.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"net.safetensors' is there already; give another name"):
        modelfiles.export(run_dir, 0, out)
    assert out.read_bytes() == (run_dir / "model" / "last" / "vertex-0001.safetensors").read_bytes()
    with pytest.raises(UserError, match="no/where' does not exist; create it"):
        modelfiles.export(run_dir, 0, tmp_path / "no" / "where" / "net.safetensors")
    assert not list(tmp_path.rglob("*.new"))


def test_export_does_without_hard_links(run_dir, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    out = modelfiles.export(run_dir, 0, tmp_path / "net.safetensors")
    assert load_file(out)["count"] == 0
    with pytest.raises(UserError, match="is there already"):
        modelfiles.export(run_dir, 1, out)
    assert load_file(out)["count"] == 0


def test_a_file_that_appears_meanwhile_is_not_overwritten(run_dir, tmp_path, monkeypatch):
    out = tmp_path / "net.safetensors"
    copies = lambda source, aside: [open(path, "w").close() for path in (aside, out)]
    monkeypatch.setattr(modelfiles.shutil, "copyfile", copies)
    with pytest.raises(UserError, match="there already"):
        modelfiles.export(run_dir, "mean", out)
    assert out.read_bytes() == b""
    assert not list(tmp_path.rglob("*.new"))


@pytest.mark.parametrize("vertex", [3, "7", "worst", "-1", "../last/mean", ""])
def test_a_vertex_that_is_not_there_is_named_with_those_that_are(run_dir, vertex):
    with pytest.raises(UserError, match="holds vertices 0 to 2, and mean; give a number, mean or best") as error:
        modelfiles.load(run_dir, vertex)
    assert repr(str(vertex)) in str(error.value)


def test_what_is_missing_or_damaged_is_named(run_dir, tmp_path):
    with pytest.raises(UserError, match="does not exist; give a run directory"):
        modelfiles.load(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no model/"):
        modelfiles.load(tmp_path / "empty")
    with pytest.raises(UserError, match="'lats' is not known; choose one of last, best"):
        modelfiles.load(run_dir, 0, "lats")
    os.truncate(modelfiles.find(run_dir, 0), 200)
    for use in (modelfiles.load, lambda *where: modelfiles.export(*where, tmp_path / "out.safetensors")):
        with pytest.raises(UserError, match="vertex-0000.safetensors' is damaged"):
            use(run_dir, 0)
    assert not (tmp_path / "out.safetensors").exists()
    index = run_dir / "model" / "index.json"
    index.write_text("{")
    with pytest.raises(UserError, match="index.json' cannot be read"):
        modelfiles.load(run_dir, "best")
    index.write_text("{}")
    with pytest.raises(UserError, match="names no best vertex of 'last'"):
        modelfiles.load(run_dir, "best")
    index.unlink()
    with pytest.raises(UserError, match="index.json' is missing"):
        modelfiles.load(run_dir, "best")


def test_a_refusing_disk_is_named_and_the_file_before_stays(run_dir, monkeypatch):
    def refuse(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(TrainingError, match="vertex-0001.safetensors' cannot be written.*No space left"):
        modelfiles.save_vertices(run_dir, "last", {1: state(5)}, FACTS, {1: 0.0})
    assert numbers(modelfiles.load(run_dir, 1)[0]) == numbers(state(1))
    assert not list(run_dir.rglob("*.new"))
