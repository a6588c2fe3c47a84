"""Rows in the node's shared memory, read where they lie; rows of other nodes come by one-sided reads of the same memory."""

import time

from mpiconsensus.runtime import mpi
from mpiconsensus.transport.mailbox.board import DIED, Board
from mpiconsensus.transport.mailbox.rma import Rma
from mpiconsensus.transport.peers import Peers
from mpiconsensus.transport.waiting import LONGEST_NAP_S, LOOK_UP_S


class Shared(Board):
    """Each rank's part lies in one window a node; `far` reads from other nodes, out of a window over the same memory.

    Between nodes a window over memory of one's own lets reads through while the owner computes, as an allocated one does;
    on one node, where it is not read, it does not.

    The first word of a part is the rank's flags: it alone writes it, so that no bit is lost, and readers take them together.
    """

    name = "shared"
    stream = True

    def __init__(self, world, placement, d, dtype, device="cpu", readers=None):
        super().__init__(world, placement, d, dtype, device, readers)
        MPI = mpi()
        info = MPI.Info.Create({"alloc_shared_noncontig": "true"})  # each rank's part in memory near its own cores
        self.window = MPI.Win.Allocate_shared(self.part(world.rank).size, 1, info, world.node_comm)
        info.Free()
        self.window.Lock_all(MPI.MODE_NOCHECK)
        self._sync, self._flags = self.window.Sync, {}
        self._near = world.node_comm.allgather(world.rank)
        for number, rank in enumerate(self._near):
            memory = memoryview(self.window.Shared_query(number)[0]).cast("B")
            self._flags[rank] = memory[:8].cast("q")
            if rank == world.rank:
                self._flags[rank][0] = 0
                mine = memory
            self.lay(rank, memory)
        self._peers = Peers(world, DIED)
        self.far = Rma(world, placement, d, dtype, readers=readers, memory=mine) if world.nodes > 1 else None
        world.barrier()

    @property
    def title(self):
        return f"{self.name} in a node, {self.far.title} between nodes" if self.far else self.name

    def publish(self, i, clock):
        super().publish(i, clock)
        if self.far:
            self.far.serve()

    def clock(self, vertex, reader):
        return super().clock(vertex, reader) if vertex in self.heads else self.far.clock(vertex, reader)

    def peek(self, vertex, reader, at_most=None):
        if vertex in self.heads:
            return super().peek(vertex, reader, at_most)
        letter = self.far.peek(vertex, reader, at_most)
        self.rows_wire += self.far.take_count()
        return letter

    def intact(self, letters):
        return super().intact([letter for letter in letters if letter.vertex in self.heads]) and (
            self.far is None or self.far.intact([letter for letter in letters if letter.vertex not in self.heads])
        )

    def wait(self, wanted, seconds):
        end_s, flags = time.monotonic() + seconds, self.flags()
        longest_s = LONGEST_NAP_S if self.far else LOOK_UP_S
        for vertex, clock in wanted.items():
            if vertex in self.heads:
                rank = int(self.placement.owner[vertex])
                stop = lambda rank=rank: self._stop(rank, flags)
                if not self.heads[vertex].clock.wait_some(clock, end_s, self.world.crowded, stop, longest_s):
                    return False
        beyond = {vertex: clock for vertex, clock in wanted.items() if vertex not in self.heads}
        return not beyond or self.far.wait(beyond, max(0.0, end_s - time.monotonic()), flags)

    def _stop(self, rank, flags):
        self._peers.check([rank])
        return self.flags() != flags

    def raise_flag(self, bits):
        self._flags[self.world.rank][0] |= bits
        self._sync()
        for head in self.heads.values():
            head.clock.wake()
        if self.far:
            self.far.raise_flag(bits)

    def lower_flags(self, bits):
        self.world.barrier()
        self._flags[self.world.rank][0] &= ~bits
        self._sync()
        if self.far:
            self.far.lower_flags(bits)
        self.world.barrier()

    def flags(self):
        found = self.far.flags() if self.far else 0
        for word in self._flags.values():
            found |= word[0]
        return found

    def close(self):
        self.world.barrier()
        if self.far:
            self.far.close()
        super().close()
        self._flags = None
        self.window.Unlock_all()
        self.window.Free()
