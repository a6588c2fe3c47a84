"""All vertices in one process, on the real clock: rows are read where they lie."""

import time

from mpiconsensus.transport.mailbox.board import Board, aligned


class InProcess(Board):
    """Nothing is sent and nobody is waited for: what a vertex waits for, its own process must publish."""

    name = "inprocess"

    def __init__(self, world, placement, d, dtype, device="cpu", readers=None):
        super().__init__(world, placement, d, dtype, device, readers)
        self.lay(world.rank, aligned(self.part(world.rank).size))
        self._flags = 0

    def wait(self, wanted, seconds):
        there = all(self.clock(vertex, None) >= clock for vertex, clock in wanted.items())
        if not there:
            time.sleep(seconds)
        return there

    def raise_flag(self, bits):
        self._flags |= bits

    def lower_flags(self, bits):
        self._flags &= ~bits

    def flags(self):
        return self._flags
