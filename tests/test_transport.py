"""Rounds over every transport under a real mpirun; what a rank receives; the choice of a transport."""

import json
import os
import subprocess
import sys
import threading
import time
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, mpirun

from mpiconsensus import transport
from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.placement import Placement
from mpiconsensus.transport import messages, peers, waiting
from mpiconsensus.transport.neighbor import Neighbor

SCRIPT = ROOT / "tests" / "mpi" / "rows.py"


# Each rank of a launch loads torch once. The words of a case stand in tests/mpi/rows.py.
LAUNCHES = {
    4: ["shared", "neighbor", "neighbor persistent-collective few", "neighbor point-to-point staged", "shared two-nodes", "onegpu two-nodes"],
    5: ["shared", "neighbor", "neighbor point-to-point", "neighbor collective staged"],
}


@pytest.fixture(scope="module")
def rounds():
    """Return the function that gives what so many ranks told of each case, {words: dict}; it fails where a rank did."""

    @cache
    def launch(ranks):
        done = mpirun(ranks, SCRIPT, *LAUNCHES[ranks])
        assert done.returncode == 0, done.stderr
        return dict(zip(LAUNCHES[ranks], map(json.loads, done.stdout.splitlines()), strict=True))

    return launch


@pytest.mark.parametrize("ranks, words", [(ranks, words) for ranks, cases in LAUNCHES.items() for words in cases])
def test_rounds_are_their_matrices_and_move_no_row_too_many(rounds, ranks, words):
    told = rounds(ranks)[words]
    assert told["name"] == words.split()[0].replace("onegpu", "shared") and len(told["found"]) == ranks
    for rank in told["found"]:
        for received, needed, sent, readers in rank:
            assert received == needed and sent == readers
    # On a torus of 3 x 4 in blocks of 3 each rank needs some rows of others, but never all nine of them.
    if ranks == 4:
        assert all(0 < rank[0][0] < 9 for rank in told["found"])


@pytest.mark.parametrize("name, ranks, nodes", [("shared", 4, 1), ("neighbor", 3, 1), ("shared", 5, 2)])
def test_ten_thousand_rounds_with_delays_at_every_point(name, ranks, nodes):
    done = mpirun(ranks, ROOT / "tests" / "mpi" / "stress.py", name, 5000, nodes)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rounds"] == 10_000 and told["title"].count("between nodes") == nodes - 1
    assert all(waits > 100 for waits in told["waits"])  # or nobody was late, and nothing was tried


