"""What one-sided operations do on this machine: whether they go through while their target computes, and count right.

`measure` tries them between the ranks of a launcher, `advice` says in words what follows; a watchdog ends what hangs.
"""

import os
import statistics
import sys
import threading
import time

import numpy as np

from mpiconsensus.runtime import mpi

BUSY_S = 1.0
LIMIT_S = 30.0  # of one part of the probe
MEGABYTE = 1_000_000
COUNTS, LOCKS = 300, 50  # operations a rank
AT_REST = 20
OPERATIONS = ("read 8 bytes", "read 1 MB", "fetch", "swap", "write 1 MB")
READS = ("read 8 bytes", "read 1 MB", "fetch")


class Watchdog:
    """Ends this process with exit code 1 and one line when a part of the probe takes more than limit_s.

    A thread: MPI gives the interpreter free while it waits. Rank 0 speaks; the others leave it the time to do so.
    """

    def __init__(self, rank, limit_s=LIMIT_S):
        self.rank, self.limit_s, self._part, self._lasts_s, self._fed = rank, limit_s, None, 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def part(self, name, lasts_s=0.0):
        """Begin the part of this name, which lasts lasts_s where nothing hangs; None: all is done."""
        self._part, self._lasts_s = name, lasts_s
        self._fed.set()

    def _watch(self):
        while self._fed.wait(self.limit_s + self._lasts_s + (2 * (self.rank > 0) if self._part else 1e6)):
            self._fed.clear()
            if self._part is None:
                return
        if self.rank == 0:
            print(
                f"mpiconsensus: MPI hangs: {self._part} did not come to an end within {self.limit_s + self._lasts_s:g} s; "
                "take --set transport.name=p2p, and try another MPI library or another of its components.",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        os._exit(1)


def measure(world, watchdog):
    """Return the findings on rank 0, None elsewhere; collective, some ten seconds.

    {"ranks", "nodes", "busy": {(way, window): {operation: longest ms}}, "rest": {way: {operation: median ms}},
    "counts": (found, wanted), "locks": (found, wanted)}; way: "in a node" or "between nodes".
    """
    MPI = mpi()
    node = world.node_of_rank
    targets = {}
    for way, ranks in (("in a node", np.flatnonzero(node == node[0])[1:]), ("between nodes", np.flatnonzero(node != node[0]))):
        if len(ranks):
            targets[way] = int(ranks[0])
    found = {"ranks": world.size, "nodes": world.nodes, "busy": {}, "rest": {}}
    watchdog.part("making a window")
    size = 2 * 4096 + MEGABYTE
    own = np.zeros(size, np.uint8)  # stays as long as the window over it
    windows = {"allocated": MPI.Win.Allocate(size, 1, comm=world.comm)}
    if "between nodes" in targets:
        windows["of own memory"] = MPI.Win.Create(own, 1, comm=world.comm)
    for name, window in windows.items():
        window.tomemory().cast("B")[:] = bytes(size)
        window.Lock_all(MPI.MODE_NOCHECK)
        for way, target in targets.items():
            if name == "allocated" or way == "between nodes":
                found["busy"][way, name] = {
                    operation: _while_busy(world, window, target, operation, watchdog, f"{operation} {way}, window {name}")
                    for operation in OPERATIONS
                }
    watchdog.part("operations at rest")
    for way, target in targets.items():
        found["rest"][way] = {operation: _at_rest(world, windows["allocated"], target, operation) for operation in OPERATIONS}
    watchdog.part("counting by atomic operations")
    found["counts"] = _count(world, windows["allocated"])
    for window in windows.values():
        window.Unlock_all()
    watchdog.part("exclusive locks")
    found["locks"] = _count_locked(world, windows["allocated"])
    for window in windows.values():
        window.Free()
    return found if world.rank == 0 else None


def _operation(window, target, name):
    """Return a function that does the operation of this name and completes it."""
    MPI = mpi()
    word, zero, rows = np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(MEGABYTE, np.uint8)
    start = {
        "read 8 bytes": lambda: window.Get([word, 1, MPI.INT64_T], target, (0, 1, MPI.INT64_T)),
        "read 1 MB": lambda: window.Get([rows, MEGABYTE, MPI.BYTE], target, (4096, MEGABYTE, MPI.BYTE)),
        "fetch": lambda: window.Fetch_and_op(zero, word, target, 0, MPI.NO_OP),
        "swap": lambda: window.Compare_and_swap(zero, zero, word, target, 64),
        "write 1 MB": lambda: window.Put([rows, MEGABYTE, MPI.BYTE], target, (4096, MEGABYTE, MPI.BYTE)),
    }[name]

    def complete():
        start()
        window.Flush(target)

    return complete


def _while_busy(world, window, target, name, watchdog, words):
    """Return on rank 0 the longest time of an operation, in ms, while its target computes for BUSY_S without entering MPI."""
    watchdog.part(words)
    operation, longest_s = _operation(window, target, name), 0.0
    world.barrier()
    begin = time.monotonic()
    if world.rank == target:
        rows = np.ones((200, 200))
        while time.monotonic() - begin < BUSY_S:
            rows @ rows
    elif world.rank == 0:
        time.sleep(0.1 * BUSY_S)
        while time.monotonic() - begin < 0.6 * BUSY_S:
            start = time.perf_counter()
            operation()
            longest_s = max(longest_s, time.perf_counter() - start)
    else:
        time.sleep(BUSY_S)
    world.barrier()
    return 1e3 * longest_s


def _at_rest(world, window, target, name):
    times = []
    world.barrier()
    if world.rank == 0:
        operation = _operation(window, target, name)
        for _ in range(AT_REST):
            start = time.perf_counter()
            operation()
            times.append(time.perf_counter() - start)
    world.barrier()
    return 1e3 * statistics.median(times) if times else None


def _count(world, window):
    """Return (found, wanted) of a word that all ranks raise by one, half of the times by Compare_and_swap."""
    MPI = mpi()
    one, word, before, after = (np.array([number], np.int64) for number in (1, 0, 0, 0))
    at = 128
    world.barrier()
    for _ in range(COUNTS):
        window.Fetch_and_op(one, word, 0, at, MPI.SUM)
        window.Flush(0)
        while True:
            after[0] = before[0] + 1
            window.Compare_and_swap(after, before, word, 0, at)
            window.Flush(0)
            if word[0] == before[0]:
                break
            before[0] = word[0]
    world.barrier()
    window.Fetch_and_op(one, word, 0, at, MPI.NO_OP)
    window.Flush(0)
    return int(word[0]), 2 * COUNTS * world.size


def _count_locked(world, window):
    """Return (found, wanted) of a word that all ranks read and write under an exclusive lock."""
    MPI = mpi()
    word = np.zeros(1, np.int64)
    world.barrier()
    for _ in range(LOCKS):
        window.Lock(0, MPI.LOCK_EXCLUSIVE)
        window.Get([word, 1, MPI.INT64_T], 0, (256, 1, MPI.INT64_T))
        window.Flush(0)
        word[0] += 1
        window.Put([word, 1, MPI.INT64_T], 0, (256, 1, MPI.INT64_T))
        window.Unlock(0)
    world.barrier()
    window.Lock(0, MPI.LOCK_SHARED)
    window.Get([word, 1, MPI.INT64_T], 0, (256, 1, MPI.INT64_T))
    window.Unlock(0)
    return int(word[0]), LOCKS * world.size


def through(times, operations):
    """Return whether the operations, {name: longest ms}, did not wait for their target's next call of MPI."""
    return all(times[name] < 500 * BUSY_S for name in operations)


def wrong(found):
    """Return a sentence for each count that does not hold."""
    words = {"counts": "atomic operations lose counts", "locks": "exclusive locks lose counts"}
    return [
        f"{text}: {found[name][0]} of {found[name][1]} arrived; take --set transport.name=shared on one node, p2p on several."
        for name, text in words.items()
        if found[name][0] != found[name][1]
    ]


def advice(found):
    """Return the sentences that follow from the findings: the transport to take, and what waits."""
    near, far = (found["busy"].get((way, "allocated")) for way in ("in a node", "between nodes"))
    if far is None:
        yield "take transport.name = auto: on one node rows are read in place (shared), and no operation of MPI is waited for."
        if near and not through(near, READS):
            yield "rma would wait: on this node one-sided reads do not go through while their target computes."
        return
    if through(found["busy"]["between nodes", "of own memory"], READS) and through(far, READS):
        yield "take transport.name = auto: rows of a node are read in place, those of other nodes by one-sided reads (rma)."
    elif through(far, READS):
        yield "take --set transport.name=rma: reads between nodes go through while their target computes in an allocated window alone."
    else:
        yield "take --set transport.name=p2p: one-sided reads between nodes wait for their target's next call of MPI."
    if not through(far, ("swap", "write 1 MB")):
        yield "adpsgd will wait between nodes: what is written to a rank waits for its next call of MPI; async-gossip only reads."
