"""What a round cannot beat: a copy of the same bytes by all ranks at once, and the switches of ranks that share a core."""

import os
import subprocess
import sys
import time
from itertools import cycle

import numpy as np
import torch

TRIPS_S, PARTS = 0.02, 3
# One byte comes back for each that is sent; the process ends when its input does.
ECHO = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile b := os.read(0, 1): os.write(1, b)"


class Copy:
    """The m rows of the rank copied to m others, as a round reads and writes them; `sets` of them, one after another.

    ways: two copies, torch's (on all threads of the rank) and memcpy; the quicker one is the floor. bytes: of all sets.
    pairs: a (source, target) of (m, d) each for every set.
    """

    def __init__(self, m, d, dtype, sets=1):
        # Written to: the pages of an untouched array are all one page of zeros, which no cache misses.
        self.pairs = [[torch.full((m, d), value, dtype=dtype) for value in (1.0, 2.0)] for _ in range(sets)]
        turns, turns_of_arrays = cycle(self.pairs), cycle([[side.numpy() for side in pair] for pair in self.pairs])

        def by_torch():
            source, target = next(turns)
            target.copy_(source)

        def by_memcpy():
            source, target = next(turns_of_arrays)
            np.copyto(target, source)

        self.ways = {"copy, torch": by_torch, "copy, memcpy": by_memcpy}
        self.bytes = sets * 2 * m * d * dtype.itemsize


def sets_beyond(cache, own, running):
    """Return how many sets of `own` bytes each of the `running` ranks must copy in turn to pass twice the bytes of a cache.

    Ranks that wait for a core hold no cache: their rows alone would let those of the others stay in it.
    """
    return -(-2 * cache // (own * running))


def rows_moved(rows):
    """Return how many rows a round moves: each vertex reads its own and its neighbours' and writes one; rows of weights.rows."""
    return sum(len(indices) + 1 for indices, _ in rows if len(indices) > 1)


class Switch:
    """A byte to and fro between rank 0 and a child on the same core, over two pipes, while the other ranks sleep.

    Half of a round trip is one switch between processes, with the read and the write that a wait costs.
    """

    HOW = "half the round trip of a byte over two pipes between rank 0 and a child process on one core, the other ranks asleep"

    def __init__(self, world):
        self.world, self.child, self.found = world, None, []
        if world.rank == 0:
            self.cores = os.sched_getaffinity(0)
            words = [sys.executable, "-I", "-S", "-c", ECHO, str(max(self.cores))]
            self.child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def measure(self):
        """Add the seconds of a switch to `found`; collective, some tenths of a second."""
        self.world.barrier()
        if self.world.rank == 0:
            os.sched_setaffinity(0, {max(self.cores)})
            try:
                self._trip()  # the child may still be starting
                self.found += [self._part() for _ in range(PARTS)]
            finally:
                os.sched_setaffinity(0, self.cores)
        else:
            # Not in a barrier: ranks that poll would take their turns on the core.
            time.sleep(2 * PARTS * TRIPS_S)
        self.world.barrier()

    def _part(self):
        start, trips = time.perf_counter(), 0
        while (spent := time.perf_counter() - start) < TRIPS_S:
            self._trip()
            trips += 1
        return spent / (2 * trips)

    def _trip(self):
        self.child.stdin.write(b"x")
        self.child.stdout.read(1)

    def close(self):
        if self.child:
            self.child.communicate()


def least_switches(ranks, cores):
    """Return how often a core must change between ranks in a round: each rank needs its turn, and the last one may begin the next round."""
    return -(-ranks // cores) - 1
