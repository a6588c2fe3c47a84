"""Models of a user's own: a builder in a file or a package, and what can be wrong with it."""

import sys

import numpy as np
import pytest
import torch
from test_models import batch_norms, one_thread, step

from mpiconsensus import models
from mpiconsensus.errors import UserError

__all__ = ["one_thread"]  # a fixture, for every test

OWN = """
import torch
from torch import nn

SIZE = 3

class Net(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(shape[0], classes), nn.BatchNorm1d(classes))

def flat(shape, classes):
    return nn.Linear(shape[0], 1)

def wide(shape, classes):
    return nn.Linear(shape[0] + 1, classes)

def text(shape, classes):
    return "net"

def narrow(shape):
    return nn.Linear(shape[0], 2)

def broken(shape, classes):
    raise ValueError("no such\\nlayer")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Make own_models.py and others in the current directory, importable by nothing else."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_models.py").write_text(OWN)
    (tmp_path / "own_syntax.py").write_text("def net(:\n")
    (tmp_path / "own_import.py").write_text("import absent_package\n")
    (tmp_path / "own_exit.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "net.py").write_text(OWN)
    yield
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize("package", ["own_models", "own_package.net"])
def test_a_builder_in_the_current_directory(own, package):
    module = models.build(f"{package}:Net", (9,), 4)
    assert type(module).__module__ == package
    assert module.training
    assert module[2].num_batches_tracked == 0
    assert models.is_stochastic(module) is False
    loss, before, after = step(module, (9,), 4)
    assert np.isfinite(loss) and not torch.equal(before[0], after[0])
    assert not batch_norms(models.build(f"{package}:Net", (9,), 4, norm="group"))


@pytest.mark.parametrize(
    "name, words",
    [
        ("own_models:", ["package:builder"]),
        (":Net", ["package:builder"]),
        ("own models:Net", ["package:builder"]),
        ("own_absent:Net", ["no module 'own_absent'", "directory"]),
        ("own_package.absent:Net", ["no module 'own_package.absent'"]),
        ("own_import:Net", ["importing own_import raised ModuleNotFoundError", "absent_package", "own_import.py"]),
        ("own_syntax:Net", ["importing own_syntax raised SyntaxError", "own_syntax.py, line 1"]),
        ("own_exit:Net", ["importing own_exit raised SystemExit"]),
        ("own_models:Nett", ["no 'Nett'", "Did you mean 'Net'?"]),
        ("own_models:SIZE", ["not callable", "name a function"]),
        ("own_models:text", ["gave a str", "torch.nn.Module"]),
        ("own_models:narrow", ["TypeError", "classes"]),
        ("own_models:broken", ["ValueError: no such layer", "own_models.py, line 24"]),
        ("own_models:flat", ["(2, 1)", "(2, 4)"]),
        ("own_models:wide", ["forward", "shape (9,)", "RuntimeError"]),
    ],
)
def test_each_failure_of_a_builder_is_one_line(own, name, words):
    with pytest.raises(UserError) as caught:
        models.build(name, (9,), 4)
    text = str(caught.value)
    assert "\n" not in text
    assert repr(name) in text
    assert "importlib" not in text
    assert all(word in text for word in words), text
