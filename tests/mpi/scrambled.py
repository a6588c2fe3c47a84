"""Run under mpirun: `mpiconsensus argv[2:]` with the vertices on the ranks argv[1], a list, and ranks of odd number on a node of their own."""

import json
import sys

import numpy as np

from mpiconsensus import cli, placement, runtime

OWNERS = json.loads(sys.argv[1])
from_comm = runtime.World.from_comm.__func__


def on_two_nodes(cls, comm):
    world = from_comm(cls, comm)
    return cls(world.comm, world.comm.Split(world.rank % 2))


runtime.World.from_comm = classmethod(on_two_nodes)
placement.assign = lambda *of_graph: (np.array(OWNERS), "scrambled")
sys.argv[1:] = sys.argv[2:]
cli.main()
