"""Publish and read over mailboxes with random delays at every point of their protocols; rows tell whether they are torn.

    mpirun -n 16 python tests/mpi/mailbox_stress.py [--transport shared] [--seconds 60]

Every element of a row is a function of its vertex and clock. Checked: no row that was intact is torn or belongs to another
clock; the versions that a vertex reads of another never go back; `at_most` is kept; a clock that was waited for is there; the
clock of all ranks is one. Then all go in step, each waiting for the rows of one clock; and rank 0 looks away for a while
and finds few rows, not a queue of them. --transport shared:2: ranks of even and odd number do not share memory.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from mpiconsensus.block import Rows
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.transport.mailbox import open_mailbox

parser = argparse.ArgumentParser()
parser.add_argument("--transport", nargs="+", default=["shared"])
parser.add_argument("--seconds", type=float, default=60)
parser.add_argument("--elements", type=int, default=5000)
options = parser.parse_args()

torch.set_num_threads(1)
start = World.start()
chance = random.Random(start.rank)
N, D = start.size + 1, options.elements  # one rank hosts two vertices
STEPS, AWAY = 25, 40
neighbours = {v: sorted({(v + 1) % N, (v - 1) % N, (v + 3) % N, (v - 3) % N} - {v}) for v in range(N)}


def pause():
    draw = chance.random()
    if draw < 0.003:
        time.sleep(chance.random() * 1e-2)  # long enough for others to publish twice
    elif draw < 0.03:
        time.sleep(chance.random() * 1e-3)
    elif draw < 0.1:
        end = time.perf_counter() + chance.random() * 5e-5
        while time.perf_counter() < end:
            pass


def value(vertex, clock):
    return vertex * 1e7 + clock


def fill(row, number):
    """Write a row in parts with a pause in between, as a slow vertex does."""
    half = chance.randrange(1, len(row))
    row[:half] = number
    pause()
    row[half:] = number


def copied(row):
    """Read a row in parts with a pause in between, as a slow reader does."""
    half = chance.randrange(1, len(row))
    first = row[:half].clone()
    if chance.random() < 0.02:
        time.sleep(chance.random() * 5e-3)
    return torch.cat([first, row[half:]])


class Stress:
    """One mailbox under stress; counts: what was tried."""

    def __init__(self, name, world):
        self.name, self.world, self.placement = name, world, Placement(N, world.size, world.rank)
        self.counts = dict.fromkeys(("published", "read", "older", "lapped", "waited"), 0)
        self.mailbox = open_mailbox(name, world, self.placement, D, torch.float64, readers=neighbours)
        for box in filter(None, (self.mailbox, getattr(self.mailbox, "far", None))):
            for point in ("_sync", "_fetch", "_take", "_move", "_letter"):
                if hasattr(box, point):
                    setattr(box, point, self.delayed(getattr(box, point)))
        self.rows = Rows(self.mailbox.storage())
        self.mailbox.bind(self.rows)
        self.newest = {(v, u): -1 for v in self.placement.hosted for u in neighbours[v]}
        self.clocks = dict.fromkeys(self.placement.hosted, -1)
        for i, v in enumerate(self.placement.hosted):
            fill(self.rows.x(i), value(v, -1))
            self.mailbox.publish(i, -1)
        world.barrier()

    def delayed(self, function):
        def late(*arguments):
            pause()
            found = function(*arguments)
            self.counts["lapped"] += found is None and function.__name__ == "_take"
            return found

        return late

    def step(self, i, v, clock):
        self.rows.flip(i)
        fill(self.rows.x(i), value(v, clock))
        self.mailbox.publish(i, clock)
        self.clocks[v] = clock
        self.counts["published"] += 1

    def read(self, v, u):
        told = self.mailbox.clock(u, v)
        letter = self.mailbox.peek(u, v)
        if letter is None:
            assert self.name == "p2p" and told == -2, f"vertex {v} found no row of {u}"
            return
        assert letter.version >= self.newest[v, u], f"vertex {v} read version {letter.version} of {u} after {self.newest[v, u]}"
        assert letter.clock >= told, f"vertex {v} was told of clock {told} of {u} and then found {letter.clock}"
        self.newest[v, u] = letter.version
        self.check(letter, v, u)
        older = self.mailbox.peek(u, v, letter.clock - 1)
        if older is not None:
            assert older.clock < letter.clock, f"vertex {v} asked for clock {letter.clock - 1} of {u} and got {older.clock}"
            self.counts["older"] += 1
            self.check(older, v, u)

    def check(self, letter, v, u):
        late_s = letter.stamp - self.mailbox.now()
        assert late_s < 1e-3, f"a row of {u} was read {late_s} s before it was published"
        row, number = copied(letter.row), value(u, letter.clock)
        if self.mailbox.intact([letter]):
            assert float(row.min()) == number == float(row.max()), f"vertex {v} read {row.min()} to {row.max()} of {u}, clock {letter.clock}"
            self.counts["read"] += 1
        else:
            self.counts["lapped"] += 1

    def everyone_for_itself(self, seconds):
        end, turn, hosted = time.monotonic() + seconds, 0, self.placement.hosted
        while time.monotonic() < end:
            for i, v in enumerate(hosted):
                self.step(i, v, self.clocks[v] + chance.choice((1, 1, 3)))
                for u in neighbours[v]:
                    self.read(v, u)
            turn += 1
            if turn % 5 == 0:
                u = chance.choice(neighbours[hosted[0]])
                wanted = max(0, self.mailbox.clock(u, hosted[0])) + 1
                if self.mailbox.wait({u: wanted}, 5e-2 * chance.random()):
                    self.counts["waited"] += 1
                    assert self.mailbox.clock(u, hosted[0]) >= wanted

    def in_step(self):
        """Read the rows of one clock alone, as a bound of zero asks: neighbours are ahead by one at most."""
        first = max(self.world.allgather(max(self.clocks.values()))) + 1
        for clock in range(first, first + STEPS):
            for i, v in enumerate(self.placement.hosted):
                self.step(i, v, clock)
            for v, u in self.newest:
                assert self.mailbox.wait({u: clock}, 20), f"vertex {v} waited for clock {clock} of {u} in vain"
                letter = self.mailbox.peek(u, v, clock)
                assert letter is not None and letter.clock == clock, f"vertex {v} asked for clock {clock} of {u} and got {letter}"
                assert (letter.row == value(u, clock)).all() and self.mailbox.intact([letter])
            pause()

    def rank_0_looks_away(self):
        self.world.barrier()
        wire, last = self.mailbox.rows_wire, max(self.clocks.values()) + AWAY
        if self.world.rank == 0:
            time.sleep(0.4)
        for i, v in enumerate(self.placement.hosted if self.world.rank > 0 else ()):
            for clock in range(last - AWAY + 1, last + 1):
                self.step(i, v, clock)
        self.world.barrier()
        if self.world.rank == 0:
            around = {(v, u) for v, u in self.newest if u not in self.placement.hosted}
            end = time.monotonic() + 20
            while any(self.mailbox.clock(u, v) < last for v, u in around):
                assert time.monotonic() < end, "who looked away never sees the last rows"
            if self.name == "p2p":
                # One that the receive under way took, one that was sent behind it, and the last two.
                many, vertices = self.mailbox.rows_wire - wire, len({u for _, u in around})
                assert many <= 4 * vertices, f"{many} rows of {vertices} vertices came to who looked away"

    def flags(self):
        mine, every = 1 << self.world.rank % 30, 0
        for rank in range(self.world.size):
            every |= 1 << rank % 30
        self.mailbox.raise_flag(mine)
        end = time.monotonic() + 20
        while self.mailbox.flags() != every:
            assert time.monotonic() < end, f"rank {self.world.rank} sees the flags {self.mailbox.flags():b} of {every:b}"
            time.sleep(1e-3)

    def close(self):
        found = self.world.allgather(self.counts)
        if self.world.rank == 0:
            total = {name: sum(rank[name] for rank in found) for name in self.counts}
            print(json.dumps({"title": self.mailbox.title, "ranks": self.world.size, **total}), flush=True)
        self.rows = None
        self.mailbox.close()


for words in options.transport:
    name, _, nodes = words.partition(":")
    world = World(start.comm, start.comm.Split(start.rank % int(nodes))) if nodes else start
    stress = Stress(name, world)
    apart = max(stress.world.allgather(stress.mailbox.now())) - stress.mailbox.now()
    assert apart < 1, f"the clocks are {apart} s apart"
    stress.everyone_for_itself(options.seconds)
    stress.in_step()
    stress.rank_0_looks_away()
    stress.flags()
    stress.close()
