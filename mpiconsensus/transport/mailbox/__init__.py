"""Mailboxes: rows that their vertices publish and others read when they like. `open_mailbox` picks one."""

from mpiconsensus.config import MAILBOXES
from mpiconsensus.errors import UserError, require_choice
from mpiconsensus.transport.mailbox.base import SLOTS, Letter, Mailbox
from mpiconsensus.transport.mailbox.board import PAGE, Part
from mpiconsensus.transport.mailbox.inprocess import InProcess
from mpiconsensus.transport.mailbox.p2p import P2P
from mpiconsensus.transport.mailbox.rma import Rma
from mpiconsensus.transport.mailbox.shared import Shared
from mpiconsensus.transport.mailbox.staged import Staged
from mpiconsensus.transport.shared import shared_memory_free

__all__ = ["SLOTS", "Letter", "Mailbox", "choose", "open_mailbox"]

BY_NAME = {cls.name: cls for cls in (InProcess, P2P, Rma, Shared)}


def choose(name, world, placement, d, dtype, free=1 << 62):
    """Return the name of the mailbox that `name` stands for on these ranks; UserError where it cannot work.

    free: the least bytes of shared memory that any rank finds on its node.
    """
    if name == "neighbor":
        raise UserError(
            "transport.name = neighbor is for algorithms with rounds; an asynchronous one takes auto, shared, rma "
            "(one-sided reads between all ranks) or p2p (messages)."
        )
    require_choice("transport.name", name, ["auto", *MAILBOXES])
    if name == "inprocess" and world.size > 1:
        raise UserError(f"transport.name = inprocess needs one process, {world.size} ranks were started; take auto, shared, rma or p2p.")
    if name in ("shared", "rma", "p2p") and world.comm is None:
        raise UserError(f"transport.name = {name} needs MPI ranks; start with mpirun -n 2 (or more), or take auto.")
    # The fullest node counts; a rank there has at most the vertices of the fullest rank.
    count = max(placement.counts)
    need = world.fullest_node * (Part(count, d, dtype.itemsize).size + PAGE)
    if name == "shared" and need > free:
        raise UserError(
            f"transport.name = shared needs {need >> 20} MiB of shared memory on the node, {free >> 20} MiB are free in /dev/shm; "
            "enlarge it, or take --set transport.name=p2p."
        )
    if name != "auto":
        return name
    if world.size == 1:
        return "inprocess"
    return "shared" if world.fullest_node > 1 and need <= free else "rma"


def open_mailbox(name, world, placement, d, dtype, device="cpu", readers=None, staged=None):
    """Return the Mailbox called `name` (auto: in place on a node, one-sided reads between nodes) for rows of d elements; collective.

    readers: {vertex: vertices that read it}. staged: rows go through host memory; None: where they lie on a GPU.
    """
    # The ranks agree on what is free: another program may take some between one rank's look and the next one's.
    free = min(world.allgather(shared_memory_free()))
    mailbox = BY_NAME[choose(name, world, placement, d, dtype, free)](world, placement, d, dtype, readers=readers)
    return Staged(mailbox, device) if staged or (staged is None and str(device) != "cpu") else mailbox
