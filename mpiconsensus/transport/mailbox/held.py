"""Emulated links between vertices: a row that was published is seen once its link's delay has passed, over any mailbox.

The reader holds: whenever its rank looks (between gradients, and every few milliseconds while its vertices rest or wait) it copies
what its neighbours have published, and hands it out when stamp + delay(sender, reader, bytes) has come, on the clock that all
ranks share. A mailbox keeps the last two rows of a vertex: of one that publishes more than that while a rank computes, those
in between are never seen, as if they had been overtaken.
"""

import time

import torch

from mpiconsensus.transport.mailbox.base import Mailbox

OFTEN_S = 1e-3  # between two looks at everybody whom this rank reads
NAP_S = 2e-3


class Held(Mailbox):
    """`inner` with its rows and clocks held back; delay(vertex, reader, nbytes) -> seconds, as hetero.Pace.delay."""

    def __init__(self, inner, delay):
        super().__init__(inner.world, inner.placement, inner.d, inner.dtype, inner.device, inner.readers)
        self.inner, self.name, self.stream, self.bytes_sent = inner, inner.name, inner.stream, inner.bytes_sent
        hosted = set(inner.placement.hosted)
        self._readers = {v: sorted(hosted & set(readers)) for v, readers in inner.readers.items() if hosted & set(readers)}
        nbytes = inner.d * inner.dtype.itemsize
        self._delays = {(v, r): delay(v, r, nbytes) for v, readers in self._readers.items() for r in readers}
        self._longest = {v: max(self._delays[v, r] for r in readers) for v, readers in self._readers.items()}
        self._kept = {v: [] for v in self._readers}  # copies, oldest first
        self._spare, self._looked_s = [], 0.0

    @property
    def title(self):
        return f"{self.inner.title}, links emulated"

    @property
    def unheld(self):
        return self.inner.unheld

    def storage(self):
        return self.inner.storage()

    def bind(self, rows):
        super().bind(rows)
        self.inner.bind(rows)

    def now(self):
        return self.inner.now()

    def publish(self, i, clock):
        self.inner.publish(i, clock)
        vertex = self.placement.hosted[i]
        if vertex in self._readers:
            self._copy(vertex)

    def clock(self, vertex, reader):
        letter = self.peek(vertex, reader)
        return letter.clock if letter else -2

    def peek(self, vertex, reader, at_most=None):
        self._copy(vertex)
        latest = self.now() - self._delays[vertex, reader]
        for letter in reversed(self._kept[vertex]):
            if letter.stamp <= latest and (at_most is None or letter.clock <= at_most):
                return letter
        return None

    def intact(self, letters):
        return all(any(kept is letter for kept in self._kept[letter.vertex]) for letter in letters)

    def wait(self, wanted, seconds):
        """As Mailbox.wait, but for what is under way: it returns early, and nobody says when a row arrives."""
        if all(self.inner.clock(vertex, self._readers[vertex][0]) >= clock for vertex, clock in wanted.items()):
            time.sleep(min(seconds, NAP_S))
        else:
            self.inner.wait(wanted, seconds)
        return all(self.clock(vertex, reader) >= clock for vertex, clock in wanted.items() for reader in self._readers[vertex])

    def raise_flag(self, bits):
        self.inner.raise_flag(bits)

    def lower_flags(self, bits):
        self.inner.lower_flags(bits)

    def flags(self):
        if time.monotonic() - self._looked_s > OFTEN_S:
            for vertex in self._readers:
                self._copy(vertex)
            self._looked_s = time.monotonic()
        return self.inner.flags()

    def _copy(self, vertex):
        """Copy what `vertex` has published since the last look, and drop what two later rows have overtaken at every reader."""
        kept, reader = self._kept[vertex], self._readers[vertex][0]
        while (newest := self.inner.peek(vertex, reader)) is not None:
            last = kept[-1].version if kept else -1
            if newest.version == last:
                break
            before = self.inner.peek(vertex, reader, newest.clock - 1) if newest.version - last > 1 else None
            for letter in (before, newest):
                if letter and letter.version > last:
                    row = self._spare.pop() if self._spare else torch.empty(self.d, dtype=self.dtype, device=self.device)
                    row.copy_(letter.row)
                    if self.inner.intact([letter]):
                        kept.append(letter._replace(row=row))
                    else:
                        self._spare.append(row)
        arrived = self.now() - self._longest[vertex]
        while len(kept) > 2 and kept[2].stamp <= arrived:
            self._spare.append(kept.pop(0).row)

    def close(self):
        self._kept, self._spare, self.rows = {}, [], None
        self.inner.close()
