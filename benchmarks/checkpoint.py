"""What a checkpoint costs, and what it costs that ranks agree on signals, next to the steps of training.

    mpirun -n 4 --oversubscribe --bind-to none python benchmarks/checkpoint.py [--model resnet20] [--batch 16] [--repeats 5]

A vertex a rank, at least 4. Prints the ratio of steps with and without the agreement, taken in turn in passes of a second;
and the seconds of a checkpoint, against writing the same bytes and syncing them, and against the steps of ten minutes.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import click
import torch

from mpiconsensus import checkpoint
from mpiconsensus.bench import step, timing
from mpiconsensus.bench.synthetic import source
from mpiconsensus.pulse import Pulse
from mpiconsensus.runtime import World

PASS_S = 1.0


@click.command()
@click.option("--model", default="resnet20")
@click.option("--batch", default=16)
@click.option("--repeats", default=5)
def main(model, batch, repeats):
    torch.set_num_threads(1)
    world = World.start()
    n = max(4, world.size)
    trainer = step.trainer(world, source(model, n), model, batch, f"ring:{n}")
    folder = Path(world.bcast(tempfile.mkdtemp(dir=".") if world.rank == 0 else None))
    pulse = Pulse(world, lambda: (0, 0))

    def agreeing():
        trainer.step()
        pulse.beat(trainer.k)

    def write():
        vertices = trainer.state_dict()["vertices"]
        checkpoint.write(folder, world, trainer.k, vertices, {} if world.rank == 0 else None, {})

    def plain():
        with open(folder / f"plain-{world.rank}", "wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())

    start = time.perf_counter()
    for _ in range(5):
        trainer.step()
    calls = world.bcast(max(2, round(5 * PASS_S / (time.perf_counter() - start))))
    times = timing.in_turn({"alone": trainer.step, "agreeing": agreeing}, repeats, world, calls)
    pulse.close()
    write()
    size = sum(p.stat().st_size for p in folder.rglob(f"rank-{world.rank:04d}.safetensors"))
    written = timing.in_turn({"checkpoint": write, "plain": plain}, repeats, world, 1)
    if world.rank == 0:
        ratio = timing.ratio(times["agreeing"], times["alone"])
        step_s, saved_s, plain_s = (statistics.median(t) for t in (times["alone"], written["checkpoint"], written["plain"]))
        print(f"{model}, {n} vertices on {world.size} ranks, {1e3 * step_s:.3g} ms a step, {calls} steps a pass")
        print(f"agreeing on signals / not: {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})")
        print(f"checkpoint of {size / 1e6:.2f} MB a rank: {1e3 * saved_s:.1f} ms; the same bytes written and synced: {1e3 * plain_s:.1f} ms")
        print(f"every ten minutes: {100 * saved_s / 600:.4f} % of the time, {saved_s / step_s:.2f} steps")
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()
    trainer.close()


main()
