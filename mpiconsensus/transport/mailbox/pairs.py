"""Rows that anyone may change while holding them: what atomic averages of pairs need.

Whoever holds several vertices locks them in ascending order of their numbers, so that no circle of waiting can close,
whatever the graph. A process holds one set at a time: its threads take turns.
"""

import os
import tempfile
import threading
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_UN, lockf

import numpy as np
import torch

from mpiconsensus.errors import TrainingError
from mpiconsensus.runtime import mpi
from mpiconsensus.transport.mailbox.board import PAGE, aligned
from mpiconsensus.transport.mailbox.words import Words


class Pairs:
    """A row (d,) a vertex, readable and writable by all ranks under its lock; collective to make and to close.

    bytes_sent: (m,) of the pairs that the hosted vertices have asked for, the first named: a row there and one back.
    delay(i, j, nbytes) -> seconds of emulated links: a pair costs who asks for it the way there and back, see `spent`.

    In a node rows are live tensors in shared memory and locks are those of a file, which the kernel takes back from a process
    that dies; between nodes see words.Words: rows are copies, written back behind the block, but for one's own.
    """

    def __init__(self, world, placement, d, dtype, delay=None):
        self.placement, self.row_bytes = placement, d * dtype.itemsize
        self._delay, self._spent = delay or (lambda i, j, nbytes: 0.0), 0.0
        self.bytes_sent = np.zeros(len(placement.hosted), np.int64)
        self._turn = threading.Lock()
        if world.comm is None:
            self._rows = OneProcess(world, placement, d, dtype)
        else:
            self._rows = (OneNode if world.nodes == 1 else Words)(world, placement, d, dtype)

    def rows(self, i):
        """Return the live row of hosted vertex i, (d,), to be read and written while it is held."""
        return self._rows.own(i)

    @contextmanager
    def hold(self, *vertices):
        """Hold these different vertices: with pairs.hold(v, w) as (row_v, row_w). Not to be nested.

        Waits for those who hold them. TrainingError where one of them died in the middle of a change.
        """
        ordered = sorted(vertices)
        with self._turn:
            held = []
            try:
                for vertex in ordered:
                    self._rows.lock(vertex)
                    held.append(vertex)
                taken = dict(zip(ordered, self._rows.take(ordered), strict=True))
                yield tuple(taken[vertex] for vertex in vertices)
                self._rows.give(ordered, [taken[vertex] for vertex in ordered])
                if len(vertices) == 2 and vertices[0] in self.placement.index:
                    self._spent += sum(self._delay(*ends, self.row_bytes) for ends in (vertices, vertices[::-1]))
                    self.bytes_sent[self.placement.index[vertices[0]]] += 2 * self.row_bytes
            finally:
                for vertex in held:
                    self._rows.unlock(vertex)

    def spent(self):
        """Return and clear the seconds that rows of pairs are under way over emulated links; nobody is locked meanwhile."""
        spent, self._spent = self._spent, 0.0
        return spent

    def read(self, vertex, out):
        """Copy the row of any vertex into `out`, which may be shorter; held meanwhile."""
        with self._turn:
            self._rows.lock(vertex)
            try:
                out.copy_(self._rows.take([vertex])[0][: len(out)])
            finally:
                self._rows.unlock(vertex)

    def close(self):
        """Free what was allocated; collective. The rows are gone afterwards."""
        self._rows.close()


class OneProcess:
    """All vertices in this process: the turn that threads take is all that is needed."""

    def __init__(self, world, placement, d, dtype):
        self.hosted, self.rows = placement.hosted, {}
        self._lay(world.rank, aligned(placement.n * d * dtype.itemsize), placement, d, dtype)

    def _lay(self, rank, memory, placement, d, dtype):
        for i, vertex in enumerate(placement.hosted_by(rank)):
            self.rows[vertex] = torch.frombuffer(memory, dtype=dtype, count=d, offset=i * d * dtype.itemsize)

    def own(self, i):
        return self.rows[self.hosted[i]]

    def lock(self, vertex):
        pass

    def take(self, vertices):
        return [self.rows[vertex] for vertex in vertices]

    def give(self, vertices, rows):
        pass

    def unlock(self, vertex):
        pass

    def close(self):
        self.rows = None


class OneNode(OneProcess):
    """Rows in a window of the node. The lock of vertex v is byte v of a file that has no name any more.

    marks: a word a vertex: who is changing it, rank + 1, or 0. A lock that comes with the mark of another was that rank's, which died.
    """

    def __init__(self, world, placement, d, dtype):
        MPI = mpi()
        self.world, self.hosted, self.rows, self.marks = world, placement.hosted, {}, {}
        counts, row = placement.counts, d * dtype.itemsize
        heads = [-(-8 * count // PAGE) * PAGE for count in counts]
        size = heads[world.rank] + -(-counts[world.rank] * row // PAGE) * PAGE
        info = MPI.Info.Create({"alloc_shared_noncontig": "true"})
        self.window = MPI.Win.Allocate_shared(size, 1, info, world.node_comm)
        info.Free()
        self.window.Lock_all(MPI.MODE_NOCHECK)
        for number, rank in enumerate(world.node_comm.allgather(world.rank)):
            memory = memoryview(self.window.Shared_query(number)[0]).cast("B")
            words = memory[: heads[rank]].cast("q")
            self.marks.update({v: words[i : i + 1] for i, v in enumerate(placement.hosted_by(rank))})
            self._lay(rank, memory[heads[rank] :], placement, d, dtype)
        for vertex in placement.hosted:
            self.marks[vertex][0] = 0
            self.rows[vertex].zero_()
        self._file = self._open()
        self.window.Sync()
        world.barrier()

    def _open(self):
        """Return a file that all ranks have opened and nobody else can; collective."""
        path = None
        if self.world.rank == 0:
            handle, path = tempfile.mkstemp(prefix="mpiconsensus-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
            os.close(handle)
        path = self.world.bcast(path)
        file = open(path, "r+b")  # noqa: SIM115 - open as long as the rows are there
        self.world.barrier()
        if self.world.rank == 0:
            os.unlink(path)
        return file

    def lock(self, vertex):
        lockf(self._file, LOCK_EX, 1, vertex)
        self.window.Sync()
        holder = self.marks[vertex][0]
        if holder:
            lockf(self._file, LOCK_UN, 1, vertex)
            raise TrainingError(
                f"rank {holder - 1} (on {self.world.hosts[holder - 1]}) died while it changed the row of vertex {vertex}; the run ends here. "
                "Look for its last message above, or for the out-of-memory killer (dmesg)."
            )
        self.marks[vertex][0] = self.world.rank + 1

    def unlock(self, vertex):
        self.window.Sync()
        self.marks[vertex][0] = 0
        self.window.Sync()
        lockf(self._file, LOCK_UN, 1, vertex)

    def close(self):
        self.world.barrier()
        self.rows = self.marks = None
        self._file.close()
        self.window.Unlock_all()
        self.window.Free()
