"""Run under mpirun: count the rows that each rank receives and sends in one round, and check what arrived.

An argument a case: a transport and words, as "neighbor point-to-point staged"; prints a line of JSON a case.
"""

import json
import sys
import time

import numpy as np
import torch

from mpiconsensus import mixing
from mpiconsensus.block import Rows
from mpiconsensus.mixing import run_round
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.schedule import full, masked, pair_rounds
from mpiconsensus.topology import build, edges
from mpiconsensus.transport import base, messages, open_exchange
from mpiconsensus.transport.neighbor import WAYS, Neighbor
from mpiconsensus.transport.onegpu import OneGpu
from mpiconsensus.weights import mixing_matrix, rows

d = 1000
PLANS, run = (messages.GRAPHS, messages.REQUESTS, base.KEPT), mixing.Sums.run


def late(sums):
    time.sleep(0.05)
    run(sums)


def case(name, words, everyone, apart):
    # plans: what comes beyond goes another way
    messages.GRAPHS, messages.REQUESTS, base.KEPT = (2, 1, 2) if "few" in words else PLANS
    world = apart if "two-nodes" in words else everyone
    graph = build("torus:3x4")
    matrix = mixing_matrix(12, edges(graph), "metropolis")
    placement = Placement(12, world.size, world.rank)
    ways = [word for word in words if word in WAYS]
    if ways:
        exchange = Neighbor(world, placement, d, torch.float64, how=ways[0], staged="staged" in words)
    elif name == "onegpu":
        # Files of shared memory stand in for a GPU's: the handles are made, exchanged and opened by the same calls.
        torch.multiprocessing.set_sharing_strategy("file_system")
        exchange = OneGpu(world, placement, d, torch.float64, "cpu")
    else:
        exchange = open_exchange(name, world, placement, d, torch.float64)
    mine = Rows(exchange.storage())
    exchange.bind(mine)
    x = np.random.default_rng(3).standard_normal((12, d))
    for i, v in enumerate(placement.hosted):
        mine.x(i).copy_(torch.from_numpy(x[v]))
    found, every = [], rows(matrix)
    mixes = [v % 3 != 0 for v in range(12)]
    rounds = [full(every), masked(every, mixes, "thesis"), *pair_rounds(12, [(0, 1), (2, 6), (1, 5)]), full(every)]
    # Some rounds late at some ranks: what is read is what was there at the round, not before and not after.
    for number, round_ in enumerate(rounds * 20):
        if (number + world.rank) % 7 == 0:
            torch.randn(20000 * (1 + world.rank % 3)).sort()
        before = (exchange.rows_received, exchange.rows_sent)
        run_round(exchange, mine, round_)
        x = round_.matrix() @ x
        for i, v in enumerate(placement.hosted):
            assert np.abs(mine.x(i).numpy() - x[v]).max() < 1e-12, (number, v)
        if number < len(rounds):
            needed = {j for v in placement.hosted if v in round_.rows for j in round_.rows[v][0].tolist()} - set(placement.hosted)
            readers = sum(
                len({int(placement.owner[i]) for i in round_.rows if v in round_.rows[i][0].tolist()} - {world.rank}) for v in placement.hosted
            )
            found.append([exchange.rows_received - before[0], len(needed), exchange.rows_sent - before[1], readers])
    # Local updates between the rounds are seen by the next one, and by no round before it.
    for number in range(30):
        for i, v in enumerate(placement.hosted):
            mine.x(i).add_(v + number)
        x = rounds[number % 4].matrix() @ (x + np.arange(12)[:, None] + number)
        run_round(exchange, mine, rounds[number % 4])
        for i, v in enumerate(placement.hosted):
            assert np.abs(mine.x(i).numpy() - x[v]).max() < 1e-9, (number, v)
    # A rank that reads late: its neighbour is rounds ahead by then, and must not have written over what is being read.
    for _ in range(3):
        for round_, slow in zip(pair_rounds(12, [(0, 11), (0, 1), (0, 2)]), (True, False, False), strict=True):
            mixing.Sums.run = late if slow and 11 in placement.hosted else run
            x = round_.matrix() @ x
            run_round(exchange, mine, round_)
            for i, v in enumerate(placement.hosted):
                assert np.abs(mine.x(i).numpy() - x[v]).max() < 1e-9, v
    if name == "neighbor" and "point-to-point" not in words:
        graphs = exchange._messages._graphs
        assert len(graphs) == 2 if "few" in words else len(graphs) > 4
        assert any(graph._requests for graph in graphs) == ("collective" not in words)
    out = world.allgather(found)
    if world.rank == 0:
        print(json.dumps({"name": exchange.name, "found": out}))
    exchange.close()
    mixing.Sums.run = run


world = World.start()
halves = World(world.comm, world.comm.Split(world.rank // 2))
for line in sys.argv[1:]:
    name, *words = line.split()
    case(name, words, world, halves)