@pytest.mark.parametrize("name", ["shared", "neighbor"])
@pytest.mark.parametrize("how", ["dpsgd", "delay"])
def test_who_is_late_by_less_than_a_gradient_keeps_nobody_waiting(name, how):
    done = mpirun(2, ROOT / "tests" / "mpi" / "overlap.py", name, how, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["waits"] == 0 and told["hidden_s"] > 0
    # The trace: a round begins, a gradient is taken, and only then is the round finished.
    events = told["events"][told["events"].index("start") :]
    assert events[:3] == ["start", "gradient", "finish"]


@pytest.mark.parametrize("name", ["shared", "neighbor"])
def test_a_rank_that_dies_in_a_round_is_named(name):
    done = mpirun(4, ROOT / "tests" / "mpi" / "death.py", name, "killed", timeout=60)
    assert done.returncode != 0 and "rank 2" in done.stderr and "3 rounds later" not in done.stdout


@pytest.mark.parametrize("name", ["shared", "neighbor"])
def test_a_death_that_the_launcher_does_not_see_is_named(name):
    done = mpirun(4, ROOT / "tests" / "mpi" / "death.py", name, "unseen", timeout=60)
    assert done.returncode == 3 and "rank 2" in done.stderr and "died in the middle of a round" in done.stderr
    assert "Traceback" not in done.stderr and "3 rounds later" not in done.stdout


def test_peers_tell_who_died():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        born = peers._started(child.pid)
        told = [(0, os.getpid(), peers._started(os.getpid())), (3, child.pid, born), (4, child.pid, born + 1)]
        world = SimpleNamespace(rank=0, hosts=list("abcde"), node_comm=SimpleNamespace(allgather=lambda mine: told))
        watch = peers.Peers(world)
        watch.check([0, 3, 4, 7])  # alive, or not ours to see
    finally:
        child.kill()
        child.wait()
    watch.check([0, 4, 7])
    with pytest.raises(TrainingError, match=f"rank 3 .process {child.pid} on d. died"):
        watch.check([0, 3])


def test_a_counter_wakes_who_sleeps_and_looks_up_in_vain():
    cell = memoryview(bytearray(64)).cast("q")[0:1]
    counter, looks, turns = waiting.Counter(cell), [], threading.Event()

    def look_up():
        looks.append(counter.value)
        if len(looks) == 2:
            turns.set()

    def late():
        turns.wait()
        counter.raise_to(4)
        counter.raise_to(5)

    thread = threading.Thread(target=late)
    thread.start()
    counter.wait(5, True, look_up)
    thread.join()
    assert counter.value == 5 and len(looks) >= 2 and set(looks[:2]) == {0}
    counter.wait(3, True, look_up)  # past already: returns at once


def test_without_persistent_collectives_a_round_goes_by_non_blocking_ones():
    class Comm:
        def Create_dist_graph_adjacent(self, sources, targets):
            return self

        def Neighbor_alltoallw_init(self, sent, received):
            raise NotImplementedError

        def Ineighbor_alltoallw(self, sent, received):
            return "non-blocking"

    rows = {v: torch.zeros(4) for v in (0, 1)}
    single = SimpleNamespace(comm=Comm(), d=4, type=None, incoming=rows.get, outgoing=lambda v, side: rows[v])
    graph = messages.Graph(single, messages.Plan([(1, 1)], [(0, 1)], (0, 1)), persistent=True)
    assert [graph.start([0, 0]), graph.start([0, 0])] == ["non-blocking"] * 2


def test_a_round_of_one_request_is_asked_by_itself():
    class Collective:
        Test = staticmethod(lambda: True)

    def confused(requests):
        assert Collective not in requests, "Testall of some libraries takes a finished persistent collective for an error"
        return all(request == "done" for request in requests)

    exchange = object.__new__(Neighbor)
    exchange._testall = confused
    for requests, arrived in (([Collective], True), (["done", "done"], True), (["done", "late"], False), ([], True)):
        exchange._requests = requests
        assert exchange._arrived() == arrived


@pytest.mark.skipif(waiting.futex is None, reason="the kernel wakes nobody here: ranks nap")
def test_who_sleeps_on_a_counter_is_woken_when_it_is_raised(monkeypatch):
    monkeypatch.setattr(waiting, "_PATIENCE", None)  # no limit: a wake that is lost is a sleep without end
    counter = waiting.Counter(memoryview(bytearray(64)).cast("q")[0:1])
    waiter = threading.Thread(target=counter.wait, args=(1, True, None), daemon=True)
    waiter.start()
    time.sleep(0.3)  # asleep by now; were it not, the test would hold as well
    counter.raise_to(1)
    waiter.join(20)
    assert not waiter.is_alive()


def choose(name="auto", size=4, nodes=1, device="cpu", d=1000, **more):
    world = SimpleNamespace(size=size, nodes=nodes, fullest_node=-(-size // nodes), comm=object() if size > 1 else None)
    return transport.choose(name, world, Placement(8, size, 0), d, torch.float32, device, **more)


def test_auto_takes_the_fastest_that_fits():
    assert choose(size=1) == "inprocess"
    assert choose() == "shared"
    assert choose(nodes=2) == "shared"
    assert choose(nodes=4) == "neighbor"
    assert choose(device="cuda:0") == "neighbor"
    assert choose(device="cuda:0", one_gpu=True, d=10**9) == "shared"
    assert choose(free=2 * 8 * 1000 * 4) == "neighbor"
    assert choose(free=2 * 8 * 1000 * 4, nodes=2) == "shared"


@pytest.mark.parametrize(
    "case, words",
    [
        (dict(name="inprocess"), "one process"),
        (dict(name="shared", size=1), "mpirun"),
        (dict(name="neighbor", size=1), "mpirun"),
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
