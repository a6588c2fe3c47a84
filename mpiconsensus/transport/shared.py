"""Rows in a shared-memory window of the node: neighbours read them where they lie, nothing is copied.

A round needs one flag a rank and no barrier. ready[r] = t says that the rows of rank r may be read in round t;
done[r] = t says that rank r has read all that it reads in round t. A rank waits for `ready` of those it reads, and,
before it writes a buffer, for `done` of the ranks that read that buffer last.
"""

import os

import numpy as np
import torch

from mpiconsensus.runtime import mpi
from mpiconsensus.transport.base import Exchange
from mpiconsensus.transport.waiting import wait_until

PAGE = 4096
LINE = 8  # int64 a cache line: flags of different ranks share none


class Shared(Exchange):
    """One node. Each rank's two buffers and its two flags lie in its part of one window."""

    name = "shared"

    def __init__(self, world, placement, d, dtype, device="cpu"):
        super().__init__(world, placement, d, dtype, device)
        MPI = mpi()
        self.rounds = 0
        # All ranks follow which of its two buffers each vertex stands in: rounds say who flips.
        self.side = np.zeros(placement.n, np.int8)
        sizes = [PAGE + 2 * self._bytes(count) for count in placement.counts]
        self.window = MPI.Win.Allocate_shared(sizes[world.rank], 1, comm=world.comm)
        self.window.Lock_all(MPI.MODE_NOCHECK)
        self._ready, self._done, self._rows, self._mine = [], [], {}, None
        for rank, count in enumerate(placement.counts):
            memory = memoryview(self.window.Shared_query(rank)[0]).cast("B")
            flags = memory[:PAGE].cast("q")
            self._ready.append(flags[0:1])
            self._done.append(flags[LINE : LINE + 1])
            sides = []
            for side in (0, 1):
                start = PAGE + side * self._bytes(count)
                rows = torch.frombuffer(memory, dtype=dtype, count=count * d, offset=start).view(count, d)
                sides.append(rows)
            first = sum(placement.counts[:rank])
            for i in range(count):
                self._rows[first + i] = [sides[0][i], sides[1][i]]
            if rank == world.rank:
                self._mine = sides
                flags[0] = flags[LINE] = 0
                for rows in sides:
                    rows.zero_()
        self._guards = [[None, None] for _ in placement.hosted]
        world.comm.Barrier()

    def _bytes(self, count):
        return -(-count * self.d * self.dtype.itemsize // PAGE) * PAGE

    def storage(self):
        return self._mine

    def start(self, round_):
        super().start(round_)
        self.rounds += 1
        owner, me = self.placement.owner, self.world.rank
        for i, vertex in enumerate(self.placement.hosted):
            readers = {int(owner[r]) for r in round_.readers.get(vertex, ())} - {me}
            if readers:
                self._guards[i][self.block.current[i]] = (readers, self.rounds)
                self.rows_sent += len(readers)
        self.window.Sync()
        self._ready[me][0] = self.rounds

    def finish(self):
        owner, me = self.placement.owner, self.world.rank
        needed = {j for v in self.placement.hosted if v in self.round.rows for j in self.round.rows[v][0].tolist()}
        remote = [j for j in needed if owner[j] != me]
        self.rows_received += len(remote)
        self._wait(self._ready, {int(owner[j]) for j in remote}, self.rounds)
        return self._row

    def _row(self, vertex):
        return self._rows[vertex][self.side[vertex]]

    def writable(self, i):
        self._wait_guard(i, 1 - self.block.current[i])

    def release(self):
        self.window.Sync()
        self._done[self.world.rank][0] = self.rounds
        for vertex in self.round.rows:
            self.side[vertex] ^= 1
        # A row that was read but not replaced is trained in place next: its readers must be through.
        for i, vertex in enumerate(self.placement.hosted):
            if vertex not in self.round.rows:
                self._wait_guard(i, self.block.current[i])

    def _wait_guard(self, i, side):
        guard = self._guards[i][side]
        if guard:
            self._wait(self._done, *guard)
            self._guards[i][side] = None

    def _wait(self, flags, ranks, value):
        for rank in ranks:
            flag = flags[rank]
            wait_until(lambda flag=flag: flag[0] >= value, self.world.crowded)
        self.window.Sync()

    def close(self):
        self.world.comm.Barrier()
        self._ready = self._done = self._rows = self._mine = None
        self.window.Unlock_all()
        self.window.Free()


def shared_memory_free():
    """Return the bytes free in /dev/shm (a large number where there is none to ask)."""
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return 1 << 62
    return stat.f_bavail * stat.f_frsize
