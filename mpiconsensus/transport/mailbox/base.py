"""The asynchronous transport contract: a vertex publishes its row, others read the newest one that has arrived.

Nobody waits for a peer, but for what a staleness bound asks. A row is never torn: version v lies in buffer v mod 3 where
it was published, while the vertex works in the next one, so that of three buffers one is written at most, the one
published three versions ago. Who read a row in place asks behind it whether fewer than two versions have passed since
(`intact`).
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch

SLOTS = 3  # the newest row, the one before it, and the one that is written next


class Letter(NamedTuple):
    """A row that was read. version: publications of the vertex before this one; clock: as published; stamp: when, in
    seconds of `Mailbox.now`; row: the (d,) tensor, not to be written, valid as long as `Mailbox.intact` says so.
    """

    vertex: int
    version: int
    clock: int
    stamp: float
    row: torch.Tensor


class Mailbox(ABC):
    """Rows of all vertices, published by the ranks that host them. Making and closing one is collective; nothing else is, but `lower_flags`.

    Rows: a block.Rows or Block over `storage()`; its current row of hosted vertex i is where the vertex works.
    readers: {vertex: vertices that read it}. bytes_sent: (m,) bytes that the hosted vertices published, once for each
    reader; rows_wire: rows that this rank took from other ranks. stream: whether rows are best written past the caches, since
    others read them where they lie.
    """

    name = ""
    stream = False

    def __init__(self, world, placement, d, dtype, device="cpu", readers=None):
        self.world, self.placement, self.d, self.dtype = world, placement, d, dtype
        self.device = torch.device(device)
        self.readers = readers or {}
        self.rows = None
        self.bytes_sent = np.zeros(len(placement.hosted), np.int64)
        self.rows_wire = 0

    @property
    def title(self):
        """What a reader is told moves the rows."""
        return self.name

    @property
    def unheld(self):
        """The mailbox without what emulated links hold back."""
        return self

    @abstractmethod
    def storage(self):
        """Return SLOTS arrays (m, d) for a Rows or Block, in memory that this transport can hand to others."""

    def bind(self, rows):
        """Publish from these rows, whose storage came from here."""
        self.rows = rows

    @abstractmethod
    def now(self):
        """Return the seconds since the mailbox was opened, on a clock that all ranks share (offsets measured at the start)."""

    @abstractmethod
    def publish(self, i, clock):
        """Make the current row of hosted vertex i visible with `clock`, an int that rises with every publication.

        From here on that buffer stays as it is: the vertex writes its next row elsewhere (mixing into rows.other(i), or a
        copy) and calls rows.flip(i), once, before it publishes again. A RuntimeError where it has not, or flipped twice.
        """

    @abstractmethod
    def clock(self, vertex, reader):
        """Return the newest clock of `vertex` that has arrived at hosted vertex `reader`; -2 where none has.

        A peek behind it finds the row of this clock, or of a later one.
        """

    @abstractmethod
    def peek(self, vertex, reader, at_most=None):
        """Return the Letter with the newest row of `vertex` that has arrived at `reader` and whose clock is at most `at_most`.

        None where there is none (any more: a vertex keeps its last two). Never waits for the other; a row that was
        overwritten while it was read is read again.
        """

    def letters(self, vertices, reader, at_most=None):
        """Return what `peek` finds of each of `vertices`, without those of whom it finds nothing."""
        return [letter for vertex in vertices if (letter := self.peek(vertex, reader, at_most))]

    @abstractmethod
    def intact(self, letters):
        """Return whether the rows of these letters were still what they were, up to this call."""

    @abstractmethod
    def wait(self, wanted, seconds):
        """Return when each vertex of `wanted` {vertex: clock} has published that clock or a later one, a flag has changed,
        or `seconds` have passed; return whether the clocks are there. Raise TrainingError where one that is waited for died.
        """

    @abstractmethod
    def raise_flag(self, bits):
        """Set these bits of the one word that all ranks share; they stay until all lower them."""

    @abstractmethod
    def lower_flags(self, bits):
        """Clear these bits everywhere; collective: no rank raises one while another is in here."""

    @abstractmethod
    def flags(self):
        """Return the word of flags; cheap enough for every step (on other nodes: as of a fraction of a second ago)."""

    def close(self):
        """Free what was allocated; collective. The rows are gone afterwards."""
