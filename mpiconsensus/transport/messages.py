"""Messages of a round, planned once: persistent requests between two ranks, or one neighbourhood collective.

A message is an address: the same plan serves rows in host memory and, where MPI takes device pointers, on a GPU.
"""

from mpiconsensus.runtime import mpi

# A graph communicator costs a collective and an MPI context, of which libraries have few: a round is planned on one
# when it is seen for the third time, so that rounds that come once, as gossip's do, never are.
SIGHTS = 3
GRAPHS = 32
REQUESTS = 16  # persistent collectives a round: one for each choice of the buffers that its senders stand in


class Plan:
    """What one rank moves in a round. receives: [(remote vertex, source)]; sends: [(hosted vertex, target)], ascending.

    senders: all vertices of the round whose rows are read by others, wherever they are. ranks: the partners.
    """

    def __init__(self, receives, sends, senders):
        self.receives, self.sends, self.senders = receives, sends, senders
        self.ranks = sorted({rank for _, rank in receives + sends})
        self.hosted = sorted({vertex for vertex, _ in sends})
        self.sights, self.graph = 0, None


class PointToPoint:
    """A persistent request for each pair of a row's buffer and a rank, made at its first use and kept whatever the round.

    incoming(vertex), outgoing(vertex, side): the contiguous rows, d elements each, that messages go into and come from.
    """

    def __init__(self, comm, d, itemsize, incoming, outgoing):
        self.comm, self.d, self.incoming, self.outgoing = comm, d, incoming, outgoing
        self.type = element(itemsize)
        self._bytes, self._tags = d * itemsize, comm.Get_attr(mpi().TAG_UB)
        self._startall = mpi().Prequest.Startall  # a look-up by mpi() takes longer than to start a message
        self._receives, self._sends = {}, {}

    def start(self, plan, sides):
        """Start the messages of a plan, each vertex standing in its buffer of `sides`, and return their requests."""
        requests = [self._receives.get(pair) or self._receive(*pair) for pair in plan.receives]
        requests += [self._sends.get((v, rank, sides[v])) or self._send(v, rank, sides[v]) for v, rank in plan.sends]
        if requests:
            self._startall(requests)
        return requests

    def _receive(self, vertex, source):
        request = self._receives[vertex, source] = self.comm.Recv_init(self._message(self.incoming(vertex)), source, vertex % self._tags)
        return request

    def _send(self, vertex, target, side):
        message = self._message(self.outgoing(vertex, side))
        request = self._sends[vertex, target, side] = self.comm.Send_init(message, target, vertex % self._tags)
        return request

    def _message(self, row):
        return [mpi().buffer.fromaddress(row.data_ptr(), self._bytes), self.d, self.type]

    def close(self):
        for request in [*self._receives.values(), *self._sends.values()]:
            request.Free()
        self._receives, self._sends = {}, {}


class Collective:
    """One neighbourhood collective a round: non-blocking, or persistent where the library has it; rows in host memory.

    Which rounds get one depends on what all ranks see alike, since making it is collective; the others go by `single`.
    """

    def __init__(self, single, persistent):
        self.single, self.persistent = single, persistent
        self._graphs = []

    def start(self, plan, sides):
        plan.sights += 1
        if plan.graph is None and plan.sights >= SIGHTS and len(self._graphs) < GRAPHS:
            plan.graph = Graph(self.single, plan, self.persistent)
            self._graphs.append(plan.graph)
        return [plan.graph.start(sides)] if plan.graph else self.single.start(plan, sides)

    def close(self):
        for graph in self._graphs:
            graph.close()
        self._graphs = []
        self.single.close()


class Graph:
    """The rows of a plan as the edges of a graph communicator, and its collectives; collective to make, start and close.

    An edge a row, so that a pair of ranks may have several: one datatype of several rows is packed and sent in small
    pieces, which took five times as long.
    """

    def __init__(self, single, plan, persistent):
        self._single, self._persistent, self._plan = single, persistent, plan
        # Edges of one pair of ranks match in order: both ends list them by ascending vertex.
        receives, sends = ([rank for _, rank in pairs] for pairs in (plan.receives, plan.sends))
        self._comm = single.comm.Create_dist_graph_adjacent(receives, sends)
        self._requests, self._outgoing = {}, {}
        self._incoming = self._vector([single.incoming(v) for v, _ in plan.receives])

    def start(self, sides):
        """Start the round and return its request."""
        key = tuple(sides[v] for v in self._plan.senders)
        request = self._requests.get(key)
        if request is None and self._persistent and len(self._requests) < REQUESTS:
            request = self._init(key, sides)
        if request is None:
            return self._comm.Ineighbor_alltoallw(self._sent(sides), self._incoming)
        request.Start()
        return request

    def _init(self, key, sides):
        try:
            self._requests[key] = self._comm.Neighbor_alltoallw_init(self._sent(sides), self._incoming)
        except NotImplementedError:  # an MPI before 4.0: so on all ranks
            self._persistent = False
        return self._requests.get(key)

    def _sent(self, sides):
        key = tuple(sides[v] for v in self._plan.hosted)
        if key not in self._outgoing:
            self._outgoing[key] = self._vector([self._single.outgoing(v, sides[v]) for v, _ in self._plan.sends])
        return self._outgoing[key]

    def _vector(self, rows):
        """Return the message of rows, one an edge, by their addresses, which MPI adds to its zero."""
        single = self._single
        return [mpi().BOTTOM, [single.d] * len(rows), [row.data_ptr() for row in rows], [single.type] * len(rows)]

    def close(self):
        for handle in [*self._requests.values(), self._comm]:
            handle.Free()


def element(itemsize):
    """Return the MPI type of so many bytes: rows are moved, not summed, and MPI has no name for bfloat16."""
    MPI = mpi()
    return {1: MPI.INT8_T, 2: MPI.INT16_T, 4: MPI.INT32_T, 8: MPI.INT64_T}[itemsize]
