"""doctor --mpi: what follows from each finding, the probe between real ranks, and what it does with an MPI that hangs."""

import re
import time

import pytest
from conftest import cli, mpirun

from mpiconsensus.transport.mailbox import probe, stress

FAST, SLOW = dict.fromkeys(probe.OPERATIONS, 3.0), dict.fromkeys(probe.OPERATIONS, 900.0)
PULL = {**FAST, "swap": 900.0, "write 1 MB": 900.0}
NODE = {("in a node", "allocated"): FAST}
RIGHT = {"ranks": 4, "counts": (2400, 2400), "locks": (200, 200)}


def between(allocated, own):
    return {**NODE, ("between nodes", "allocated"): allocated, ("between nodes", "of own memory"): own}


@pytest.mark.parametrize(
    "busy, taken, waits",
    [
        (NODE, "transport.name = auto: on one node", None),
        ({("in a node", "allocated"): SLOW}, "transport.name = auto: on one node", "rma would wait"),
        (between(FAST, FAST), "transport.name = auto: rows of a node", None),
        (between(PULL, PULL), "transport.name = auto: rows of a node", "adpsgd will wait"),
        (between(FAST, SLOW), "transport.name=rma", None),
        (between(SLOW, SLOW), "transport.name=p2p", "adpsgd will wait"),
        (between({**FAST, "fetch": 900.0}, FAST), "transport.name=p2p", None),
    ],
)
def test_the_advice_follows_from_what_goes_through(busy, taken, waits):
    said = list(probe.advice({**RIGHT, "busy": busy}))
    assert taken in said[0] and len(said) == 1 + (waits is not None)
    assert waits is None or waits in said[1]


def test_lost_counts_are_said():
    assert probe.wrong(RIGHT) == []
    (atomics,) = probe.wrong({**RIGHT, "counts": (2399, 2400)})
    assert "atomic operations lose counts: 2399 of 2400" in atomics
    (locks,) = probe.wrong({**RIGHT, "locks": (150, 200)})
    assert "exclusive locks lose counts: 150 of 200" in locks


def test_one_process_is_told_what_it_needs():
    done = cli("doctor", "--mpi")
    assert done.returncode == 2 and "there is one" in done.stderr and "mpirun -n 4 mpiconsensus doctor --mpi" in done.stderr


RUN = """
import sys, time
from mpiconsensus.runtime import World
from mpiconsensus.transport.mailbox import probe
from mpiconsensus.cli.lists import doctor
probe.BUSY_S = 0.3
{change}
doctor.main({words}, standalone_mode=False)
"""


def examined(ranks, change="", *words):
    return mpirun(ranks, "-c", RUN.format(change=change, words=["--mpi", *words]), timeout=180)


def test_between_ranks_it_measures_counts_and_recommends():
    done = examined(2)
    assert done.returncode == 0, done.stderr
    assert f"{4 * probe.COUNTS} of {4 * probe.COUNTS}" in done.stdout and "100 of 100" in done.stdout
    assert done.stdout.count("one-sided operations between 2 ranks on 1 node(s)") == 1
    assert "! take transport.name = auto: on one node" in done.stdout
    for name in probe.OPERATIONS:
        assert name in done.stdout


def test_stress_says_what_it_counted():
    done = examined(2, "", "--seconds", "4")
    assert done.returncode == 0, done.stderr
    assert "under stress no row was torn" in done.stdout and "one-sided operations between 2 ranks" in done.stdout
    told = {line.split(",")[0]: line for line in done.stdout.splitlines() if " ranks, 1 s: " in line}
    assert set(told) == set(stress.NAMES)
    count = lambda name, word: int(re.search(rf"{word} ([0-9,]+)", told[name])[1].replace(",", ""))
    assert all(count(name, "read") > 100 and count(name, "published") > 50 for name in ("shared", "rma", "p2p"))
    assert count("pairs", "exchanges") > 100
    # Not in vain: some rows were overwritten in the reader's hands, and were not believed.
    assert count("shared", "overtaken, rejected") > 0
    assert sum(count("shared", f"age {age}") for age in stress.AGES[1:]) > 0


def test_stress_needs_ranks():
    done = cli("doctor", "--seconds", "60")
    assert done.returncode == 2 and "--seconds 60 is how long doctor --mpi tries" in done.stderr


@pytest.mark.parametrize(
    "change, words",
    [
        ("from mpiconsensus.transport.mailbox.board import Board; Board.intact = lambda self, letters: True", "shared under stress: vertex . read .* torn"),
        ("Pairs.hold = unlocked", "pairs under stress: (updates were lost|the row of vertex . is torn)"),
        ("stress.Letters.sentinel = lambda self, vertex, clock: vertex * 1e9 + clock + (self.world.rank != vertex)", "read .* torn"),
    ],
)
def test_stress_sees_what_a_broken_transport_does(change, words):
    change = """
import contextlib
from mpiconsensus.transport.mailbox import stress
from mpiconsensus.transport.mailbox.pairs import Pairs

@contextlib.contextmanager
def unlocked(self, *vertices):
    with plain(self, *vertices) as rows:
        kept = [row.clone() for row in rows]
    yield kept
    with plain(self, *vertices) as rows:
        for row, mine in zip(rows, kept):
            row.copy_(mine)

plain = Pairs.hold
stress.D = 500
""" + change
    # Of two vertices both rows would be overwritten together, and keep their sum.
    done = mpirun(3, "-c", STRESSED.format(change=change), timeout=180)
    assert done.returncode != 0 and re.search(words, done.stderr)


STRESSED = """
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.transport.mailbox import probe
{change}
world = World.start()
watchdog = probe.Watchdog(world.rank)
for name in ("shared", "pairs"):
    stress.stress(world, Placement(3, 3, world.rank), name, 2.0, watchdog)
"""


def test_a_lost_count_is_a_failure():
    # The increments of one rank get lost.
    done = examined(2, "probe._count_locked = lambda world, window: (99, 100)")
    assert done.returncode == 1 and "! exclusive locks lose counts: 99 of 100" in done.stdout and "take transport.name = auto" not in done.stdout


def test_a_hang_is_cut_off_and_said_in_one_line():
    change = """
plain = probe.Watchdog
probe.Watchdog = lambda rank: plain(rank, limit_s=3)
count = probe._count
probe._count = lambda world, window: time.sleep(600) if world.rank == 1 else count(world, window)
"""
    start = time.monotonic()
    done = examined(2, change)
    assert done.returncode == 1 and time.monotonic() - start < 120
    (line,) = [line for line in done.stderr.splitlines() if "mpiconsensus:" in line]
    assert "MPI hangs: counting by atomic operations did not come to an end within 3 s" in line and "p2p" in line
