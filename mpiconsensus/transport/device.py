"""Rows on a GPU: whether MPI takes device pointers, and the way through pinned host memory where it does not."""

import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import torch

from mpiconsensus.runtime import mpi

# A child without these starts as a run of its own and is not taken for the rank that started it.
LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "SLURM_", "MPI_LOCAL", "MV2_COMM")
# What a user says about the ways that messages take holds for the child too.
KEPT = tuple(f"OMPI_MCA_{name}" for name in ("accelerator", "btl", "mtl", "opal_cuda", "pml"))
ELEMENTS = (1000, 1 << 20)  # below and above the size from which libraries send another way


def gpu_aware(world):
    """Return whether MPI was seen to send from device pointers on all nodes; collective."""
    return all(world.allgather(world.node_rank > 0 or probe()))


@functools.cache
def probe(device="cuda", timeout_s=60):
    """Return whether a child process sends rows of `device` to itself over MPI and gets the same bytes; asked once.

    A build flag is no proof: the library may miss its driver. A library that is not aware crashes, and takes the
    child alone with it.
    """
    code = f"import sys; from mpiconsensus.transport.device import sends_to_itself; sys.exit(not sends_to_itself({device!r}))"
    return succeeds([sys.executable, "-c", code], timeout_s)


def succeeds(words, timeout_s):
    """Return whether a program, started outside any launcher, ends with exit code 0 in time."""
    environ = {k: v for k, v in os.environ.items() if k.startswith(KEPT) or not k.startswith(LAUNCHERS)}
    path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environ["PYTHONPATH"] = os.pathsep.join(path).rstrip(os.pathsep)
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    child = subprocess.Popen(words, env=environ, start_new_session=True, **silent)
    try:
        return child.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # with whatever MPI has started
        child.wait()
        return False


def sends_to_itself(device):
    """Return whether rows on `device` arrive over MPI as they were sent, given to it by their addresses."""
    MPI = mpi()
    for elements in ELEMENTS:
        sent = torch.arange(1, elements + 1, dtype=torch.int32, device=device)
        received = torch.zeros_like(sent)
        Settle(sent.device)()
        messages = [[MPI.buffer.fromaddress(row.data_ptr(), 4 * elements), elements, MPI.INT32_T] for row in (sent, received)]
        requests = [MPI.COMM_SELF.Irecv(messages[1], 0), MPI.COMM_SELF.Isend(messages[0], 0)]
        MPI.Request.Waitall(requests)
        if not torch.equal(received.cpu(), torch.arange(1, elements + 1, dtype=torch.int32)):
            return False
    return True


class Settle:
    """Called, it returns when the work queued so far on the current stream of `device` is done; other streams go on."""

    def __init__(self, device):
        self._device = device
        self._event = torch.cuda.Event(blocking=True) if device.type == "cuda" else None

    def __call__(self):
        if self._event:
            self._event.record(torch.cuda.current_stream(self._device))
            self._event.synchronize()


class Staging:
    """Copies between rows on a GPU and pinned rows on the host, on a stream of their own; plain copies on the CPU.

    Both take pairs (row on the host, row on the device).
    """

    def __init__(self, device):
        self._device = device
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._event = torch.cuda.Event(blocking=True) if self._side else None

    def down(self, pairs):
        """Copy to the host; on return the copies are there, and rows that went up before may be received into."""
        if self._side is None:
            for host, row in pairs:
                host.copy_(row)
            return
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            for host, row in pairs:
                host.copy_(row, non_blocking=True)
        self._event.record(self._side)
        self._event.synchronize()

    def up(self, pairs):
        """Copy to the device: what is queued on the current stream from here on finds the rows there."""
        if self._side is None:
            for host, row in pairs:
                row.copy_(host)
            return
        current = torch.cuda.current_stream(self._device)
        self._side.wait_stream(current)  # whoever reads the rows of the round before
        with torch.cuda.stream(self._side):
            for host, row in pairs:
                row.copy_(host, non_blocking=True)
        current.wait_stream(self._side)

    def settle(self):
        """Return when what went up is there, so that the rows on the host may change."""
        if self._side:
            self._event.record(self._side)
            self._event.synchronize()
