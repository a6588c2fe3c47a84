"""Messages of any length between vertices: to all, or to the neighbours of a graph that stays.

A rank gets the messages of its vertices together, with their lengths ahead, once for each rank that needs them. Nothing is pickled.
"""

import numpy as np

from mpiconsensus.runtime import mpi
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import wait_until


class Packets:
    """Messages, uint8 arrays, of the hosted vertices; collective to make, to call and to close.

    sources: {vertex: the vertices that it hears}, for `to_neighbours`. wire_bytes: sent to other ranks so far, the lengths with them.
    """

    def __init__(self, world, placement, sources=None):
        self.world, self.placement, self.wire_bytes = world, placement, 0
        alone = world.size == 1
        self._comm, self._peers = (None, None) if alone else (world.comm.Dup(), Peers(world))
        self._sends, self._receives = {}, {}
        if alone or sources is None:
            return
        for rank in range(world.size):
            if rank != world.rank:
                self._sends[rank] = self._heard(sources, rank, world.rank)
                self._receives[rank] = self._heard(sources, world.rank, rank)

    def _heard(self, sources, listener, speaker):
        """Return the ascending vertices of rank `speaker` that those of `listener` hear."""
        owner = self.placement.owner
        return sorted({j for v in self.placement.hosted_by(listener) for j in sources[v] if owner[j] == speaker})

    def to_all(self, messages):
        """Return the n messages of all vertices, in their order; messages: of the m hosted ones."""
        if self._comm is None:
            return messages
        placement, ranks = self.placement, self.world.size
        counts = np.array(placement.counts)
        sizes = np.empty(placement.n, np.int64)
        mine = np.array([len(message) for message in messages], np.int64)
        self._comm.Allgatherv(mine, [sizes, counts])
        ends = np.cumsum(counts)
        of_rank = np.array([sizes[end - count : end].sum() for end, count in zip(ends, counts, strict=True)])
        together = np.empty(int(sizes.sum()), np.uint8)
        own = np.concatenate(messages)
        self._comm.Allgatherv(own, [together, of_rank])
        self.wire_bytes += (ranks - 1) * (own.nbytes + mine.nbytes)
        parts = np.split(together, np.cumsum(sizes)[:-1])
        ordered = [None] * placement.n
        for vertex, part in zip(placement.order.tolist(), parts, strict=True):
            ordered[vertex] = part
        return ordered

    def to_neighbours(self, messages):
        """Return {vertex: message} of the hosted vertices and of those that they hear; messages: of the m hosted ones."""
        found = dict(zip(self.placement.hosted, messages, strict=True))
        if self._comm is None:
            return found
        sending = [self._comm.Isend(self._joined(vertices, found), rank) for rank, vertices in self._sends.items() if vertices]
        missing = {rank: vertices for rank, vertices in self._receives.items() if vertices}

        def arrived():
            for rank in list(missing):
                message = self._comm.Improbe(rank, 0, status := mpi().Status())
                if message is not None:
                    whole = np.empty(status.Get_count(mpi().BYTE), np.uint8)
                    message.Recv(whole)
                    found.update(_parted(whole, missing.pop(rank)))
            return not missing

        wait_until(arrived, self.world.crowded, lambda: self._peers.check(list(missing)))
        wait_until(lambda: mpi().Request.Testall(sending), self.world.crowded, lambda: self._peers.check(list(self._sends)))
        return found

    def _joined(self, vertices, messages):
        lengths = np.array([len(messages[vertex]) for vertex in vertices], np.int64)
        whole = np.concatenate([lengths.view(np.uint8), *(messages[vertex] for vertex in vertices)])
        self.wire_bytes += whole.nbytes
        return whole

    def close(self):
        if self._comm is not None:
            self._comm.Free()


def _parted(whole, vertices):
    """Return {vertex: its message} of what `_joined` made."""
    lengths = whole[: 8 * len(vertices)].view(np.int64)
    ends = 8 * len(vertices) + np.cumsum(lengths)
    return {v: whole[end - length : end] for v, end, length in zip(vertices, ends.tolist(), lengths.tolist(), strict=True)}
