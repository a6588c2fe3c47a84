"""Mailboxes and pairs of one process under a modelled clock: what is sent arrives later by a delay that the job describes.

Time is counted in whole nanoseconds, so that what happens at one moment does so exactly. Nothing is random but what is
lost, and that is a pure function of (seed, edge, version).
"""

import contextlib
from collections import deque
from typing import NamedTuple

import numpy as np
import torch

from mpiconsensus.randomness import generator
from mpiconsensus.transport.mailbox.base import SLOTS, Letter, Mailbox

NS = 10**9


def nanoseconds(seconds):
    return round(seconds * NS)


class Clock:
    """The modelled time, in nanoseconds since the start; an engine sets it."""

    def __init__(self):
        self.time = 0

    def now(self):
        """Return the seconds since the start."""
        return self.time / NS


class Version(NamedTuple):
    """A published row: everywhere: when it has arrived at all readers, whether or not it was lost on the way to some."""

    letter: Letter
    time: int
    everywhere: int


class VirtualMailbox(Mailbox):
    """Rows arrive delay(sender, reader, bytes) seconds behind their publication; with probability `loss` never.

    readers: {vertex: those that its rows and clocks go to}. Rows are copied when they are published, and kept until two
    later ones have arrived wherever they go.
    """

    name = "virtual"

    def __init__(self, world, placement, d, dtype, device="cpu", readers=None, delay=None, loss=0.0, seed=0):
        super().__init__(world, placement, d, dtype, device)
        self.readers = readers or {}
        self.virtual = Clock()
        self.loss, self.seed = loss, seed
        self.bytes_sent = np.zeros(placement.n, np.int64)
        self.row_bytes = d * dtype.itemsize
        self._delay = delay or (lambda i, j, nbytes: 0.0)
        self._delays, self._lost = {}, {}
        self._longest = [max((self.delay(v, r) for r in self.readers.get(v, ())), default=0) for v in range(placement.n)]
        self._sent = [self.row_bytes * len(self.readers.get(v, ())) for v in range(placement.n)]
        self._versions = [deque() for _ in range(placement.n)]
        self._count = [0] * placement.n
        self._spare = []
        self._flags = 0

    def now(self):
        return self.virtual.now()

    def storage(self):
        return [torch.zeros((self.placement.n, self.d), dtype=self.dtype, device=self.device) for _ in range(SLOTS)]

    def delay(self, vertex, reader):
        """Return the nanoseconds from a publication of `vertex` to its arrival at `reader`."""
        found = self._delays.get((vertex, reader))
        if found is None:
            found = self._delays[vertex, reader] = nanoseconds(self._delay(vertex, reader, self.row_bytes))
        return found

    def publish(self, i, clock):
        kept, time = self._versions[i], self.virtual.time
        while len(kept) > 2 and self._arrived_twice(i, kept):
            self._spare.append(kept.popleft().letter.row)
        row = self._spare.pop() if self._spare else torch.empty(self.d, dtype=self.dtype, device=self.device)
        row.copy_(self.rows.x(i))
        kept.append(Version(Letter(i, self._count[i], clock, time / NS, row), time, time + self._longest[i]))
        self._count[i] += 1
        self.bytes_sent[i] += self._sent[i]

    def clock(self, vertex, reader):
        letter = self.peek(vertex, reader)
        return letter.clock if letter else -2

    def peek(self, vertex, reader, at_most=None):
        latest = self.virtual.time - self.delay(vertex, reader)
        for version in reversed(self._versions[vertex]):
            letter, time, _ = version
            if time <= latest and (at_most is None or letter.clock <= at_most) and not (self.loss and self.lost(vertex, reader, letter.version)):
                return letter
        return None

    def letters(self, vertices, reader, at_most=None):
        if self.loss:
            return super().letters(vertices, reader, at_most)
        # As `peek`, in one loop: a thousand vertices do little else.
        now, found = self.virtual.time, []
        for vertex in vertices:
            latest = now - self.delay(vertex, reader)
            for letter, time, _ in reversed(self._versions[vertex]):
                if time <= latest and (at_most is None or letter.clock <= at_most):
                    found.append(letter)
                    break
        return found

    def arrives(self, vertex, reader, clock):
        """Return the time in nanoseconds at which the first row of `vertex` with `clock` or a later one is at `reader`; None: none was sent."""
        for version in self._versions[vertex]:
            if version.letter.clock >= clock and not (self.loss and self.lost(vertex, reader, version.letter.version)):
                return version.time + self.delay(vertex, reader)
        return None

    def settled(self):
        """Return the time in nanoseconds at which everything that was sent has arrived."""
        return max(version.everywhere for kept in self._versions for version in kept)

    def lost(self, vertex, reader, version):
        """Return whether a version is lost on its way; the first one, the initial row, never is."""
        if not self.loss or not version:
            return False
        key = vertex, reader, version
        if key not in self._lost:
            self._lost[key] = generator(self.seed, "loss", vertex * self.placement.n + reader, version).random() < self.loss
        return self._lost[key]

    def intact(self, letters):
        return True

    def wait(self, wanted, seconds):
        raise TypeError("under a modelled clock nobody waits: the engine looks up when rows arrive.")

    def raise_flag(self, bits):
        self._flags |= bits

    def lower_flags(self, bits):
        self._flags &= ~bits

    def flags(self):
        return self._flags

    def spent(self):
        """Return the nanoseconds that a vertex was kept by what it sent: none."""
        return 0

    def _arrived_twice(self, vertex, kept):
        """Whether two versions behind the oldest one have arrived at all readers."""
        now = self.virtual.time
        if kept[2].everywhere > now:
            return False
        if not self.loss:
            return True
        later = [version.letter.version for version in list(kept)[1:] if version.everywhere <= now]
        return all(sum(not self.lost(vertex, reader, v) for v in later) >= 2 for reader in self.readers.get(vertex, ()))


class VirtualPairs:
    """The rows that vertices average in pairs. A pair costs who asks for it the way there and back; in modelled time no two
    are averaged at once, so nobody is kept by a lock."""

    name = "virtual"

    def __init__(self, world, placement, d, dtype, device="cpu", delay=None):
        self.world, self.placement, self.d, self.dtype = world, placement, d, dtype
        self.virtual = Clock()
        self.now = self.virtual.now
        self.bytes_sent = np.zeros(placement.n, np.int64)
        self.row_bytes = d * dtype.itemsize
        self._delay = delay or (lambda i, j, nbytes: 0.0)
        self._rows = torch.zeros((placement.n, d), dtype=dtype, device=device).unbind(0)
        self._held = ()
        self._spent = 0

    def rows(self, i):
        """Return the row (d,) of hosted vertex i."""
        return self._rows[i]

    @contextlib.contextmanager
    def hold(self, *vertices):
        """Give the rows of one vertex or two, which nobody else changes meanwhile; the first is hosted, the second may be anywhere."""
        if self._held:
            raise RuntimeError(f"vertices {vertices} are locked while {self._held} are: who holds one lock may wait for no other")
        self._held = vertices
        try:
            yield tuple(self._rows[v] for v in vertices)
        finally:
            self._held = ()
        if len(vertices) == 2:
            there, back = (nanoseconds(self._delay(*ends, self.row_bytes)) for ends in (vertices, vertices[::-1]))
            self._spent += there + back
            self.bytes_sent[vertices[0]] += 2 * self.row_bytes

    def spent(self):
        """Return the nanoseconds that pairs took since the last call."""
        spent, self._spent = self._spent, 0
        return spent

    def settled(self):
        return self.virtual.time

    def close(self):
        self._rows = None
