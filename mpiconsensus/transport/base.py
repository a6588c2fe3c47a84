"""The synchronous transport contract: one round moves rows over the edges of a graph.

A transport moves rows, the mixer applies W, the algorithm decides when. Every rank calls start, finish and release
for every round of the schedule, in the same order, whether or not its vertices take part.
"""

from abc import ABC, abstractmethod

import torch


class Exchange(ABC):
    """Rows of the hosted vertices, readable by the ranks that a round says.

    start(round): the current rows may be read from here on; they must not be written before release.
    finish() -> function from a vertex that a hosted row needs to that vertex's row (d,); waits for the late ones.
    writable(i): waits until the row that the round writes for hosted vertex i is read by nobody any more.
    release(): the rows handed out are done with. Collective in meaning, none of them a barrier.
    rows_received, rows_sent: rows moved between ranks so far.
    """

    name = ""

    def __init__(self, world, placement, d, dtype, device="cpu"):
        self.world, self.placement, self.d, self.dtype = world, placement, d, dtype
        self.device = torch.device(device)
        self.block = None
        self.rows_received = self.rows_sent = 0

    def storage(self):
        """Return the two (m, d) arrays for a Block; in memory that this transport can hand to others."""
        shape = (len(self.placement.hosted), self.d)
        return [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(2)]

    def bind(self, block):
        """Exchange the rows of `block`, whose storage came from here."""
        self.block = block

    def start(self, round_):
        self.round = round_

    @abstractmethod
    def finish(self):
        """Wait for the rows of the round and return the function from a vertex to its row."""

    def writable(self, i):
        pass

    def release(self):
        pass

    def close(self):
        """Free what was allocated; collective. The rows are gone afterwards."""
