"""Promise 1: the placement and the transport never change the numbers. Run under a real mpirun."""

import json
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, mpirun, run

from mpiconsensus import inference, modelfiles, transport
from mpiconsensus.placement import Placement
from mpiconsensus.runread import Run

SCRIPT = ROOT / "tests" / "mpi" / "equality.py"
PATH = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}


# What a launch tries; each rank of one loads torch once.
LAUNCHES = {3: ["auto", "network"], 4: ["staged", "scrambled", "scrambled network"], 5: ["nodes"], 8: ["auto"]}
CASES = [(ranks, how) for ranks, hows in LAUNCHES.items() for how in hows]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    out = tmp_path_factory.mktemp("one")
    done = run(sys.executable, SCRIPT, out, "auto", timeout=300, **PATH)
    assert done.returncode == 0, done.stderr
    return out / "auto"


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Return the function that gives the folder of what so many ranks wrote."""

    @cache
    def launch(ranks):
        out = tmp_path_factory.mktemp(f"ranks-{ranks}")
        done = mpirun(ranks, SCRIPT, out, *LAUNCHES[ranks], timeout=500, **PATH)
        return done, out

    return launch


@pytest.mark.parametrize("ranks, how", CASES)
def test_parameters_are_equal_bit_for_bit(one_process, launched, ranks, how):
    done, out = launched(ranks)
    assert done.returncode == 0, done.stderr
    names = sorted(p.name for p in (out / how).glob("*.npy"))
    if how.startswith("scrambled"):
        assert len(names) == 8 * 6
    else:
        assert names == sorted(p.name for p in one_process.glob("*.npy") if how == "auto" or not p.name.startswith("resnet"))
        assert len(names) == 8 * (22 + 4 * (how == "auto"))
    for name in names:
        assert np.array_equal(np.load(out / how / name), np.load(one_process / name)), name


def test_the_cases_differ_and_learn(one_process):
    """Equal numbers prove little where nothing moves: every case ends at another point, away from its start."""
    ends = {p.name: np.load(p) for p in one_process.glob("digits *-0.npy")}
    rows = list(ends.values())
    for i, row in enumerate(rows):
        assert np.isfinite(row).all()
        for other in rows[:i]:
            assert len(row) != len(other) or np.abs(row - other).max() > 1e-4


OWNERS = [0, 1, 0, 1, 0, 1, 3, 2, 1]  # rank 1 hosts four vertices, ranks 2 and 3 one; nobody two in a row


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same job in one process and on four ranks with scrambled vertices; the latter on two nodes."""
    folder = tmp_path_factory.mktemp("runs")
    # Batches of 20: vertices 6 to 8 have 159 samples and a batch less than the others.
    words = ["train", "--set", "topology.graph=torus:3x3", "--set", "training.batch_size=20", "--set", "training.epochs=2", "--set", "evaluation.every=1", "--out"]
    alone = run(sys.executable, "-m", "mpiconsensus", *words, folder / "alone", cwd=folder)
    spread = mpirun(4, ROOT / "tests" / "mpi" / "scrambled.py", json.dumps(OWNERS), *words, folder / "spread", cwd=folder)
    assert (alone.returncode, spread.returncode) == (0, 0), alone.stderr + spread.stderr
    return folder, spread.stdout


def test_the_log_is_in_the_order_of_the_vertices(runs):
    folder, said = runs
    with Run(folder / "alone") as alone, Run(folder / "spread") as spread:
        assert spread.complete and spread.vertices.tolist() == list(range(9)) and spread.rank_of_vertex.tolist() == OWNERS
        for name in ("loss", "lr", "bytes_sent"):
            assert np.array_equal(alone.steps(name), spread.steps(name)), name
        for name in ("accuracy", "train_loss", "test_loss", "consensus_distance_vertex", "bytes_sent", "samples"):
            ours = spread.epochs(name)
            assert np.array_equal(alone.epochs(name), ours), name
            assert name in ("bytes_sent", "samples") or (np.ptp(ours, axis=1) > 0).all()  # or the order would not show
        for name in ("consensus_distance", "deviation_l1", "deviation_l2", "deviation_linf", "mean_drift", "mean_accuracy", "mean_loss"):
            assert np.array_equal(alone.network(name), spread.network(name)), name
        assert np.array_equal(alone.closing["accuracy"], spread.closing["accuracy"])
    # The edges of a torus of 3 x 3, counted by hand: each vertex and its neighbours to the right and below.
    edges = [(3 * i + j, other) for i in range(3) for j in range(3) for other in (3 * i + (j + 1) % 3, 3 * ((i + 1) % 3) + j)]
    across = [sum(f(OWNERS[i]) != f(OWNERS[j]) for i, j in edges) for f in (int, lambda rank: rank % 2)]
    assert "placement  scrambled" in said and f"of 18 edges {across[0]} cross ranks, {across[1]} cross nodes" in said


def test_the_models_are_those_of_their_vertices(runs, tmp_path):
    folder, _ = runs
    index = [json.loads((folder / name / "model" / "index.json").read_text()) for name in ("alone", "spread")]
    assert index[0] == index[1]
    for which in ("last", "best"):
        for vertex in (*range(9), "mean"):
            (ours, facts), (other, others) = (modelfiles.load(folder / name, vertex, which) for name in ("spread", "alone"))
            assert facts == others and ours.keys() == other.keys()
            for name, tensor in ours.items():
                assert torch.equal(tensor, other[name]), (which, vertex, name)
    assert inference.evaluate(folder / "spread", vertex=6) == inference.evaluate(folder / "alone", vertex=6)
    assert modelfiles.export(folder / "spread", "best", tmp_path / "best").stat().st_size > 0


def test_a_network_follows_the_map():
    done = mpirun(4, ROOT / "tests" / "mpi" / "scrambled_network.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done"] * 4


def test_shared_memory_is_counted_for_the_fullest_rank():
    world = SimpleNamespace(size=4, nodes=2, fullest_node=2, comm=object())
    few, many = (Placement(9, 4, 0, owner) for owner in ([0, 0, 1, 1, 2, 2, 3, 3, 0], [0, 1, 1, 1, 1, 2, 3, 3, 3]))
    free = 2 * 3 * 2 * 4 * 100_000 + 100_000  # two ranks of three vertices, two buffers of float32
    assert [transport.choose("auto", world, p, 100_000, torch.float32, free=free) for p in (few, many)] == ["shared", "neighbor"]
