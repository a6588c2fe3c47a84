"""Rounds over every transport under a real mpirun; what a rank receives; the choice of a transport."""

import json
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, mpirun

from mpiconsensus import transport
from mpiconsensus.errors import UserError
from mpiconsensus.placement import Placement

SCRIPT = ROOT / "tests" / "mpi" / "rows.py"


@pytest.mark.parametrize("name", ["shared", "neighbor"])
@pytest.mark.parametrize("ranks", [4, 5])
def test_rounds_are_their_matrices_and_move_no_row_too_many(name, ranks):
    done = mpirun(ranks, SCRIPT, name)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["name"] == name and len(told["found"]) == ranks
    for rank in told["found"]:
        for received, needed, sent, readers in rank:
            assert received == needed and sent == readers
    # On a torus of 3 x 4 in blocks of 3 each rank needs some rows of others, but never all nine of them.
    if ranks == 4:
        assert all(0 < rank[0][0] < 9 for rank in told["found"])


def choose(name="auto", size=4, nodes=1, device="cpu", d=1000, **more):
    world = SimpleNamespace(size=size, nodes=nodes, comm=object() if size > 1 else None)
    return transport.choose(name, world, Placement(8, size, 0), d, torch.float32, device, **more)


def test_auto_takes_the_fastest_that_fits():
    assert choose(size=1) == "inprocess"
    assert choose() == "shared"
    assert choose(nodes=2) == "neighbor"
    assert choose(device="cuda:0") == "neighbor"
    assert choose(free=2 * 8 * 1000 * 4) == "neighbor"


@pytest.mark.parametrize(
    "case, words",
    [
        (dict(name="inprocess"), "one process"),
        (dict(name="shared", size=1), "mpirun"),
        (dict(name="neighbor", size=1), "mpirun"),
        (dict(name="shared", nodes=2), "on 2"),
        (dict(name="shared", free=50_000), "/dev/shm"),
        (dict(name="shared", device="cuda:0"), "GPU"),
    ],
)
def test_a_transport_that_cannot_work_is_refused(case, words):
    with pytest.raises(UserError, match=words):
        choose(**case)


def test_more_ranks_than_vertices_are_refused_with_the_fix():
    with pytest.raises(UserError, match="mpirun -n 4"):
        Placement(4, 6, 0)


@pytest.mark.parametrize("n, ranks", [(36, 7), (8, 3), (5, 5), (1, 1)])
def test_every_vertex_has_one_rank(n, ranks):
    places = [Placement(n, ranks, r) for r in range(ranks)]
    assert [v for p in places for v in p.hosted] == list(range(n))
    assert max(places[0].counts) - min(places[0].counts) <= 1
    assert all(places[0].owner[v] == r for r, p in enumerate(places) for v in p.hosted)
