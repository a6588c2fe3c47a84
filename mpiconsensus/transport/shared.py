"""Rows in a shared-memory window of the node: neighbours read them where they lie, nothing is copied.

A round needs one counter a rank and no barrier. ready = t says that the rows of a rank may be read in round t; done = t
says that it has read all that it reads in round t. A rank waits for `ready` of those it reads, and, before it writes a
buffer, for `done` of the ranks that read that buffer last. Neighbours on other nodes are reached by messages in the
same round, while the rows of this node are awaited.
"""

import os
import time
import weakref
from typing import NamedTuple

import torch

from mpiconsensus.pieces import pieces
from mpiconsensus.runtime import mpi
from mpiconsensus.transport.base import Exchange
from mpiconsensus.transport.neighbor import Neighbor
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import Counter

PAGE = 4096
LINE = 8  # int64 a cache line: counters of different ranks share none


class Plan(NamedTuple):
    """What of a round this rank does within its node.

    sources: [(rank that is read, its counter `ready`, when it published its last two rounds)]; rows: how many are read from them.
    readers: [(hosted vertex, its index, ranks that read it)]; copies: how many ranks read its rows, over all of them. resting:
    indices of the hosted vertices whose rows the round does not replace.
    """

    sources: list
    rows: int
    readers: list
    copies: int
    resting: list


class Shared(Exchange):
    """Each rank's buffers and counters lie in its part of one window a node; `far` carries rows between nodes."""

    name = "shared"
    stream = True

    def __init__(self, world, placement, d, dtype, device="cpu", depth=2):
        super().__init__(world, placement, d, dtype, device, depth)
        MPI = mpi()
        self.rounds = 0
        near = world.node_comm.allgather(world.rank)
        info = MPI.Info.Create({"alloc_shared_noncontig": "true"})  # each rank's part in memory near its own cores
        size = PAGE + depth * self._bytes(placement.counts[world.rank])
        self.window = MPI.Win.Allocate_shared(size, 1, info, world.node_comm)
        info.Free()
        self.window.Lock_all(MPI.MODE_NOCHECK)
        self._ready, self._done, self._published, self._rows = {}, {}, {}, {}
        for number, rank in enumerate(near):
            memory = memoryview(self.window.Shared_query(number)[0]).cast("B")
            count = placement.counts[rank]
            page = memory[:PAGE].cast("q")
            self._ready[rank] = Counter(page[0:1])
            self._done[rank] = Counter(page[LINE : LINE + 1])
            self._published[rank] = page[2 * LINE : 2 * LINE + 2]
            sides = [
                torch.frombuffer(memory, dtype=dtype, count=count * d, offset=PAGE + side * self._bytes(count)).view(count, d)
                for side in range(depth)
            ]
            self._rows.update({(v, side): sides[side][i] for i, v in enumerate(placement.hosted_by(rank)) for side in range(depth)})
            if rank == world.rank:
                self._mine = sides
                page[:] = memoryview(bytes(PAGE)).cast("q")
                for rows in sides:
                    rows.zero_()
        self._guards = [[None] * depth for _ in placement.hosted]
        self._near, self._plans, self._plan = set(near), weakref.WeakKeyDictionary(), None
        self._peers = Peers(world)
        self.far = Neighbor(world, placement, d, dtype, depth=depth, beyond=self._near) if world.nodes > 1 else None
        world.comm.Barrier()

    @property
    def title(self):
        return f"{self.name} in a node, {self.far.title} between nodes" if self.far else self.name

    def _bytes(self, count):
        return -(-count * self.d * self.dtype.itemsize // PAGE) * PAGE

    def storage(self):
        return self._mine

    def bind(self, block):
        super().bind(block)
        if self.far:
            self.far.bind(block)
            self.far.side = self.side

    def start(self, round_):
        super().start(round_)
        self.rounds += 1
        if self.far:
            self.far.start(round_)
            self.rows_sent += self.far.take_counts()[1]
        self._plan = plan = self._plans.get(round_) or self._make_plan(round_)
        for vertex, i, ranks in plan.readers:
            self._guards[i][self.sides[vertex]] = (ranks, self.rounds)
        self.rows_sent += plan.copies
        self._started_s = time.monotonic()
        self._published[self.world.rank][self.rounds % 2] = int(1e9 * self._started_s)
        self.window.Sync()
        self._ready[self.world.rank].raise_to(self.rounds)

    def finish(self):
        plan, rounds = self._plan, self.rounds
        finished_s = time.monotonic()
        late = [rank for rank, ready, _ in plan.sources if ready.cell[0] < rounds]
        if late:
            self._wait(self._ready, late, rounds)
            self.waits += 1
        self.window.Sync()
        # Of the time that rows were on their way, what passed before anybody asked for them is hidden.
        last_s = 1e-9 * max([published[rounds % 2] for _, _, published in plan.sources], default=0)
        self.hidden_s = max(0.0, min(last_s, finished_s) - self._started_s)
        self.rows_received += plan.rows
        if not self.far:
            return self._row
        waits = self.far.waits
        row = self.far.finish()
        self.waits += self.far.waits > waits and not late
        self.rows_received += self.far.take_counts()[0]
        self.hidden_s = max(self.hidden_s, self.far.hidden_s)
        return lambda vertex: self._row(vertex) if self.placement.owner[vertex] in self._near else row(vertex)

    def _row(self, vertex):
        key = vertex, self.sides[vertex]
        if key not in self._pieces:
            self._pieces[key] = pieces(self._rows[key])
        return self._pieces[key]

    def _make_plan(self, round_):
        """Make and keep the Plan of a round."""
        owner, me, near = self.placement.owner, self.world.rank, self._near
        needed = {j for v in self.placement.hosted for j in round_.sources.get(v, ())}
        owners = [int(owner[j]) for j in needed if int(owner[j]) != me and int(owner[j]) in near]
        sources = [(rank, self._ready[rank], self._published[rank]) for rank in sorted(set(owners))]
        readers, resting = [], []
        for i, vertex in enumerate(self.placement.hosted):
            ranks = ({int(owner[r]) for r in round_.readers.get(vertex, ())} - {me}) & near
            if ranks:
                readers.append((vertex, i, ranks))
            if vertex not in round_.rows:
                resting.append(i)
        plan = self._plans[round_] = Plan(sources, len(owners), readers, sum(len(ranks) for *_, ranks in readers), resting)
        return plan

    def writable(self, i):
        self._wait_guard(i, (self.block.current[i] + 1) % self.depth)

    def release(self):
        if self.far:
            self.far.release()
        self.window.Sync()
        self._done[self.world.rank].raise_to(self.rounds)
        # A row that was read but not replaced is trained in place next: its readers must be through.
        for i in self._plan.resting:
            self._wait_guard(i, self.block.current[i])

    def _wait_guard(self, i, side):
        guard = self._guards[i][side]
        if guard:
            self._wait(self._done, *guard)
            self._guards[i][side] = None
            self.window.Sync()

    def _wait(self, counters, ranks, value):
        for rank in ranks:
            if counters[rank].cell[0] < value:
                counters[rank].wait(value, self.world.crowded, lambda: self._peers.check(ranks))

    def close(self):
        self.world.comm.Barrier()
        self._ready = self._done = self._published = self._rows = self._mine = None
        self._plan = self._pieces = self._parts = None
        self.window.Unlock_all()
        self.window.Free()
        if self.far:
            self.far.close()


def shared_memory_free():
    """Return the bytes free in /dev/shm (a large number where there is none to ask)."""
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return 1 << 62
    return stat.f_bavail * stat.f_frsize
