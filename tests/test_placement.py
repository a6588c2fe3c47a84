"""Promise 1: the placement and the transport never change the numbers. Run under a real mpirun."""


import sys

import numpy as np
import pytest
from conftest import ROOT, mpirun, run

SCRIPT = ROOT / "tests" / "mpi" / "equality.py"
PATH = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")


    done = run(sys.executable, SCRIPT, out, "auto", timeout=300, **PATH)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("ranks, how", [(2, "auto"), (3, "auto"), (8, "auto"), (3, "network"), (8, "staged"), (5, "nodes")])
def test_parameters_are_equal_bit_for_bit(one_process, tmp_path, ranks, how):
    done = mpirun(ranks, SCRIPT, tmp_path, how, timeout=500, **PATH)
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in tmp_path.glob("*.npy"))
    expected = sorted(p.name for p in one_process.glob("*.npy") if how == "auto" or not p.name.startswith("resnet"))
    assert names == expected and len(names) >= 8 * 15
    for name in names:
        assert np.array_equal(np.load(tmp_path / name), np.load(one_process / name)), name


def test_the_cases_differ_and_learn(one_process):
    """Equal numbers prove little where nothing moves: every case ends at another point, away from its start."""
    ends = {p.name: np.load(p) for p in one_process.glob("digits *-0.npy")}
    rows = list(ends.values())
    for i, row in enumerate(rows):
        assert np.isfinite(row).all()
        for other in rows[:i]:
            assert len(row) != len(other) or np.abs(row - other).max() > 1e-4
