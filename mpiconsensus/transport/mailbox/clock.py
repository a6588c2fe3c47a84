"""One clock for all ranks: the monotonic clock of rank 0's node, and how far those of other nodes are from it."""

import time

TRIPS = 20
TAG = 1


class Clock:
    """Seconds since it was made, the same on all ranks; collective to make.

    The ranks of a node share the node's clock. The lowest rank of each other node asks rank 0 for its time TRIPS times:
    the shortest trip tells the offset, to half its length.
    """

    def __init__(self, world):
        self.offset, zero = 0.0, world.bcast(time.monotonic())
        if world.nodes > 1:
            asking = [rank for rank in world.bcast(_lowest(world)) if rank > 0]
            if world.rank == 0:
                for rank in asking:
                    for _ in range(TRIPS):
                        world.comm.recv(source=rank, tag=TAG)
                        world.comm.send(time.monotonic(), rank, TAG)
            elif world.rank in asking:
                self.offset = min(_trip(world.comm) for _ in range(TRIPS))[1]
            self.offset = world.node_comm.bcast(self.offset)
        self._zero = zero - self.offset

    def __call__(self):
        return time.monotonic() - self._zero


def _lowest(world):
    """Return the lowest rank of each node."""
    nodes = world.node_of_rank.tolist()
    return [nodes.index(node) for node in range(world.nodes)]


def _trip(comm):
    """Return (seconds of a trip to rank 0 and back, rank 0's clock less this one's half-way)."""
    start = time.monotonic()
    comm.send(None, 0, TAG)
    theirs = comm.recv(source=0, tag=TAG)
    end = time.monotonic()
    return end - start, theirs - (start + end) / 2
