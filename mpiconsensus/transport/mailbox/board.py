"""Rows and their heads in memory that readers can load from: publishing, and reading in place.

A head is 16 words of 8 bytes: the newest version, its clock, and for each buffer the clock and the stamp of the version
in it. The owner alone writes it: first the buffer's words, then the version, then the clock, which wakes who waits.
"""

import numpy as np
import torch

from mpiconsensus.transport.mailbox.base import SLOTS, Letter, Mailbox
from mpiconsensus.transport.mailbox.clock import Clock
from mpiconsensus.transport.waiting import Counter

PAGE = 4096
HEAD_BYTES = 128  # two cache lines: heads of different vertices share none
VERSION, CLOCK, ENTRIES = 0, 1, 8  # words of a head
DIED = "while others waited for its row"


class Part:
    """Where things lie in the memory of a rank with `count` vertices, in bytes: a page for the rank, heads, three blocks of rows."""

    def __init__(self, count, d, itemsize):
        self.row = d * itemsize
        self.rows = PAGE + -(-count * HEAD_BYTES // PAGE) * PAGE
        self.block = -(-count * self.row // PAGE) * PAGE
        self.size = self.rows + SLOTS * self.block

    def head_at(self, i):
        return PAGE + i * HEAD_BYTES

    def row_at(self, i, slot):
        return self.rows + slot * self.block + i * self.row


class Head:
    """The head of a vertex, read and written in place; `memory` is its HEAD_BYTES bytes."""

    def __init__(self, memory):
        self.words, self.stamps = memory.cast("q"), memory.cast("d")
        self.clock = Counter(self.words[CLOCK : CLOCK + 1])

    def clear(self):
        self.words[VERSION], self.words[CLOCK] = -1, -2

    def note(self, version, clock, stamp):
        at = entry(version)
        self.words[at], self.stamps[at + 1] = clock, stamp

    def noted(self, version):
        """Return (clock, stamp) of a version that was newest or the one before it."""
        at = entry(version)
        return self.words[at], self.stamps[at + 1]


def entry(version):
    """Return the word of a head that holds the clock of a version; its stamp is in the next one."""
    return ENTRIES + 2 * (version % SLOTS)


class Board(Mailbox):
    """A mailbox whose own rows, and those of some other ranks, lie in memory that is read in place.

    heads: {vertex: Head}, rows_at: {vertex: its SLOTS rows}, of the vertices that can be read so.
    """

    def __init__(self, world, placement, d, dtype, device="cpu", readers=None):
        super().__init__(world, placement, d, dtype, device, readers)
        self.heads, self.rows_at = {}, {}
        self._version = [-1] * len(placement.hosted)
        self._time = Clock(world)
        self._sync = _nothing  # orders stores and loads; between processes the window's

    def part(self, rank):
        return Part(self.placement.counts[rank], self.d, self.dtype.itemsize)

    def lay(self, rank, memory):
        """Make the vertices of `rank`, whose part this writable memoryview of bytes is, readable in place; clear one's own."""
        part, count, own = self.part(rank), self.placement.counts[rank], rank == self.world.rank
        if own:
            self._mine = []
            for slot in range(SLOTS):
                rows = torch.frombuffer(memory, dtype=self.dtype, count=count * self.d, offset=part.row_at(0, slot))
                self._mine.append(rows.view(count, self.d).zero_())
        for i, vertex in enumerate(self.placement.hosted_by(rank)):
            at = part.head_at(i)
            self.heads[vertex] = Head(memory[at : at + HEAD_BYTES])
            self.rows_at[vertex] = [
                torch.frombuffer(memory, dtype=self.dtype, count=self.d, offset=part.row_at(i, slot)) for slot in range(SLOTS)
            ]
            if own:
                self.heads[vertex].clear()

    def storage(self):
        return self._mine

    def now(self):
        return self._time()

    def publish(self, i, clock):
        vertex, version = self.placement.hosted[i], self._version[i] + 1
        head = self.heads[vertex]
        if self.rows.current[i] != version % SLOTS or clock <= head.clock.value:
            raise RuntimeError(
                f"vertex {vertex} published clock {clock} from buffer {self.rows.current[i]} after {head.clock.value}: "
                "clocks rise, and a vertex flips once between two publications"
            )
        self._version[i] = version
        head.note(version, clock, self.now())
        self._sync()
        head.words[VERSION] = version
        self._sync()
        head.clock.raise_to(clock)
        self.bytes_sent[i] += len(self.readers.get(vertex, ())) * self.d * self.dtype.itemsize

    def clock(self, vertex, reader):
        return self.heads[vertex].clock.value

    def peek(self, vertex, reader, at_most=None):
        head = self.heads[vertex]
        newest = head.words[VERSION]
        while newest >= 0:
            self._sync()
            letter = self._letter(head, vertex, newest, at_most)
            self._sync()
            seen, newest = newest, head.words[VERSION]
            if newest == seen:
                self.rows_wire += letter is not None and self.placement.owner[vertex] != self.world.rank
                return letter
        return None

    def _letter(self, head, vertex, newest, at_most):
        for version in range(newest, max(-1, newest - 2), -1):
            clock, stamp = head.noted(version)
            if at_most is None or clock <= at_most:
                return Letter(vertex, version, clock, stamp, self.rows_at[vertex][version % SLOTS])
        return None

    def intact(self, letters):
        self._sync()
        return all(self.heads[letter.vertex].words[VERSION] - letter.version < 2 for letter in letters)

    def close(self):
        self.heads = self.rows_at = self._mine = self.rows = None


def aligned(size):
    """Return a memoryview of so many zeroed bytes of this process, at the start of a page."""
    memory = np.zeros(size + PAGE, np.uint8)
    skip = -memory.ctypes.data % PAGE
    return memoryview(memory)[skip : skip + size]


def _nothing():
    pass
