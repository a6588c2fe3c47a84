"""Rows on a GPU over any mailbox: published through host memory, and copied up by who reads. Not verified on a GPU."""

import torch

from mpiconsensus.block import Rows
from mpiconsensus.transport.device import Staging
from mpiconsensus.transport.mailbox.base import SLOTS, Mailbox


class Staged(Mailbox):
    """`inner` is a mailbox of host rows. A vertex publishes by a copy of its row into them; a row that is read lies on the device.

    The copies are ordered as in transport.device.Staging; of each vertex that is read the last two versions are kept.
    """

    def __init__(self, inner, device):
        super().__init__(inner.world, inner.placement, inner.d, inner.dtype, device, inner.readers)
        self.inner, self.name = inner, inner.name
        self.bytes_sent = inner.bytes_sent
        self._host = Rows(inner.storage())
        inner.bind(self._host)
        self._first = [True] * self._host.m
        self._staging = Staging(self.device)
        self._kept = {}  # vertex -> two letters, version v at v mod 2, and their rows on the device

    @property
    def title(self):
        return f"{self.inner.title}, through host memory"

    def storage(self):
        shape = (self._host.m, self.d)
        return [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in range(SLOTS)]

    def now(self):
        return self.inner.now()

    def publish(self, i, clock):
        if not self._first[i]:
            self._host.flip(i)
        self._first[i] = False
        self._staging.down([(self._host.x(i), self.rows.x(i))])
        self.inner.publish(i, clock)

    def clock(self, vertex, reader):
        return self.inner.clock(vertex, reader)

    def peek(self, vertex, reader, at_most=None):
        letters, rows = self._kept.setdefault(vertex, ([None, None], [None, None]))
        while (letter := self.inner.peek(vertex, reader, at_most)) is not None:
            side = letter.version % 2
            if letters[side] and letters[side].version == letter.version:
                return letters[side]
            if rows[side] is None:
                rows[side] = torch.empty(self.d, dtype=self.dtype, device=self.device)
            letters[side] = None
            self._staging.up([(letter.row, rows[side])])
            self._staging.settle()
            if self.inner.intact([letter]):
                letters[side] = letter._replace(row=rows[side])
                return letters[side]
        return None

    def intact(self, letters):
        return all(
            kept is not None and kept.version == letter.version
            for letter in letters
            for kept in [self._kept[letter.vertex][0][letter.version % 2]]
        )

    def wait(self, wanted, seconds):
        return self.inner.wait(wanted, seconds)

    def raise_flag(self, bits):
        self.inner.raise_flag(bits)

    def lower_flags(self, bits):
        self.inner.lower_flags(bits)

    def flags(self):
        return self.inner.flags()

    def close(self):
        self.rows = self._host = self._kept = None
        self.inner.close()
