"""Rows as messages between ranks, for an MPI whose one-sided operations wait for their target; moved on at every call.

A row goes once to each rank that reads it, as one message: version, clock, stamp, row. Of one vertex at most one message
to a rank is under way. A row that could not be sent is due, and of the last two versions the older one goes first, so
that who needs a certain clock gets it; what is older is never sent. Sends are synchronous: such a message is through
when its receiver has begun to take it, while small ones of the other kind would pile up where nobody receives.
"""

import time

import numpy as np
import torch

from mpiconsensus.runtime import mpi
from mpiconsensus.transport.mailbox.base import SLOTS, Letter
from mpiconsensus.transport.mailbox.board import DIED, Board, aligned
from mpiconsensus.transport.messages import element
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import LOOK_UP_S, NAP_S, poll

START = 64  # bytes ahead of the row
OFTEN_S = 5e-4  # between two looks for messages by one who only reads
LONGEST_NAP_S = 2e-4  # of one who waits: a large row comes in parts, one or more a look
PASSES = 4
FLAGS_TAG = 0  # vertex v has tag v + 1


class Parcel:
    """The memory of a message: a row and, ahead of it, what its Letter says. users: sends that are under way."""

    def __init__(self, d, dtype):
        memory = aligned(START + d * dtype.itemsize)
        self.words, self.stamps = memory[:START].cast("q"), memory[:START].cast("d")
        self.row = torch.frombuffer(memory, dtype=dtype, count=d, offset=START)
        self.message = [memory, START // dtype.itemsize + d, element(dtype.itemsize)]
        self.users, self.words[0] = 0, -1

    def letter(self, vertex):
        return Letter(vertex, self.words[0], self.words[1], self.stamps[2], self.row)


class Inbox:
    """What has arrived of a vertex: its last two rows, newest first, and the parcel that the next one comes into."""

    def __init__(self, d, dtype):
        self.parcels = [Parcel(d, dtype) for _ in range(SLOTS)]
        self.arrived = []

    @property
    def next(self):
        return next(parcel for parcel in self.parcels if parcel not in self.arrived)


class Edge:
    """One vertex to one rank that reads it. sent: the last version sent; busy: whether that is still under way."""

    def __init__(self, rank):
        self.rank, self.sent, self.busy = rank, -1, False


class P2P(Board):
    """Messages between ranks; the rows of hosted vertices are read in place."""

    name = "p2p"

    def __init__(self, world, placement, d, dtype, device="cpu", readers=None):
        super().__init__(world, placement, d, dtype, device, readers)
        self.lay(world.rank, aligned(self.part(world.rank).size))
        self.comm = world.comm.Dup()
        owner, me = placement.owner, world.rank
        ranks = {v: {int(owner[r]) for r in self.readers.get(v, ())} for v in range(placement.n)}
        self._edges = [[Edge(rank) for rank in sorted(ranks[v] - {me})] for v in placement.hosted]
        self._inboxes = {v: Inbox(d, dtype) for v in range(placement.n) if me in ranks[v] and owner[v] != me}
        self._parcels = [[] for _ in placement.hosted]
        self._flags, self._incoming_flags = 0, np.zeros(1, np.int64)
        # Under way: requests, what to do when each is through, and whether it is a send.
        self._requests, self._then, self._is_send = [], [], []
        self._closing, self._moved_s = False, 0.0
        self._peers = Peers(world, DIED)
        self._take_flags()
        for vertex in self._inboxes:
            self._receive(vertex)
        world.barrier()

    def publish(self, i, clock):
        super().publish(i, clock)
        self._move()
        self._send(i)

    def clock(self, vertex, reader):
        self._look()
        if vertex in self.heads:
            return super().clock(vertex, reader)
        arrived = self._inboxes[vertex].arrived
        return arrived[0].words[1] if arrived else -2

    def peek(self, vertex, reader, at_most=None):
        self._look()
        if vertex in self.heads:
            return super().peek(vertex, reader, at_most)
        for parcel in self._inboxes[vertex].arrived if vertex in self._inboxes else ():  # none comes from whom nobody here reads
            if at_most is None or parcel.words[1] <= at_most:
                return parcel.letter(vertex)
        return None

    def intact(self, letters):
        own = [letter for letter in letters if letter.vertex in self.heads]
        return super().intact(own) and all(
            any(parcel.words[0] == letter.version for parcel in self._inboxes[letter.vertex].arrived)
            for letter in letters
            if letter.vertex not in self.heads
        )

    def wait(self, wanted, seconds):
        flags, looked_s = self._flags, time.monotonic()

        def there():
            self._move()
            return all(self.clock(vertex, None) >= clock for vertex, clock in wanted.items())

        def stop():
            nonlocal looked_s
            if time.monotonic() - looked_s > LOOK_UP_S:
                self._peers.check({int(self.placement.owner[v]) for v, clock in wanted.items() if self.clock(v, None) < clock})
                looked_s = time.monotonic()
            return self._flags != flags

        return poll(there, seconds, stop, LONGEST_NAP_S)

    def raise_flag(self, bits):
        fresh = bits & ~self._flags
        self._flags |= bits
        for rank in range(self.world.size) if fresh else ():
            if rank != self.world.rank:
                word = np.array([fresh], np.int64)
                self._start(self.comm.Issend([word, 1, mpi().INT64_T], rank, FLAGS_TAG), lambda word=word: None, True)
        self._move()

    def lower_flags(self, bits):
        # A flag that is under way would come back: every send is through ahead of the last rank's arrival.
        while any(self._is_send):
            self._move()
        all_here = self.world.arrive()
        while not all_here():
            self._move()
        self._flags &= ~bits
        self.world.barrier()

    def flags(self):
        self._look()
        return self._flags

    def _look(self):
        """Move messages on, where that was not done a moment ago."""
        if time.monotonic() - self._moved_s > OFTEN_S:
            self._move()

    def _move(self):
        for _ in range(PASSES):
            done = mpi().Request.Testsome(self._requests)
            if not done:
                break
            through = [self._then[j] for j in done]
            for j in sorted(done, reverse=True):
                del self._requests[j], self._then[j], self._is_send[j]
            for then in through:
                then()
        self._moved_s = time.monotonic()

    def _start(self, request, then, is_send):
        self._requests.append(request)
        self._then.append(then)
        self._is_send.append(is_send)

    def _receive(self, vertex):
        inbox = self._inboxes[vertex]
        parcel = inbox.next

        def arrived():
            inbox.arrived = [parcel, *inbox.arrived[:1]]
            self.rows_wire += 1
            self._receive(vertex)

        source = int(self.placement.owner[vertex])
        self._start(self.comm.Irecv(parcel.message, source, vertex + 1), arrived, False)

    def _take_flags(self):
        def arrived():
            self._flags |= int(self._incoming_flags[0])
            self._take_flags()

        message = [self._incoming_flags, 1, mpi().INT64_T]
        self._start(self.comm.Irecv(message, mpi().ANY_SOURCE, FLAGS_TAG), arrived, False)

    def _send(self, i):
        """Send hosted vertex i to each rank that reads it, has not its newest row and has taken what was sent before."""
        newest, vertex = self._version[i], self.placement.hosted[i]
        for edge in self._edges[i]:
            if edge.busy or edge.sent == newest or self._closing:
                continue
            edge.busy, edge.sent = True, max(edge.sent + 1, newest - 1)
            parcel = self._parcel(i, edge.sent)
            parcel.users += 1

            def through(edge=edge, parcel=parcel):
                edge.busy = False
                parcel.users -= 1
                self._send(i)

            self._start(self.comm.Issend(parcel.message, edge.rank, vertex + 1), through, True)

    def _parcel(self, i, version):
        """Return a parcel with this version of hosted vertex i: the row itself is written again before all have taken it."""
        parcels, vertex = self._parcels[i], self.placement.hosted[i]
        for parcel in parcels:
            if parcel.words[0] == version:
                return parcel
        parcel = next((parcel for parcel in parcels if not parcel.users), None)
        if parcel is None:  # at most one an edge is in use
            parcel = Parcel(self.d, self.dtype)
            parcels.append(parcel)
        parcel.words[0] = version
        parcel.words[1], parcel.stamps[2] = self.heads[vertex].noted(version)
        parcel.row.copy_(self.rows_at[vertex][version % SLOTS])
        return parcel

    def close(self):
        """Let everybody's messages come through, send no more, and take back the receives that wait."""
        self._closing, end = True, None
        while end is None or not end.Test():
            self._move()
            if end is None and not any(self._is_send):
                end = self.comm.Ibarrier()
            time.sleep(NAP_S)
        for request in self._requests:
            request.Cancel()
            request.Wait()
        self._requests, self._then, self._inboxes, self._parcels = [], [], {}, []
        super().close()
        self.comm.Free()
