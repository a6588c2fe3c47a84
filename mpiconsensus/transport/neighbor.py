"""Messages between ranks: each row is sent once to a rank that needs it, whatever the number of its vertices.

A rank receives exactly the rows of the distinct remote vertices that its rows of W name.
"""

import time
import weakref

import torch

from mpiconsensus.pieces import pieces
from mpiconsensus.runtime import mpi
from mpiconsensus.transport.base import Exchange
from mpiconsensus.transport.waiting import wait_until


class Neighbor(Exchange):
    """Non-blocking point-to-point messages, planned once a matrix; rows on a GPU go through pinned host memory.

    staged = True forces the way through host memory (the tests use it where there is no GPU). beyond: ranks whose rows
    come another way.
    """

    name = "neighbor"

    def __init__(self, world, placement, d, dtype, device="cpu", depth=2, staged=None, beyond=()):
        super().__init__(world, placement, d, dtype, device, depth)
        self.comm = world.comm.Dup()
        self.tag_bound = self.comm.Get_attr(mpi().TAG_UB)
        self.staged = self.device.type != "cpu" if staged is None else staged
        self._not_by_message = set(beyond) | {world.rank}
        self._plans = weakref.WeakKeyDictionary()
        self._incoming = {}  # vertex -> the row it is received into, on the host and on the device, and the latter's pieces
        self._outgoing = {}  # hosted vertex -> host copy of its row, where rows are staged
        self._requests = []

    def start(self, round_):
        super().start(round_)
        receives, sends = self._plan(round_)
        if self.staged:
            for vertex, _ in sends:
                self._outgoing[vertex].copy_(self.block.x(self.placement.index[vertex]), non_blocking=True)
            if self.device.type == "cuda":
                torch.cuda.current_stream().synchronize()
        self._requests = [
            self.comm.Irecv(self._incoming[vertex][0].numpy(), source, vertex % self.tag_bound) for vertex, source in receives
        ]
        for vertex, target in sends:
            row = self._outgoing[vertex] if self.staged else self.block.x(self.placement.index[vertex])
            self._requests.append(self.comm.Isend(row.numpy(), target, vertex % self.tag_bound))
        self.rows_received += len(receives)
        self.rows_sent += len(sends)
        self._started_s = time.monotonic()

    def finish(self):
        # Nobody tells when a message came: all the time since start counts as hidden.
        self.hidden_s = time.monotonic() - self._started_s if self._requests else 0.0
        if not mpi().Request.Testall(self._requests):
            self.waits += 1
            wait_until(lambda: mpi().Request.Testall(self._requests), self.world.crowded)
        self._requests = []
        if self.staged:
            for vertex, _ in self._plan(self.round)[0]:
                host, device, _ = self._incoming[vertex]
                device.copy_(host, non_blocking=True)
        return self._row

    def _row(self, vertex):
        return self.hosted_row(vertex) if vertex in self.placement.index else self._incoming[vertex][2]

    def _plan(self, round_):
        """Return the ([(remote vertex, source)], [(hosted vertex, target)]) of a round, and make the buffers for them."""
        if round_ in self._plans:
            return self._plans[round_]
        owner, otherwise = self.placement.owner, self._not_by_message
        needed = {j for v in self.placement.hosted for j in round_.sources.get(v, ())}
        receives = [(j, int(owner[j])) for j in sorted(needed) if int(owner[j]) not in otherwise]
        sends = [
            (v, target)
            for v in self.placement.hosted
            for target in sorted({int(owner[i]) for i in round_.readers.get(v, ())} - otherwise)
        ]
        for vertex, _ in receives:
            if vertex not in self._incoming:
                host = self._host_row()
                device = torch.empty(self.d, dtype=self.dtype, device=self.device) if self.staged else host
                self._incoming[vertex] = (host, device, pieces(device))
        if self.staged:
            for vertex, _ in sends:
                self._outgoing.setdefault(vertex, self._host_row())
        self._plans[round_] = receives, sends
        return receives, sends

    def _host_row(self):
        return torch.empty(self.d, dtype=self.dtype, pin_memory=self.device.type == "cuda")

    def close(self):
        self.comm.Free()
