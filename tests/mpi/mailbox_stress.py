"""Publish and read over a mailbox with random delays at every point of its protocol; rows tell whether they are torn.

    mpirun -n 16 python tests/mpi/mailbox_stress.py [--transport shared] [--seconds 60] [--nodes 1]

Every element of a row is a function of its vertex and clock. Checked: no row that was intact is torn or belongs to another
clock; the versions that a vertex reads of another never go back; `at_most` is kept; a clock that was waited for is there; the
clock of all ranks is one. Then all go in step, each waiting for the rows of one clock; and rank 0 looks away for a while
and finds few rows, not a queue of them. With --nodes 2 ranks of even and odd number do not share memory.
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
parser.add_argument("--transport", default="shared")
parser.add_argument("--seconds", type=float, default=60)
parser.add_argument("--nodes", type=int, default=1)
parser.add_argument("--elements", type=int, default=20_000)
options = parser.parse_args()

torch.set_num_threads(1)
world = World.start()
if options.nodes > 1:
    world = World(world.comm, world.comm.Split(world.rank % options.nodes))
N, D = world.size + 1, options.elements  # one rank hosts two vertices
placement = Placement(N, world.size, world.rank)
neighbours = {v: sorted({(v + 1) % N, (v - 1) % N, (v + 3) % N, (v - 3) % N} - {v}) for v in range(N)}
chance = random.Random(world.rank)
STEPS, AWAY = 40, 100


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


def delayed(function):
    def late(*arguments):
        pause()
        found = function(*arguments)
        counts["lapped"] += found is None and function.__name__ == "_take"
        return found

    return late


def value(vertex, clock):
    return vertex * 1e7 + clock


def fill(row, number):
    """Write a row in parts with pauses in between, as a slow vertex does."""
    half = chance.randrange(1, len(row))
    row[:half] = number
    pause()
    row[half:] = number


def copied(row):
    half = chance.randrange(1, len(row))
    first = row[:half].clone()
    if chance.random() < 0.02:
        time.sleep(chance.random() * 5e-3)
    return torch.cat([first, row[half:]])


counts = dict.fromkeys(("published", "read", "older", "lapped", "waited", "missing"), 0)
mailbox = open_mailbox(options.transport, world, placement, D, torch.float64, readers=neighbours)
for box in filter(None, (mailbox, getattr(mailbox, "far", None))):
    box._sync = delayed(box._sync)
    for name in ("_fetch", "_take", "_move", "_letter"):
        if hasattr(box, name):
            setattr(box, name, delayed(getattr(box, name)))
rows = Rows(mailbox.storage())
mailbox.bind(rows)

newest = {(v, u): -1 for v in placement.hosted for u in neighbours[v]}
clocks = dict.fromkeys(placement.hosted, -1)
for i, v in enumerate(placement.hosted):
    fill(rows.x(i), value(v, -1))
    mailbox.publish(i, -1)
world.barrier()
assert abs(mailbox.now() - world.bcast(mailbox.now())) < 1


def check(letter, v, u, at_most):
    before = mailbox.now()
    row = copied(letter.row)
    if not mailbox.intact([letter]):
        counts["lapped"] += 1
        return
    number = value(u, letter.clock)
    assert float(row.min()) == number == float(row.max()), f"vertex {v} read {row.min()} to {row.max()} of {u} at clock {letter.clock}"
    assert letter.clock <= at_most, f"vertex {v} asked for clock {at_most} of {u} and got {letter.clock}"
    assert letter.stamp <= before + 1e-3, f"a row of {u} was read {letter.stamp - before} s before it was published"
    counts["read"] += 1


def read(v, u):
    told = mailbox.clock(u, v)
    letter = mailbox.peek(u, v)
    assert letter is not None or options.transport == "p2p", f"vertex {v} found no row of {u}"
    if letter is None:
        counts["missing"] += 1
        return
    assert letter.version >= newest[v, u], f"vertex {v} read version {letter.version} of {u} after {newest[v, u]}"
    newest[v, u] = letter.version
    check(letter, v, u, letter.clock)
    assert letter.clock >= told, f"vertex {v} was told of clock {told} of {u} and then found {letter.clock}"
    older = mailbox.peek(u, v, letter.clock - 1)
    if older is not None:
        counts["older"] += 1
        check(older, v, u, letter.clock - 1)


end = time.monotonic() + options.seconds
step = 0
while time.monotonic() < end and not mailbox.flags() & 2:
    for i, v in enumerate(placement.hosted):
        clocks[v] += chance.choice((1, 1, 3))
        rows.flip(i)
        fill(rows.x(i), value(v, clocks[v]))
        mailbox.publish(i, clocks[v])
        counts["published"] += 1
        for u in neighbours[v]:
            read(v, u)
    step += 1
    if step % 10 == 0:
        u = chance.choice(neighbours[placement.hosted[0]])
        wanted = max(0, mailbox.clock(u, placement.hosted[0])) + 1
        if mailbox.wait({u: wanted}, 5 * chance.random() * 1e-2):
            counts["waited"] += 1
            assert mailbox.clock(u, placement.hosted[0]) >= wanted
    pause()


def step_on(i, v, clock):
    rows.flip(i)
    fill(rows.x(i), value(v, clock))
    mailbox.publish(i, clock)


# In step, as a bound of zero asks: everybody reads the rows of one clock, whoever is ahead by one.
first = max(world.allgather(max(clocks.values()))) + 1
for clock in range(first, first + STEPS):
    for i, v in enumerate(placement.hosted):
        step_on(i, v, clock)
    for v in placement.hosted:
        for u in neighbours[v]:
            assert mailbox.wait({u: clock}, 20), f"vertex {v} waited for clock {clock} of {u} in vain"
            letter = mailbox.peek(u, v, clock)
            assert letter is not None and letter.clock == clock, f"vertex {v} asked for clock {clock} of {u} and got {letter}"
            assert (letter.row == value(u, clock)).all() and mailbox.intact([letter])
    pause()

# Rank 0 looks away: what it finds then is of the last publications, and few of them.
world.barrier()
wire = mailbox.rows_wire
if world.rank == 0:
    time.sleep(0.4)
else:
    for clock in range(first + STEPS, first + STEPS + AWAY):
        for i, v in enumerate(placement.hosted):
            step_on(i, v, clock)
world.barrier()
end, last = time.monotonic() + 20, first + STEPS + AWAY - 1
around = {u for v in placement.hosted for u in neighbours[v]} - set(placement.hosted)
while world.rank == 0 and any(mailbox.clock(u, placement.hosted[0]) < last for u in around):
    assert time.monotonic() < end, "who looked away never sees the last rows"
if world.rank == 0:
    mailbox.raise_flag(1)
while not mailbox.flags() & 1:
    time.sleep(1e-4)
if world.rank == 0 and options.transport == "p2p":
    many = mailbox.rows_wire - wire
    assert 0 < many <= 3 * len(mailbox._inboxes), f"{many} rows came from {len(mailbox._inboxes)} vertices to who looked away"
mailbox.raise_flag(1 << world.rank % 30 << 2)
every = 0
for rank in range(world.size):
    every |= 1 << rank % 30 << 2
late = time.monotonic() + 20
while mailbox.flags() & every != every:
    assert time.monotonic() < late, f"rank {world.rank} sees the flags {mailbox.flags():b} of {every:b}"
    time.sleep(1e-3)
found = world.allgather(counts)
total = {name: sum(rank[name] for rank in found) for name in counts}
if world.rank == 0:
    print(json.dumps({"title": mailbox.title, "ranks": world.size, **total}))
rows = None
mailbox.close()
