"""Pairs between nodes: a lock word a vertex in a one-sided window, taken by Compare_and_swap; rows by Get and Put."""

import random
import time

import numpy as np
import torch

from mpiconsensus.runtime import mpi
from mpiconsensus.transport.mailbox.board import PAGE
from mpiconsensus.transport.messages import element
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import GROWTH, LONGEST_NAP_S, LOOK_UP_S, NAP_S


class Words:
    """Rows of all ranks in one window. A lock is rank + 1 of who holds it, or 0; one that is taken is tried again, later and later.

    An exclusive lock of MPI would wait for the target's next call of MPI in both libraries that were tried. A Put waits
    for it in Open MPI: who holds a row of a rank that computes may have to wait for its gradient.
    """

    def __init__(self, world, placement, d, dtype):
        MPI = mpi()
        self.world, self.d, self.hosted = world, d, placement.hosted
        self._row, self._element = d * dtype.itemsize, element(dtype.itemsize)
        self._heads = [-(-64 * count // PAGE) * PAGE for count in placement.counts]  # a lock word a cache line
        self._place = {v: (rank, i) for rank in range(world.size) for i, v in enumerate(placement.hosted_by(rank))}
        size = self._heads[world.rank] + len(placement.hosted) * self._row
        self.window = MPI.Win.Allocate(size + PAGE, 1, comm=world.comm)
        skip = -self.window.Get_attr(MPI.WIN_BASE) % PAGE
        self._starts = world.comm.allgather(skip)
        memory = self.window.tomemory().cast("B")[skip : skip + size]
        head = self._heads[world.rank]
        memory[:head] = bytes(head)
        self._live = {
            v: torch.frombuffer(memory, dtype=dtype, count=d, offset=head + i * self._row).zero_() for i, v in enumerate(placement.hosted)
        }
        self._copies = []
        self._dtype, self._found = dtype, np.zeros(1, np.int64)
        self._free, self._mine = np.zeros(1, np.int64), np.array([world.rank + 1], np.int64)
        self.window.Lock_all(MPI.MODE_NOCHECK)
        self.window.Sync()
        self._peers = Peers(world, "while it held the row of a vertex")
        world.barrier()

    def own(self, i):
        return self._live[self.hosted[i]]

    def lock(self, vertex):
        nap_s, looked_s = NAP_S, time.monotonic()
        while holder := self._swap(vertex, self._free, self._mine):
            time.sleep(nap_s * random.uniform(0.5, 1.0))  # apart from others who try
            nap_s = min(LONGEST_NAP_S, GROWTH * nap_s)
            if time.monotonic() - looked_s > LOOK_UP_S:
                self._peers.check([holder - 1])
                looked_s = time.monotonic()
        self.window.Sync()

    def unlock(self, vertex):
        self.window.Sync()
        self._swap(vertex, self._mine, self._free)

    def _swap(self, vertex, expected, wanted):
        """Put `wanted` into the lock word where it is `expected`; return what it was."""
        rank, i = self._place[vertex]
        self.window.Compare_and_swap(wanted, expected, self._found, rank, self._starts[rank] + 64 * i)
        self.window.Flush(rank)
        return int(self._found[0])

    def take(self, vertices):
        far = [vertex for vertex in vertices if vertex not in self._live]
        while len(self._copies) < len(far):
            self._copies.append(torch.empty(self.d, dtype=self._dtype))
        copies = dict(zip(far, self._copies))
        self._move(self.window.Get, copies)
        return [self._live[vertex] if vertex in self._live else copies[vertex] for vertex in vertices]

    def give(self, vertices, rows):
        self._move(self.window.Put, {vertex: row for vertex, row in zip(vertices, rows) if vertex not in self._live})

    def _move(self, way, copies):
        for vertex, row in copies.items():
            rank, i = self._place[vertex]
            at = self._starts[rank] + self._heads[rank] + i * self._row
            way([mpi().buffer.fromaddress(row.data_ptr(), self._row), self.d, self._element], rank, (at, self.d, self._element))
        for rank in {self._place[vertex][0] for vertex in copies}:
            self.window.Flush(rank)

    def close(self):
        self.world.barrier()
        self._live = None
        self.window.Unlock_all()
        self.window.Free()
