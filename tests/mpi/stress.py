"""Run under mpirun: rounds over a transport with random delays at every point of its protocol; argv: name, rounds, nodes.

Every row is one number, repeated: a row that was read while it was written, or a round too early or too late, differs
within itself or from the matrix. With nodes = 2 ranks of even and odd number do not share memory.
"""

import json
import random
import sys
import time

import numpy as np
import torch

from mpiconsensus import mixing
from mpiconsensus.block import Rows
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.schedule import Round, full, pair_rounds
from mpiconsensus.topology import build, edges
from mpiconsensus.transport import open_exchange
from mpiconsensus.transport.waiting import Counter
from mpiconsensus.weights import mixing_matrix, rows

name, count, nodes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
world = World.start()
if nodes > 1:
    world = World(world.comm, world.comm.Split(world.rank % nodes))
N, D = world.size + 1, 704
placement = Placement(N, world.size, world.rank)
chance = random.Random(world.rank)


def delayed(function):
    def late(*arguments):
        draw = chance.random()
        if draw < 0.02:
            time.sleep(chance.random() * 5e-4)
        elif draw < 0.1:
            end = time.perf_counter() + chance.random() * 5e-5
            while time.perf_counter() < end:
                pass
        return function(*arguments)

    return late


exchange = open_exchange(name, world, placement, D, torch.float64, depth=3)
mine = Rows(exchange.storage())
exchange.bind(mine)
for point in ("start", "finish", "writable", "release"):
    setattr(exchange, point, delayed(getattr(exchange, point)))
    if getattr(exchange, "far", None):
        setattr(exchange.far, point, delayed(getattr(exchange.far, point)))
Counter.raise_to, mixing.Sums.run = delayed(Counter.raise_to), delayed(mixing.Sums.run)

# A matrix of a graph with directions, whose readers are not those it reads; a symmetric one; pairs.
ring = {i: ([i, (i + 1) % N] if i < N - 1 else [0, i], [0.5, 0.5]) for i in range(N)}
every = rows(mixing_matrix(N, edges(build(f"ring:{N}")), "metropolis"))
choices = [Round(N, ring), full(every), *pair_rounds(N, [(0, N - 1), (1, 2)]), Round(N, {0: ([0, 2], [0.5, 0.5])})]
matrices = [round_.matrix() for round_ in choices]
schedule = np.random.default_rng(5).integers(len(choices), size=count)

x = np.random.default_rng(3).standard_normal(N)
for i, v in enumerate(placement.hosted):
    mine.x(i).fill_(x[v])


def check(number, what):
    for i, v in enumerate(placement.hosted):
        row = mine.x(i)
        low, high = float(row.min()), float(row.max())
        assert low == high, f"{what}, round {number}: the row of vertex {v} is torn: {low!r} to {high!r}"
        assert abs(low - x[v]) < 1e-9, f"{what}, round {number}: vertex {v} has {low!r}, the matrix {x[v]!r}"


def train(number):
    for i, v in enumerate(placement.hosted):
        mine.x(i).add_(0.01 * ((number + v) % 7 - 3))
    return x + 0.01 * ((number + np.arange(N)) % 7 - 3)


run_round, run_delayed = mixing.run_round, mixing.run_delayed
for number, choice in enumerate(schedule):
    x = train(number)
    run_round(exchange, mine, choices[choice])
    x = matrices[choice] @ x
    check(number, "a round")

late, before = None, None
for number, choice in enumerate(schedule):
    x = y = train(number)
    following = None if number % 5 == 4 else choice
    run_delayed(exchange, mine, None if late is None else choices[late], None if following is None else choices[following])
    if late is not None:
        # Half of the difference would be enough: the recursion itself need not contract to be checked.
        x = y + matrices[late] @ before - before
    check(number, "a delayed round")
    late, before = following, y
    if number % 10 == 9:
        # Back to the size of one, or numbers that grow would hide what is checked.
        for i, v in enumerate(placement.hosted):
            mine.x(i).fill_(float(v))
        x = np.arange(N, dtype=float)
if late is not None:
    run_delayed(exchange, mine, choices[late], None)

found = world.allgather(exchange.waits)
if world.rank == 0:
    print(json.dumps({"title": exchange.title, "rounds": 2 * len(schedule), "waits": found}))
exchange.close()
