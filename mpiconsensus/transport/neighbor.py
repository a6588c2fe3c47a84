"""Messages between ranks: each row is sent once to a rank that needs it, whatever the number of its vertices.

A rank receives exactly the rows of the distinct remote vertices that its rows of W name.
"""

import time
import weakref

import torch

from mpiconsensus.errors import UserError
from mpiconsensus.pieces import pieces
from mpiconsensus.runtime import mpi
from mpiconsensus.transport.base import Exchange
from mpiconsensus.transport.device import Settle, Staging, gpu_aware
from mpiconsensus.transport.memory import zeros
from mpiconsensus.transport.messages import Collective, Plan, PointToPoint
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import wait_until

WAYS = ("point-to-point", "collective", "persistent-collective")


class Neighbor(Exchange):
    """Messages that are planned once and only started in a step: no pickling, no allocation.

    how: "point-to-point" (persistent requests), "collective" (Ineighbor_alltoallw), "persistent-collective"
    (Neighbor_alltoallw_init, MPI 4; non-blocking where the library lacks it); None: the last. All move the same rows.
    Measured with benchmarks/neighbor.py, Open MPI 5, 4 and 8 ranks: the three are within each other's ranges, see
    docs/performance.md.
    Rows on a GPU go straight into MPI, point-to-point, where it was seen to take device pointers, else through pinned
    host memory; staged = True or False says which, unseen. beyond: ranks whose rows come another way.
    """

    name = "neighbor"

    def __init__(self, world, placement, d, dtype, device="cpu", depth=2, how=None, staged=None, beyond=()):
        super().__init__(world, placement, d, dtype, device, depth)
        on_gpu = self.device.type == "cuda"
        how, staged = way(how, staged, on_gpu, lambda: gpu_aware(world))
        self.comm = world.comm.Dup()
        self._staging = Staging(self.device) if staged else None
        self._settle = Settle(self.device) if on_gpu and not staged else None
        if self._settle:
            torch.cuda.set_device(self.device)  # MPI opens device pointers in the context of the current device
        self._messages = PointToPoint(self.comm, d, dtype.itemsize, lambda vertex: self._incoming[vertex][0], self._sent)
        if how != "point-to-point":
            self._messages = Collective(self._messages, persistent=how == "persistent-collective")
        self._peers = Peers(world)
        self._not_by_message = set(beyond) | {world.rank}
        self._plans = weakref.WeakKeyDictionary()
        self._incoming = {}  # vertex -> the row it is received into, on the host and on the device, and the latter's pieces
        self._outgoing = {}  # hosted vertex -> host copy of its row, where rows are staged
        self._one_buffer = [0] * placement.n
        self._requests, self._testall = [], mpi().Request.Testall

    def start(self, round_):
        super().start(round_)
        self._plan = plan = self._plans.get(round_) or self._make_plan(round_)
        if plan.ranks and self._staging:
            self._staging.down([(self._outgoing[v], self.block.x(self.placement.index[v])) for v in plan.hosted])
        elif plan.ranks and self._settle:
            self._settle()
        self._requests = self._messages.start(plan, self._one_buffer if self._staging else self.sides)
        self.rows_sent += len(plan.sends)
        self._started_s = time.monotonic()

    def finish(self):
        # Nobody tells when a message came: all the time since start counts as hidden.
        self.hidden_s = time.monotonic() - self._started_s if self._plan.ranks else 0.0
        if not self._arrived():
            self.waits += 1
            wait_until(self._arrived, self.world.crowded, lambda: self._peers.check(self._plan.ranks))
        self._requests = []
        self.rows_received += len(self._plan.receives)
        if self._staging:
            self._staging.up([self._incoming[v][:2] for v, _ in self._plan.receives])
        return self._row

    def _arrived(self):
        # A collective is one request, asked by itself: Testall of MPICH 5.0 takes a finished persistent one for an error.
        return self._requests[0].Test() if len(self._requests) == 1 else self._testall(self._requests)

    def _row(self, vertex):
        return self.hosted_row(vertex) if vertex in self.placement.index else self._incoming[vertex][2]

    def _sent(self, vertex, side):
        return self._outgoing[vertex] if self._staging else self.block.storage[side][self.placement.index[vertex]]

    def _make_plan(self, round_):
        """Make and keep the Plan of a round, and the rows that its messages need."""
        owner, otherwise = self.placement.owner, self._not_by_message
        needed = {j for v in self.placement.hosted for j in round_.sources.get(v, ())}
        receives = [(j, int(owner[j])) for j in sorted(needed) if int(owner[j]) not in otherwise]
        sends = [
            (v, target)
            for v in self.placement.hosted
            for target in sorted({int(owner[i]) for i in round_.readers.get(v, ())} - otherwise)
        ]
        fresh = [vertex for vertex, _ in receives if vertex not in self._incoming]
        for vertex, host in zip(fresh, self._host_rows(len(fresh)), strict=True):
            device = torch.empty(self.d, dtype=self.dtype, device=self.device) if self._staging else host
            self._incoming[vertex] = (host, device, pieces(device))
        if self._staging:
            fresh = sorted({vertex for vertex, _ in sends} - self._outgoing.keys())
            self._outgoing.update(zip(fresh, self._host_rows(len(fresh)), strict=True))
        plan = self._plans[round_] = Plan(receives, sends, tuple(round_.readers))
        return plan

    def _host_rows(self, count):
        """Return rows that messages can come into, (count, d): on the host, or on the GPU where MPI takes its pointers."""
        if self._staging and self.device.type == "cuda":
            return torch.empty((count, self.d), dtype=self.dtype, pin_memory=True)
        return zeros((count, self.d), self.dtype, "cpu" if self._staging else self.device)

    def close(self):
        self._messages.close()
        self.comm.Free()


def way(how, staged, on_gpu, aware):
    """Return (how, staged) with None replaced by what is best; aware() -> whether MPI takes device pointers, collective.

    Collectives get rows by absolute addresses from MPI's zero, and libraries look at a buffer's start to tell a GPU's:
    device pointers go point-to-point.
    """
    if how not in (None, *WAYS):
        raise UserError(f"how = {how!r} is no way to send rows; take one of {', '.join(WAYS)}.")
    if staged is None:
        staged = on_gpu and not (how in (None, "point-to-point") and aware())
    if on_gpu and not staged and how not in (None, "point-to-point"):
        raise UserError(f"how = {how!r} takes no device pointers; take point-to-point, or staged = True.")
    return how or ("point-to-point" if on_gpu and not staged else "persistent-collective"), staged
