"""Run under mpirun: rank 2 ends in the middle of a round; argv: the transport, and how.

killed: by a signal. unseen: its process goes on, so that the launcher has nothing to see, but the one that the others
were told of is gone.
"""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import torch

from mpiconsensus.block import Rows
from mpiconsensus.mixing import run_round
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.schedule import full
from mpiconsensus.topology import build, edges
from mpiconsensus.transport import open_exchange, peers
from mpiconsensus.weights import mixing_matrix, rows

world = World.start()
if sys.argv[2] == "unseen" and world.rank == 2:
    child = subprocess.Popen(["sleep", "600"])
    peers.os = SimpleNamespace(getpid=lambda: child.pid)
placement = Placement(4, world.size, world.rank)
exchange = open_exchange(sys.argv[1], world, placement, 1000, torch.float32)
mine = Rows(exchange.storage())
exchange.bind(mine)
round_ = full(rows(mixing_matrix(4, edges(build("ring:4")), "metropolis")))
run_round(exchange, mine, round_)
if world.rank == 2 and sys.argv[2] == "unseen":
    child.kill()
    child.wait()
    time.sleep(600)
if world.rank == 2:
    os.kill(os.getpid(), signal.SIGKILL)
for _ in range(3):
    run_round(exchange, mine, round_)
print("3 rounds later")
