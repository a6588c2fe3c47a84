"""Move whole numbers between the rows of random pairs of vertices, from all ranks at once, on four graphs; argv: operations, nodes ...

    mpirun -n 5 python tests/mpi/pairs_stress.py 500 1 2

Whatever is moved, the sums over the vertices stay what they were, exactly: a lost or torn update changes them.
"""

import json
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.topology import build, edges
from mpiconsensus.transport.mailbox.pairs import Pairs

torch.set_num_threads(1)
start = World.start()
N, D = 7, 500
chance = random.Random(start.rank)


def pause():
    if chance.random() < 0.2:
        time.sleep(chance.random() * 2e-4)


def stress(world, graph, count):
    placement = Placement(N, world.size, world.rank)
    pairs = Pairs(world, placement, D, torch.float64)
    for i, v in enumerate(placement.hosted):
        with pairs.hold(v) as (row,):
            row.copy_(1000.0 * v + torch.arange(D))
            assert row.data_ptr() == pairs.rows(i).data_ptr()
    world.barrier()
    links = [link for link in edges(build(graph)).tolist() if set(link) & set(placement.hosted)]
    for _ in range(count):
        v, w = chance.sample(chance.choice(links), 2)
        amount = chance.randrange(1, 1000)
        pause()
        with pairs.hold(v, w) as (row_v, row_w):
            before = row_v.clone()
            pause()
            row_v.copy_(before - amount)
            pause()
            row_w.add_(amount)
    world.barrier()
    sums = np.zeros(D)
    for i in range(len(placement.hosted)):
        row = pairs.rows(i).numpy()
        assert (np.diff(row) == 1).all(), "a row is torn"
        sums += row
    sums = sum(world.allgather(sums))
    wanted = 1000.0 * N * (N - 1) / 2 + N * np.arange(D)
    assert (sums == wanted).all(), f"{graph}: the sums differ by up to {abs(sums - wanted).max()}"
    world.barrier()
    pairs.close()


count = int(sys.argv[1])
for nodes in map(int, sys.argv[2:]):
    world = World(start.comm, start.comm.Split(start.rank % nodes)) if nodes > 1 else start
    for graph in (f"ring:{N}", f"star:{N}", f"complete:{N}", f"path:{N}"):
        stress(world, graph, count)
    if world.rank == 0:
        print(json.dumps({"operations": 4 * count * world.size}), flush=True)
