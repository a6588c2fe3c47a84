"""Run under mpirun: rank 2 is killed in the middle of a round; argv: the transport."""

import os
import signal
import sys

import torch

from mpiconsensus.block import Rows
from mpiconsensus.mixing import run_round
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.schedule import full
from mpiconsensus.topology import build, edges
from mpiconsensus.transport import open_exchange
from mpiconsensus.weights import mixing_matrix, rows

world = World.start()
placement = Placement(4, world.size, world.rank)
exchange = open_exchange(sys.argv[1], world, placement, 1000, torch.float32)
mine = Rows(exchange.storage())
exchange.bind(mine)
round_ = full(rows(mixing_matrix(4, edges(build("ring:4")), "metropolis")))
run_round(exchange, mine, round_)
if world.rank == 2:
    os.kill(os.getpid(), signal.SIGKILL)
for _ in range(3):
    run_round(exchange, mine, round_)
print("3 rounds later")
