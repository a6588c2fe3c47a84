"""Ranks of a node on one GPU: rows in device memory that the others have opened (CUDA IPC), read where they lie.

Not verified on a GPU yet.
"""

import pickle
from multiprocessing.reduction import ForkingPickler

import torch

from mpiconsensus.transport.base import Exchange
from mpiconsensus.transport.device import Settle
from mpiconsensus.transport.neighbor import Neighbor
from mpiconsensus.transport.shared import Shared


class OneGpu(Shared):
    """`shared` with its rows on the GPU: the window of the node holds the counters alone.

    Counters are the host's: they are raised when the GPU is through with what they tell.
    """

    def __init__(self, world, placement, d, dtype, device, depth=2):
        # One element a row in the window: its rows are not used.
        super().__init__(world, placement, 1, dtype, depth=depth)
        self.d, self.device = d, torch.device(device)
        self._settle = Settle(self.device)
        self._mine = Exchange.storage(self)
        self._settle()
        self._rows = {}
        for rank, sides in exchanged(world, self._mine).items():
            hosted = placement.hosted_by(rank)
            self._rows.update({(v, side): row for side, rows in enumerate(sides) for v, row in zip(hosted, rows, strict=True)})
        if self.far:
            self.far.close()
            self.far = Neighbor(world, placement, d, dtype, self.device, depth, beyond=self._near)

    def start(self, round_):
        self._settle()  # the rows are written
        super().start(round_)

    def release(self):
        self._settle()  # the rows of the others are read
        super().release()

    def close(self):
        self._rows = self._pieces = self._parts = None  # before the owners, who wait in close for all, give the memory back
        super().close()


def exchanged(world, tensors):
    """Return {rank: its tensors} for the ranks of this node, all on one GPU; collective. The own ones are as given."""
    ranks = world.node_comm.allgather(world.rank)
    # A handle is for one receiver: torch counts them, to know when the owner's memory may go.
    handles = world.node_comm.alltoall([None if rank == world.rank else _handles(tensors) for rank in ranks])
    return {rank: tensors if rank == world.rank else _opened(handle) for rank, handle in zip(ranks, handles, strict=True)}


def on_one_gpu(world, device):
    """Return whether the ranks of each node share one GPU and read each other's memory there, seen by trying; collective."""
    device, gpu = torch.device(device), None
    if world.size == 1:
        return False
    if device.type == "cuda":
        gpu = (str(torch.cuda.get_device_properties(device).uuid), device.index)
    near = world.node_comm.allgather(gpu)
    if not all(world.allgather(gpu is not None and set(near) == {gpu})):
        return False
    mine = torch.full((1024,), world.rank, dtype=torch.int32, device=device)
    Settle(device)()
    try:
        seen = all(bool((theirs == rank).all()) for rank, (theirs,) in exchanged(world, [mine]).items())
    except RuntimeError:  # containers and some drivers do not let processes open each other's memory
        seen = False
    return all(world.allgather(seen))


def _handles(tensors):
    """Return how another process opens the tensors, or the error that keeps it from doing so, for it to raise."""
    try:
        return bytes(ForkingPickler.dumps(tensors))  # torch's own way to hand tensors to a process: handles, no copies
    except RuntimeError as error:
        return RuntimeError(str(error))  # torch's own kinds may not go through a message


def _opened(handles):
    if isinstance(handles, RuntimeError):
        raise handles
    return pickle.loads(handles)
