"""Transports: how rows get from one rank to another. `open_exchange` picks one."""

from mpiconsensus.config import EXCHANGES
from mpiconsensus.errors import UserError
from mpiconsensus.transport.inprocess import InProcess
from mpiconsensus.transport.neighbor import Neighbor
from mpiconsensus.transport.onegpu import OneGpu, on_one_gpu
from mpiconsensus.transport.reduction import Reduction
from mpiconsensus.transport.shared import PAGE, Shared, shared_memory_free

__all__ = ["Reduction", "choose", "open_exchange"]

BY_NAME = {cls.name: cls for cls in (InProcess, Neighbor, Shared)}


def choose(name, world, placement, d, dtype, device="cpu", depth=2, free=1 << 62, one_gpu=False):
    """Return the name of the transport that `name` stands for on these ranks; UserError where it cannot work.

    depth: buffers a vertex. free: the least bytes of shared memory that any rank finds on its node. one_gpu: whether the
    ranks of a node share a GPU and read each other's memory there.
    """
    # The fullest node counts; a rank there has at most the vertices of the fullest rank.
    on_cpu = str(device) == "cpu"
    d = d if on_cpu else 1  # a GPU's rows are not in the window
    need = min(placement.n, world.fullest_node * max(placement.counts)) * depth * d * dtype.itemsize + (depth + 1) * PAGE * world.fullest_node
    if name not in ("auto", *EXCHANGES):
        raise UserError(f"transport.name = {name} is for asynchronous algorithms; one with rounds takes auto, {', '.join(EXCHANGES)}.")
    if name == "inprocess" and world.size > 1:
        raise UserError(f"transport.name = inprocess needs one process, {world.size} ranks were started; take auto, shared or neighbor.")
    if name in ("neighbor", "shared") and world.comm is None:
        raise UserError(f"transport.name = {name} needs MPI ranks; start with mpirun -n 2 (or more), or take auto.")
    if name == "shared" and not (on_cpu or one_gpu):
        raise UserError(
            "transport.name = shared needs the ranks of a node on one GPU, in memory that each lets the others open; take auto or neighbor."
        )
    if name == "shared" and need > free:
        raise UserError(
            f"transport.name = shared needs {need >> 20} MiB of shared memory on the node, {free >> 20} MiB are free in /dev/shm; "
            "enlarge it, or take --set transport.name=neighbor."
        )
    if name != "auto":
        return name
    if world.size == 1:
        return "inprocess"
    return "shared" if world.fullest_node > 1 and (on_cpu or one_gpu) and need <= free else "neighbor"


def open_exchange(name, world, placement, d, dtype, device="cpu", depth=2):
    """Return the Exchange called `name` (auto: the fastest that fits) for rows of d elements, `depth` buffers a vertex; collective."""
    # The ranks agree on what is free: another program may take some between one rank's look and the next one's.
    free = min(world.allgather(shared_memory_free()))
    name = choose(name, world, placement, d, dtype, device, depth, free, on_one_gpu(world, device))
    kind = OneGpu if name == "shared" and str(device) != "cpu" else BY_NAME[name]
    return kind(world, placement, d, dtype, device, depth)
