"""Transports: how rows get from one rank to another. `open_exchange` picks one."""

from mpiconsensus.errors import UserError
from mpiconsensus.transport.inprocess import InProcess
from mpiconsensus.transport.neighbor import Neighbor
from mpiconsensus.transport.reduction import Reduction
from mpiconsensus.transport.shared import PAGE, Shared, shared_memory_free

__all__ = ["Reduction", "choose", "open_exchange"]

BY_NAME = {cls.name: cls for cls in (InProcess, Neighbor, Shared)}


def choose(name, world, placement, d, dtype, device="cpu", depth=2, free=1 << 62):
    """Return the name of the transport that `name` stands for on these ranks; UserError where it cannot work.

    depth: buffers a vertex. free: the least bytes of shared memory that any rank finds on its node.
    """
    # The fullest node counts; a rank there has at most the vertices of the first rank.
    need = min(placement.n, world.fullest_node * placement.counts[0]) * depth * d * dtype.itemsize + (depth + 1) * PAGE * world.fullest_node
    on_cpu = str(device) == "cpu"
    if name == "inprocess" and world.size > 1:
        raise UserError(f"transport.name = inprocess needs one process, {world.size} ranks were started; take auto, shared or neighbor.")
    if name in ("neighbor", "shared") and world.comm is None:
        raise UserError(f"transport.name = {name} needs MPI ranks; start with mpirun -n 2 (or more), or take auto.")
    if name == "shared" and not on_cpu:
        raise UserError("transport.name = shared holds rows in host memory, training.device is a GPU; take auto or neighbor.")
    if name == "shared" and need > free:
        raise UserError(
            f"transport.name = shared needs {need >> 20} MiB of shared memory on the node, {free >> 20} MiB are free in /dev/shm; "
            "enlarge it, or take --set transport.name=neighbor."
        )
    if name != "auto":
        return name
    if world.size == 1:
        return "inprocess"
    return "shared" if world.fullest_node > 1 and on_cpu and need <= free else "neighbor"


def open_exchange(name, world, placement, d, dtype, device="cpu", depth=2):
    """Return the Exchange called `name` (auto: the fastest that fits) for rows of d elements, `depth` buffers a vertex; collective."""
    # The ranks agree on what is free: another program may take some between one rank's look and the next one's.
    free = min(world.allgather(shared_memory_free()))
    name = choose(name, world, placement, d, dtype, device, depth, free)
    return BY_NAME[name](world, placement, d, dtype, device, depth)
