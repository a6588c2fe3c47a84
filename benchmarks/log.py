"""Steps of many ranks with their log against the same steps without: what logging adds to a step.

    python benchmarks/log.py [--ranks 36] [--step-ms 200] [--flush-s 30] [--block-s 31] [--pairs 4]

A process a rank; a step computes nothing, sleeps `step-ms`, and ends when all have ended it, so that one that is late
delays everyone, as in a synchronous run. It logs as a run does: the figures of every step, rows written every two
seconds, flushes with fsync, and run.h5 assembled by a process beside rank 0. Blocks of steps with and without the log take turns in
one run. Printed: the median over the pairs of blocks of time with / time without, and its range; the same of two blocks
without (the noise); and what ranks spend in the log, by the clock and of a core, as a part of their step. Where ranks share
cores, as 36 on a small machine, the first figure is far more than ranks with a core each would see.
"""

import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from mpiconsensus.assembly import Assembly
from mpiconsensus.logpace import LogPace
from mpiconsensus.record import Record
from mpiconsensus.runlog import RankLog

SIDES = ("log", "none", "none again")


class Rank:
    """One rank: its log, and the barrier that stands for the exchange."""

    def __init__(self, rank, ranks, folder, step_s, flush_s, barrier):
        self.barrier, self.step_s = barrier, step_s
        self.log = RankLog(folder / "log" / f"rank-{rank:04d}.h5", rank, [rank], network=rank == 0)
        if rank == 0:
            pairs = [(v, (v + 1) % ranks) for v in range(ranks)]
            figures = {"lambda2_modulus": 1.0, "spectral_gap": 0.0, "spec": f"ring:{ranks}", "weights": "-"}
            graph = {"n": ranks, "edges": pairs, "W": np.eye(ranks), **figures}
            self.log.describe("", {}, graph)
        self.pace = LogPace(self.log, flush_s, Assembly(folder) if rank == 0 else None)
        self.record, self.taken, self.spent = Record(1, 0, 1_000_000), 0, np.zeros(2)

    def block(self, steps, logging):
        """Take so many steps and return their seconds."""
        self.barrier.wait()
        start = time.perf_counter()
        for _ in range(steps):
            time.sleep(self.step_s)
            if logging:
                began = time.perf_counter(), time.thread_time()
                self.record.add(0.5, 0.1, 1e-3, 2e-3, 3e-3, 4e-3, 0.0, 1000, 1.0)
                self.pace.beat(self._write)
                self.spent += np.subtract((time.perf_counter(), time.thread_time()), began)
                self.taken += 1
            self.barrier.wait()
        return time.perf_counter() - start

    def _write(self):
        self.log.steps(**self.record.unlogged())


def work(rank, ranks, folder, step_s, flush_s, steps, pairs, barrier, told):
    me = Rank(rank, ranks, folder, step_s, flush_s, barrier)
    me.block(min(steps, 20), False)
    times = [{side: me.block(steps, side == "log") for side in SIDES} for _ in range(pairs)]
    told.put((rank, (me.spent / (me.taken * step_s)).tolist(), times))
    barrier.wait()
    me.pace.close()


@click.command()
@click.option("--ranks", default=36)
@click.option("--step-ms", default=200.0, help="200: ResNet-20, two vertices a rank.")
@click.option("--flush-s", default=30.0)
@click.option("--block-s", default=31.0)
@click.option("--pairs", default=4)
def main(ranks, step_ms, flush_s, block_s, pairs):
    context = multiprocessing.get_context("fork")
    barrier, told = context.Barrier(ranks), context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        steps = max(1, round(1e3 * block_s / step_ms))
        common = (ranks, Path(folder), step_ms / 1e3, flush_s, steps, pairs, barrier, told)
        children = [context.Process(target=work, args=(rank, *common)) for rank in range(ranks)]
        for child in children:
            child.start()
        found = sorted(told.get() for _ in children)
        for child in children:
            child.join()
    times, spent = found[0][2], 100 * np.array([part for _, part, _ in found])
    print(f"{ranks} ranks, steps of {step_ms:g} ms, {pairs} blocks of {steps} steps a side, flush every {flush_s:g} s")
    for side in ("log", "none again"):
        ratios = [100 * (pair[side] / pair["none"] - 1) for pair in times]
        print(f"{side:<10} against none: {statistics.median(ratios):+.2f} % ({min(ratios):+.2f} to {max(ratios):+.2f})")
    print(f"a step without the log: {1e3 * statistics.median(pair['none'] for pair in times) / steps:.1f} ms")
    for what, part in zip(("by the clock", "of a core"), spent.T, strict=True):
        print(f"spent in the log, {what}: {np.median(part):.3f} % of a step, median rank; {part.max():.3f} % at most")


if __name__ == "__main__":
    main()
