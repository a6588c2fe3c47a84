"""Seconds to a test accuracy on Fashion-MNIST: 8 vertices of a ring, one four times slower, with and without rounds.

    python data_prep/fashion_mnist.py RAW shards/fashion-8 --shards 8
    python benchmarks/time_to_accuracy.py shards/fashion-8 [--target 0.82] [--epochs 6] [--step-s 0.1]

Each run is `mpirun -n 8`, on a small MLP; a gradient lasts 0.1 s at least, emulated by sleeping, so that the straggler frees no
processor for the others. The accuracy is that of the mean model, on the same 2,000 test samples, each time rank 0 has ended an
epoch of its own, a fast one; between two of them it is interpolated. In a run without rounds the mean is over the newest rows.
The synchronous run takes the epochs that are given, the others half as many again, until the first vertex is through.
Needs the package installed, or PYTHONPATH at the checkout.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np

from mpiconsensus.runread import Run

N = 8
WAYS = {
    "synchronous (consensus)": ["algorithm.name=consensus"],
    "staleness inf, max_age 8": ["algorithm.name=bounded-staleness", "algorithm.staleness=inf", "algorithm.max_age=8"],
    "adpsgd": ["algorithm.name=adpsgd"],
    "async-gossip": ["algorithm.name=async-gossip"],
}
JOB = [f"topology.graph=ring:{N}", "model.name=mlp", "training.batch_size=250", "training.lr=0.05", f"hetero.speed={[1.0] * (N - 1) + [0.25]}",
       "evaluation.every=1", "evaluation.samples=2000", "algorithm.ends=first", "checkpoint.every_minutes=0"]  # fmt: skip


def seconds_to(target, seconds, accuracy):
    """Return when `accuracy` (E,) first reaches `target`, between two of `seconds` (E,) by interpolation; NaN where it never does."""
    there = np.flatnonzero(accuracy >= target)
    if not len(there):
        return float("nan")
    last = there[0]
    if last == 0:
        return float(seconds[0])
    part = (target - accuracy[last - 1]) / (accuracy[last] - accuracy[last - 1])
    return float(seconds[last - 1] + part * (seconds[last] - seconds[last - 1]))


def train(folder, shards, keys):
    """Run a job and return its (seconds, accuracy of the mean model), each (E,), and the accuracy of the mean model at the end."""
    words = [word for key in [*JOB, *keys, f"data.shards={shards}"] for word in ("--set", key)]
    launcher = [shutil.which("mpirun"), "--oversubscribe", "--bind-to", "none", "-n", str(N)]
    done = subprocess.run([*launcher, sys.executable, "-m", "mpiconsensus", "train", *words, "--out", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1])
    with Run(folder) as run:
        seconds, accuracy = run.network("seconds"), run.network("mean_accuracy")
        known = np.isfinite(accuracy)
        return seconds[known], accuracy[known], float(run.closing["mean_accuracy"])


@click.command(help=__doc__)
@click.argument("shards")
@click.option("--target", default=0.82, help="Test accuracy of the mean model.")
@click.option("--epochs", default=6, help="Epochs of the synchronous run; one takes 3 s at full speed.")
@click.option("--step-s", default=0.1, help="Seconds of a gradient at speed 1, at least.")
def main(shards, target, epochs, step_s):
    found, first = {}, None
    with tempfile.TemporaryDirectory() as folder:
        for name, keys in WAYS.items():
            rounds = name.startswith("synchronous")
            words = [*keys, f"training.epochs={epochs if rounds else epochs + epochs // 2}", f"hetero.least_step_s={step_s}"]
            seconds, accuracy, end = train(Path(folder) / name, Path(shards).resolve(), words)
            took = seconds_to(target, seconds, accuracy)
            first = took if first is None else first
            found[name] = {"seconds": took, "times faster": first / took, "accuracy at the end": end, "curve": [seconds.tolist(), accuracy.tolist()]}
            click.echo(f"{name:28} {took:7.1f} s to {target:.3f}, {first / took:5.2f} times as fast; {end:.4f} behind {seconds[-1]:.1f} s")
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
