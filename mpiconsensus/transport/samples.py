"""Samples between vertices: raw rows, spread over the steps of an epoch, in messages between ranks or copied within one.

What is planned for the end of an epoch travels during it: rows are read from the shards as they stand and arrive in a
buffer; when the next epoch begins they take the places of those that were given. So the shards of a rank and one buffer
of what arrives are all that is stored, beside a few messages.

Array legend: n vertices, m hosted vertices, R samples that arrive at a rank in an epoch.
"""

from itertools import pairwise

import numpy as np

from mpiconsensus.data.shuffle.route import route
from mpiconsensus.runtime import mpi
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import wait_until

MESSAGE_BYTES = 1 << 16
STAGES = 4  # messages of a rank that may be on their way at a time
WRITE_BYTES = 1 << 20  # of rows that are put in their places in one go


class SampleExchange:
    """Keeps the shards of this rank's vertices as a Shuffling says; None: nothing ever moves. Collective to make and close.

    loaders: of the hosted vertices; per_epoch, total_steps: of the run. Every rank calls `step(k)` ahead of step k, of the
    first and of any that a state was loaded for. The clock is the run's epoch: a vertex with fewer batches than per_epoch
    begins new passes within it.
    sent, wire: (m,) bytes of samples (x, y and id) that the hosted vertices have sent to other vertices, wherever hosted,
    and to other ranks, since the last `take`. Only the start of a copy or message adds to them. record: the type of a sample.
    """

    def __init__(self, world, placement, loaders, shuffling, per_epoch, total_steps):
        self.world, self.placement, self.loaders, self.shuffling = world, placement, loaders, shuffling
        self.per_epoch, self.total_steps = per_epoch, total_steps
        self.sent, self.wire = np.zeros((2, len(loaders)), np.int64)
        if shuffling is None:
            return
        shard = loaders[0].shard  # streamed ones are not shuffled between vertices
        self.record = np.dtype([("x", shard.x.dtype, shard.x.shape[1:]), ("y", np.int64), ("id", np.int64)])
        self._most = max(1, MESSAGE_BYTES // self.record.itemsize)
        self._index = np.full(placement.n, -1)
        self._index[placement.hosted] = np.arange(len(loaders))
        self._comm, self._peers = (world.comm.Dup(), Peers(world)) if world.comm else (None, None)
        self._free = [np.empty(self._most, self.record) for _ in range(STAGES)] if world.size > 1 else []
        self._room = np.empty(shuffling.offered[placement.hosted].sum(), self.record)
        self._sending, self._receiving, self._queue = [], [], []  # (request, its stage); requests; pieces without a stage yet
        self._epoch = None  # whose samples the shards hold, None: as on the disk
        self._route = self._buffer = None  # of the exchange under way
        self._todo = []

    def step(self, k):
        """Do what comes ahead of step k: begin an epoch with what has arrived for it, and go on with the exchange."""
        if self.shuffling is None:
            return
        epoch, position = divmod(k, self.per_epoch)
        if epoch != self._epoch:
            self._enter(epoch, position)
        self._start(position)
        self._advance()

    def take(self):
        """Return (sent, wire) and set both to 0."""
        taken = self.sent.copy(), self.wire.copy()
        self.sent[:] = self.wire[:] = 0
        return taken

    def stored(self, sizes):
        """Return how many samples the vertex that stores most has to keep; sizes: (n,) of the shards, with what is held out."""
        return int(np.max(np.array(sizes) + (0 if self.shuffling is None else self.shuffling.offered)))

    def close(self):
        """End what is on its way; collective, at the same step on every rank."""
        if self.shuffling is None or self._comm is None:
            return
        self._wait()
        mpi().Request.Waitall([request for request, _ in self._sending])
        self._comm.Free()

    def _enter(self, epoch, position):
        """Bring the shards to where they are at the start of an epoch, and plan what moves during it."""
        if self._route and epoch == self._epoch + 1:
            self._complete()
            self._write()
        else:
            if self._route:
                self._complete()
            if position:  # an epoch that is gone on with: what was sent in it is sent again, and counted then
                self.take()
            self._bring(epoch)
        self._epoch, self._route = epoch, None
        if (epoch + 1) * self.per_epoch < self.total_steps:
            self._plan(self.shuffling.arrivals(epoch), self.per_epoch, self._room)

    def _bring(self, epoch):
        """Bring the shards to `epoch` from wherever they are, at once. What that sends counts as the first epoch's alone."""
        before = self.sent.copy(), self.wire.copy()
        self._plan(self.shuffling.between(self._epoch, epoch), 1)
        self._complete()
        self._write()
        if epoch:
            self.sent[:], self.wire[:] = before

    def _plan(self, source, steps, room=None):
        place = self.placement
        self._route = route(source, self.shuffling.vertex_of, place.owner, place.rank, place.ranks, self._most, steps)
        self._todo = self._route.pieces[::-1]
        self._buffer = np.empty(len(self._route.target), self.record) if room is None else room

    def _start(self, position):
        """Start the pieces that are due."""
        while self._todo and self._todo[-1].due <= position:
            piece = self._todo.pop()
            if piece.sends:
                self._queue.append(piece)
            elif piece.peer == self.world.rank:
                self._gather(piece.origin, self._buffer[piece.part])
            else:
                self._receiving.append(self._comm.Irecv(self._buffer[piece.part].view(np.uint8), piece.peer))
            if piece.sends or piece.peer == self.world.rank:
                self._count(piece)

    def _count(self, piece):
        giver = self.shuffling.vertex_of[piece.origin]
        giver = self._index[giver[giver != self.shuffling.vertex_of[piece.target]]]
        size = self.record.itemsize * np.bincount(giver, minlength=len(self.sent))
        self.sent += size
        if piece.sends:
            self.wire += size

    def _gather(self, slots, out):
        """Copy the samples at ascending slots of hosted vertices into the records `out`."""
        vertices = self.shuffling.vertex_of[slots]
        cuts = [0, *(np.flatnonzero(np.diff(vertices)) + 1).tolist(), len(slots)]
        for first, last in pairwise(cuts):
            vertex = int(vertices[first])
            rows = slots[first:last] - self.shuffling.first[vertex]
            shard = self.loaders[self._index[vertex]].shard
            for name in shard._fields:
                out[name][first:last] = getattr(shard, name)[rows]

    def _advance(self):
        """Send what has a stage to be sent from; return whether all that was started has left the shards and arrived."""
        if self._receiving and mpi().Request.Testsome(self._receiving):
            self._receiving = [request for request in self._receiving if request]
        if self._sending:
            under_way = []
            for request, stage in self._sending:
                if request.Test():
                    self._free.append(stage)
                else:
                    under_way.append((request, stage))
            self._sending = under_way
        while self._queue and self._free:
            piece, stage = self._queue.pop(0), self._free.pop()
            rows = stage[: len(piece.origin)]
            self._gather(piece.origin, rows)
            self._sending.append((self._comm.Isend(rows.view(np.uint8), piece.peer), stage))
        return not (self._queue or self._receiving)

    def _complete(self):
        """Start what is left and wait for all that arrives."""
        self._start(self.per_epoch)
        self._wait()

    def _wait(self):
        if not self._advance():
            wait_until(self._advance, self.world.crowded, lambda: self._peers.check(range(self.world.size)))

    def _write(self):
        """Put what has arrived in its places."""
        target = self._route.target
        vertices = self.shuffling.vertex_of[target]
        order = np.argsort(vertices, kind="stable")
        most = max(1, WRITE_BYTES // self.record.itemsize)
        for vertex, loader in zip(self.placement.hosted, self.loaders):
            mine = order[slice(*np.searchsorted(vertices[order], [vertex, vertex + 1]))]
            for at in range(0, len(mine), most):
                part = mine[at : at + most]
                loader.replace(target[part] - self.shuffling.first[vertex], self._buffer[part])
        self._buffer = None
