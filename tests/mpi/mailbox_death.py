"""Run under mpirun: rank 1 is gone while others wait for it; argv: the mailbox, or pairs.

Its process goes on, so that the launcher has nothing to see, but the one that the others were told of is gone. With pairs
rank 1 is killed for good with a row in its hands; its launcher is told not to mind.
"""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import torch

from mpiconsensus.block import Rows
from mpiconsensus.errors import TrainingError
from mpiconsensus.placement import Placement
from mpiconsensus.runtime import World
from mpiconsensus.transport import peers
from mpiconsensus.transport.mailbox import open_mailbox
from mpiconsensus.transport.mailbox.pairs import Pairs

world = World.start()
name = sys.argv[1]
placement = Placement(world.size, world.size, world.rank)
if name == "pairs":
    rows = Pairs(world, placement, 100, torch.float32)
    if world.rank == 1:
        rows._rows.lock(1)
        # As the kernel does at the end of a process: its locks are given back, its mark stays.
        rows._rows._file.close()
    world.barrier()
    if world.rank == 1:
        time.sleep(600)
    start = time.monotonic()
    try:
        with rows.hold(0, 1):
            raise AssertionError("the row of a dead rank was handed out")
    except TrainingError as error:
        print(f"after {time.monotonic() - start:.2f} s: {error}", flush=True)
        raise
if world.rank == 1:
    child = subprocess.Popen(["sleep", "600"])
    peers.os = SimpleNamespace(getpid=lambda: child.pid)
everyone = {v: [u for u in range(world.size) if u != v] for v in range(world.size)}
mailbox = open_mailbox(name, world, placement, 1000, torch.float32, readers=everyone)
rows = Rows(mailbox.storage())
mailbox.bind(rows)
mailbox.publish(0, -1)
world.barrier()
if world.rank == 1:
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(600)
start = time.monotonic()
try:
    there = mailbox.wait({1: 0}, 30)
    print(f"after {time.monotonic() - start:.2f} s: {there}", flush=True)
except TrainingError:
    print(f"named after {time.monotonic() - start:.2f} s", flush=True)
    raise
