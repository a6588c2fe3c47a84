"""Messages between ranks: each row is sent once to a rank that needs it, whatever the number of its vertices.

A rank receives exactly the rows of the distinct remote vertices that its rows of W name.
"""

import weakref

import torch

from mpiconsensus.runtime import mpi
from mpiconsensus.transport.base import Exchange
from mpiconsensus.transport.waiting import wait_until


class Neighbor(Exchange):
    """Non-blocking point-to-point messages, planned once a matrix; rows on a GPU go through pinned host memory.

    staged = True forces the way through host memory (the tests use it where there is no GPU).
    """

    name = "neighbor"

    def __init__(self, world, placement, d, dtype, device="cpu", staged=None):
        super().__init__(world, placement, d, dtype, device)
        self.comm = world.comm.Dup()
        self.tag_bound = self.comm.Get_attr(mpi().TAG_UB)
        self.staged = self.device.type != "cpu" if staged is None else staged
        self._plans = weakref.WeakKeyDictionary()
        self._incoming = {}  # vertex -> the row it is received into
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

    def finish(self):
        wait_until(lambda: mpi().Request.Testall(self._requests), self.world.crowded)
        self._requests = []
        if self.staged:
            for vertex, _ in self._plan(self.round)[0]:
                host, device = self._incoming[vertex]
                device.copy_(host, non_blocking=True)
        return self._row

    def _row(self, vertex):
        index = self.placement.index.get(vertex)
        return self._incoming[vertex][1] if index is None else self.block.x(index)

    def _plan(self, round_):
        """Return the ([(remote vertex, source)], [(hosted vertex, target)]) of a round, and make the buffers for them."""
        if round_ in self._plans:
            return self._plans[round_]
        owner, me = self.placement.owner, self.placement.rank
        needed = {j for v in self.placement.hosted if v in round_.rows for j in round_.rows[v][0].tolist() if owner[j] != me}
        receives = [(j, int(owner[j])) for j in sorted(needed)]
        sends = [
            (v, target)
            for v in self.placement.hosted
            for target in sorted({int(owner[i]) for i in round_.readers.get(v, ())} - {me})
        ]
        for vertex, _ in receives:
            if vertex not in self._incoming:
                host = self._host_row()
                device = torch.empty(self.d, dtype=self.dtype, device=self.device) if self.staged else host
                self._incoming[vertex] = (host, device)
        if self.staged:
            for vertex, _ in sends:
                self._outgoing.setdefault(vertex, self._host_row())
        self._plans[round_] = receives, sends
        return receives, sends

    def _host_row(self):
        return torch.empty(self.d, dtype=self.dtype, pin_memory=self.device.type == "cuda")

    def close(self):
        self.comm.Free()
