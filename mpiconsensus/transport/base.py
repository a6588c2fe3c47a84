"""The synchronous transport contract: one round moves rows over the edges of a graph.

A transport moves rows, the mixer applies W, the algorithm decides when. Every rank calls start, finish and release
for every round of the schedule, in the same order, whether or not its vertices take part.
"""

import time
import weakref
from abc import ABC, abstractmethod
from operator import itemgetter

import torch

from mpiconsensus.pieces import pieces
from mpiconsensus.transport.memory import zeros

KEPT = 16  # sums a round: one for each choice of the buffers that their rows stand in


class Part:
    """What of a round is a rank's own: found once, since a round of short rows is over in the time that it takes to find it.

    written: indices of the hosted vertices whose rows the round writes. standing(sides) -> where the rows lie that it reads and
    writes here; sums: {standing: mixing.Sums}, whose rows lie in the same places whenever the round comes.
    """

    def __init__(self, round_, placement):
        index = placement.index
        self.written = [index[vertex] for vertex in round_.vertices if vertex in index]
        touched = {j for vertex in round_.vertices if vertex in index for j in (vertex, *round_.sources[vertex])}
        self.standing = itemgetter(*sorted(touched)) if touched else lambda sides: None
        self.sums = {}

    def keep(self, standing, sums):
        if len(self.sums) == KEPT:
            self.sums.clear()
        self.sums[standing] = sums


class Exchange(ABC):
    """Rows of the hosted vertices, readable by the ranks that a round says.

    start(round): the rows that are current may be read from here on; those buffers must not be written before release.
    finish() -> function from a vertex that a hosted row needs to the pieces of the row it started the round with;
    waits for the late ones. A row lies at one place a vertex and side as long as the exchange is open.
    writable(i): waits until the buffer that the round writes for hosted vertex i is read by nobody any more.
    release(): the rows handed out are done with.
    flip(vertices, indices): these vertices, hosted or not, go on in their next buffer; indices: the hosted ones among them.
    Collective in meaning, none of them a barrier. One round is under way at a time.

    depth: buffers a vertex. side: n numbers, the buffer that each vertex stands in, followed alike by all ranks.
    rows_received, rows_sent: rows moved between ranks so far. waits: how often finish had to wait for a late rank.
    hidden_s: seconds of the last round that passed between start and finish while rows were under way.
    started_s: when the round was started, on the monotonic clock. links: links.Links, where links are emulated.
    stream: whether a round writes its rows past the caches, since other processes read them where they lie.
    """

    name = ""
    links = None
    stream = False

    def __init__(self, world, placement, d, dtype, device="cpu", depth=2):
        self.world, self.placement, self.d, self.dtype, self.depth = world, placement, d, dtype, depth
        self.device = torch.device(device)
        self.side = [0] * placement.n
        self.block = None
        self.rows_received = self.rows_sent = self.waits = 0
        self.hidden_s = 0.0
        self._pieces, self._parts = {}, weakref.WeakKeyDictionary()

    @property
    def title(self):
        """What a reader is told moves the rows."""
        return self.name

    def storage(self):
        """Return the (m, d) arrays for a Block, `depth` of them; in memory that this transport can hand to others."""
        return list(zeros((self.depth, len(self.placement.hosted), self.d), self.dtype, self.device))

    def bind(self, block):
        """Exchange the rows of `block`, whose storage came from here."""
        self.block = block
        self._parts.clear()

    def part(self, round_):
        """Return the Part of a round."""
        part = self._parts.get(round_)
        if part is None:
            part = self._parts[round_] = Part(round_, self.placement)
        return part

    def start(self, round_):
        self.round, self.started_s = round_, time.monotonic()
        self.sides = self.side.copy()

    @abstractmethod
    def finish(self):
        """Wait for the rows of the round and return the function from a vertex to the pieces of its row."""

    def arrive(self):
        """Finish the round, when its rows have come over the emulated links where there are some."""
        return self.links.finish(self) if self.links else self.finish()

    def writable(self, i):
        pass

    def release(self):
        pass

    def flip(self, vertices, indices):
        side, last, block = self.side, self.depth - 1, self.block
        for vertex in vertices:
            side[vertex] = side[vertex] + 1 if side[vertex] < last else 0
        for i in indices:
            block.flip(i)

    def take_counts(self):
        """Return and clear (rows_received, rows_sent)."""
        taken = self.rows_received, self.rows_sent
        self.rows_received = self.rows_sent = 0
        return taken

    def hosted_row(self, vertex):
        """Return the pieces of the row that a hosted vertex started the round with."""
        side = self.sides[vertex]
        if (vertex, side) not in self._pieces:
            self._pieces[vertex, side] = pieces(self.block.storage[side][self.placement.index[vertex]])
        return self._pieces[vertex, side]

    def close(self):
        """Free what was allocated; collective. The rows are gone afterwards."""
