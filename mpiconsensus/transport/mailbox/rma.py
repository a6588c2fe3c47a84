"""Rows in one-sided windows, taken by those who read them: pull alone, which progresses while the owner computes.

The owner publishes by stores into its own window. A reader takes the version by an atomic operation, Gets the row and
what the head says of it, and takes the version again: the row counts if fewer than two versions have passed.
"""

import time

import numpy as np
import torch

from mpiconsensus.runtime import mpi
from mpiconsensus.transport.mailbox.base import SLOTS, Letter
from mpiconsensus.transport.mailbox.board import CLOCK, DIED, PAGE, VERSION, Board, entry
from mpiconsensus.transport.messages import element
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import LOOK_UP_S, poll

FLAGS_S = 0.05  # how often the flags are asked for
FLAGS_AT = 64  # of rank 0's part: on a cache line of its own


class Kept:
    """The last rows taken of a vertex on another rank: version v in buffer v mod 2, so that two in a row are there."""

    def __init__(self, d, dtype):
        self.rows = [torch.empty(d, dtype=dtype) for _ in range(2)]
        self.letters = [None, None]

    def find(self, version):
        letter = self.letters[version % 2]
        return letter if letter and letter.version == version else None


class Rma(Board):
    """A window over all ranks, open for the whole run; what a rank takes serves all vertices that it hosts.

    memory: the part of this rank, a memoryview, where it was allocated elsewhere; None: the window's own.
    """

    name = "rma"
    stream = True

    def __init__(self, world, placement, d, dtype, device="cpu", readers=None, memory=None):
        super().__init__(world, placement, d, dtype, device, readers)
        MPI, size = mpi(), self.part(world.rank).size
        if memory is None:
            self.window = MPI.Win.Allocate(size + PAGE, 1, comm=world.comm)
            memory = self.window.tomemory().cast("B")
            skip = -self.window.Get_attr(MPI.WIN_BASE) % PAGE  # libraries need not start at a page
            memory = memory[skip : skip + size]
            self.lay(world.rank, memory)
        else:
            self.window, skip = MPI.Win.Create(memory, 1, comm=world.comm), 0
        self._starts = world.comm.allgather(skip)
        self.window.Lock_all(MPI.MODE_NOCHECK)
        self._sync, self._memory = self.window.Sync, memory
        self._element = element(dtype.itemsize)
        self._place = {v: (rank, i) for rank in range(world.size) for i, v in enumerate(placement.hosted_by(rank))}
        self._parts = [self.part(rank) for rank in range(world.size)]
        self._kept, self._taken = {}, 0
        self._word, self._nothing, self._noted = (np.zeros(length, np.int64) for length in (1, 1, 2))
        self._flags, self._seen, self._asked, self._asked_s = 0, np.zeros(1, np.int64), None, -FLAGS_S
        memory[FLAGS_AT : FLAGS_AT + 8].cast("q")[0] = 0
        self._sync()
        self._peers = Peers(world, DIED)
        world.barrier()

    def publish(self, i, clock):
        super().publish(i, clock)
        self.serve()

    def serve(self):
        """Let MPI do what other nodes ask of this rank, where it does so only when it is called; it may yield the core."""
        if self.world.nodes > 1:
            self.world.comm.Iprobe()

    def clock(self, vertex, reader):
        return super().clock(vertex, reader) if vertex in self.heads else self._fetch(vertex, CLOCK)

    def peek(self, vertex, reader, at_most=None):
        if vertex in self.heads:
            return super().peek(vertex, reader, at_most)
        while (newest := self._fetch(vertex, VERSION)) >= 0:
            letter = self._take(vertex, newest)
            if letter and at_most is not None and letter.clock > at_most:
                if newest == 0:
                    return None
                letter = self._take(vertex, newest - 1)
                if letter and letter.clock > at_most:
                    return None
            if letter:
                return letter
        return None

    def _take(self, vertex, version):
        """Return the Letter of a version, taken from its owner where it is not kept; None where it was overwritten meanwhile."""
        kept = self._kept.get(vertex)
        if kept is None:
            kept = self._kept[vertex] = Kept(self.d, self.dtype)
        letter = kept.find(version)
        if letter:
            return letter
        MPI, row = mpi(), kept.rows[version % 2]
        kept.letters[version % 2] = None
        rank, i = self._place[vertex]
        at = self._starts[rank] + self._parts[rank].row_at(i, version % SLOTS)
        message = MPI.buffer.fromaddress(row.data_ptr(), self.d * self.dtype.itemsize)
        self.window.Get([message, self.d, self._element], rank, (at, self.d, self._element))
        self.window.Get([self._noted, 2, MPI.INT64_T], rank, (self._word_at(vertex, entry(version)), 2, MPI.INT64_T))
        self.window.Flush(rank)
        if self._fetch(vertex, VERSION) - version >= 2:
            return None
        self._taken += 1
        self.rows_wire += 1
        clock, stamp = int(self._noted[0]), float(self._noted.view(np.float64)[1])
        letter = kept.letters[version % 2] = Letter(vertex, version, clock, stamp, row)
        return letter

    def take_count(self):
        """Return and clear the number of rows taken since the last call."""
        taken, self._taken = self._taken, 0
        return taken

    def _word_at(self, vertex, word):
        rank, i = self._place[vertex]
        return self._starts[rank] + self._parts[rank].head_at(i) + 8 * word

    def _fetch(self, vertex, word):
        """Return a word of the head of a vertex, read by an atomic operation."""
        rank = self._place[vertex][0]
        self.window.Fetch_and_op(self._nothing, self._word, rank, self._word_at(vertex, word), mpi().NO_OP)
        self.window.Flush(rank)
        return int(self._word[0])

    def intact(self, letters):
        own = [letter for letter in letters if letter.vertex in self.heads]
        return super().intact(own) and all(
            self._kept[letter.vertex].find(letter.version) for letter in letters if letter.vertex not in self.heads
        )

    def wait(self, wanted, seconds, flags=None):
        flags = self.flags() if flags is None else flags
        late, looked_s = dict(wanted), time.monotonic()

        def there():
            for vertex in [vertex for vertex, clock in late.items() if self.clock(vertex, None) >= clock]:
                del late[vertex]
            return not late

        def stop():
            nonlocal looked_s
            if time.monotonic() - looked_s > LOOK_UP_S:
                self._peers.check({int(self.placement.owner[vertex]) for vertex in late})
                looked_s = time.monotonic()
            return self.flags() & ~flags

        return poll(there, seconds, stop)

    def raise_flag(self, bits):
        # Not Fetch_and_op with BOR: Open MPI 5.0.11 loses it, and says nothing, in windows over memory of one's own.
        before, after = np.array([self._flags], np.int64), np.zeros(1, np.int64)
        while True:
            after[0] = before[0] | bits
            self.window.Compare_and_swap(after, before, self._word, 0, self._starts[0] + FLAGS_AT)
            self.window.Flush(0)
            if self._word[0] == before[0]:
                break
            before[0] = self._word[0]
        self._flags |= int(after[0])

    def lower_flags(self, bits):
        if self._asked:
            self._asked.Wait()
            self._asked = None
        self.world.barrier()
        if self.world.rank == 0:
            self._memory[FLAGS_AT : FLAGS_AT + 8].cast("q")[0] &= ~bits
            self._sync()
        self._flags &= ~bits
        self.world.barrier()

    def flags(self):
        self.serve()
        # Bits only come: a word that is read while it changes has those of before, and no answer is waited for.
        if self._asked is None and time.monotonic() - self._asked_s > FLAGS_S:
            self._asked_s = time.monotonic()
            self._asked = self.window.Rget([self._seen, 1, mpi().INT64_T], 0, (self._starts[0] + FLAGS_AT, 1, mpi().INT64_T))
        if self._asked and self._asked.Test():
            self._flags |= int(self._seen[0])
            self._asked = None
        return self._flags

    def close(self):
        if self._asked:
            self._asked.Wait()
        self.world.barrier()
        super().close()
        self._memory = self._kept = None
        self.window.Unlock_all()
        self.window.Free()
