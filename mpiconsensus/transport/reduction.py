"""Averages over all vertices.

ordered: each rank sums a segment of all rows in ascending vertex order, then all gather: with one vertex a rank the
bytes of a ring, and the same bits for every placement. mpi: MPI_Allreduce, exempt from that promise.
"""

from itertools import pairwise

import numpy as np
import torch

from mpiconsensus.block import ROW_ELEMENTS
from mpiconsensus.errors import UserError
from mpiconsensus.pieces import piece_elements
from mpiconsensus.runtime import mpi

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Reduction:
    """mean(rows) -> (length,) average over all n vertices; collective. `how` is "ordered" or "mpi".

    wire_elements: elements sent to other ranks so far.
    """

    def __init__(self, world, placement, how="ordered"):
        self.world, self.placement, self.how = world, placement, how
        self.wire_elements = 0
        self._plans = {}

    def check(self, dtype):
        """Raise UserError where rows of this type cannot be averaged."""
        if self.how == "mpi" and self.world.size > 1 and dtype not in (torch.float32, torch.float64):
            raise UserError(f"transport.reduction = mpi sums float32 and float64, the rows are {dtype}; take transport.reduction = ordered.")

    def mean(self, rows):
        """Return the average over all vertices of their rows; `rows` lists the m hosted ones, (length,) each.

        The result is overwritten by the next call for the same length and type.
        """
        length, dtype, device = rows[0].numel(), rows[0].dtype, rows[0].device
        if (length, dtype, device) not in self._plans:
            self._plans[length, dtype, device] = self._plan(length, dtype, device)
        plan = self._plans[length, dtype, device]
        if self.world.size == 1:
            return _sum(plan["out"], rows).mul_(1.0 / self.placement.n)
        if self.how == "mpi":
            out = plan["out"].copy_(_sum(plan["sum"], rows))
            self.world.comm.Allreduce(mpi().IN_PLACE, out.numpy())
            self.wire_elements += 2 * length * (self.world.size - 1) // self.world.size
            return out.mul_(1.0 / self.placement.n).to(device)
        return self._ordered(plan, rows, device)

    def _plan(self, length, dtype, device):
        self.check(dtype)
        if self.world.size == 1:
            return {"out": torch.empty(length, dtype=dtype, device=device)}
        if self.how == "mpi":
            out = torch.empty(length, dtype=dtype)
            return {"out": out, "sum": out if device.type == "cpu" else torch.empty(length, dtype=dtype, device=device)}
        ranks, me, counts = self.world.size, self.world.rank, np.array(self.placement.counts)
        units = -(-length // ROW_ELEMENTS)
        edges = np.minimum(np.arange(ranks + 1) * units // ranks * ROW_ELEMENTS, length)
        segments = np.diff(edges)
        received = torch.empty((self.placement.n, int(segments[me])), dtype=dtype)  # rank by rank
        return {
            "edges": edges.tolist(),
            "send": torch.empty(int(counts[me]) * length, dtype=dtype),
            "send_counts": segments * counts[me],
            "receive": received,
            "ascending": [received[at] for at in np.argsort(self.placement.order).tolist()],
            "receive_counts": counts * segments[me],
            "segments": segments,
            "out": torch.empty(length, dtype=dtype),
        }

    def _ordered(self, plan, rows, device):
        comm, me, edges = self.world.comm, self.world.rank, plan["edges"]
        m, at = len(rows), 0
        for first, last in pairwise(edges):
            for row in rows:
                plan["send"][at : at + last - first].copy_(row[first:last])
                at += last - first
        comm.Alltoallv([_moved(plan["send"]), plan["send_counts"]], [_moved(plan["receive"]), plan["receive_counts"]])
        segment = plan["out"][edges[me] : edges[me + 1]]
        _sum(segment, plan["ascending"]).mul_(1.0 / self.placement.n)
        comm.Allgatherv(mpi().IN_PLACE, [_moved(plan["out"]), plan["segments"]])
        own = edges[me + 1] - edges[me]
        self.wire_elements += m * (edges[-1] - own) + own * (self.world.size - 1)
        return plan["out"].to(device)


def _moved(row):
    """Return the memory of a tensor as an array of whole numbers: numpy and MPI know no bfloat16."""
    return row.view(INTEGERS[row.itemsize]).numpy()


def _sum(out, rows):
    """Write the sum of rows, in the order given, into out and return it; a piece at a time, in the cache."""
    step = piece_elements(out)
    for start in range(0, out.numel(), step):
        piece = out[start : start + step]
        piece.copy_(rows[0][start : start + step])
        for row in rows[1:]:
            piece.add_(row[start : start + step])
    return out

