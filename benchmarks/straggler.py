"""What one slow vertex costs the fast ones: 8 vertices of a ring, one four times slower, with and without rounds.

    python benchmarks/straggler.py [--steps 40] [--step-s 0.1]
    python benchmarks/straggler.py --cost [--repeats 3]

Each run is `mpirun -n 8`, on the digits with a small model; a gradient lasts 0.1 s at least, emulated by sleeping, so that
the straggler frees no processor for the others. The steps a second of the seven fast vertices are told as shares of those in a
run without a straggler. With --cost nobody is slow, the ways take turns, and the figure is the steps a second over those of the
synchronous run beside it: what asynchrony costs where it is not needed. Needs the package installed, or PYTHONPATH at the checkout.
"""

import json
import shutil
import statistics
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
    "staleness 0": ["algorithm.name=bounded-staleness", "algorithm.staleness=0"],
    "staleness inf, max_age 8": ["algorithm.name=bounded-staleness", "algorithm.staleness=inf", "algorithm.max_age=8"],
    "adpsgd": ["algorithm.name=adpsgd"],
    "async-gossip": ["algorithm.name=async-gossip"],
}


def rate(folder, keys, steps, step_s, slow):
    """Return the steps a second of the seven fast vertices, between their fifth and their last step."""
    speed = [1.0] * (N - 1) + [0.25 if slow else 1.0]
    keys = [*keys, f"topology.graph=ring:{N}", "model.name=mlp", f"hetero.speed={speed}", f"hetero.least_step_s={step_s}", "training.epochs=1000",
            f"training.max_steps={steps}", "algorithm.ends=first", "evaluation.every=1000"]  # fmt: skip
    words = [word for key in keys for word in ("--set", key)]
    launcher = [shutil.which("mpirun"), "--oversubscribe", "--bind-to", "none", "-n", str(N)]
    done = subprocess.run([*launcher, sys.executable, "-m", "mpiconsensus", "train", *words, "--out", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1])
    with Run(folder) as run:
        ended = run.steps("ended_s")[:, : N - 1]
    return float(np.mean([(np.isfinite(column).sum() - 5) / (np.nanmax(column) - column[4]) for column in ended.T]))


def price(steps, step_s, repeats):
    """Return {way: its steps a second over those of the synchronous run of the same turn, one a turn}, and tell the medians."""
    shares = {name: [] for name in WAYS}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            rates = {name: rate(Path(folder) / name, keys, steps, step_s, False) for name, keys in WAYS.items()}
        for name, found in rates.items():
            shares[name].append(found / rates["synchronous (consensus)"])
    for name, found in shares.items():
        click.echo(f"{name:28} {statistics.median(found):.3f} of the synchronous steps a second ({min(found):.3f} to {max(found):.3f})")
    return shares


@click.command(help=__doc__)
@click.option("--steps", default=40, help="Steps of a fast vertex.")
@click.option("--step-s", default=0.1, help="Seconds of a gradient at speed 1, at least.")
@click.option("--cost", is_flag=True, help="Steps a second without a straggler, over those of the synchronous run.")
@click.option("--repeats", default=1, help="Turns of --cost.")
def main(steps, step_s, cost, repeats):
    if cost:
        click.echo(json.dumps(price(steps, step_s, repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, keys in WAYS.items():
            even = rate(Path(folder) / f"{name} even", keys, steps, step_s, False)
            slow = rate(Path(folder) / f"{name} slow", keys, steps, step_s, True)
            found[name] = {"alone": even, "with a straggler": slow, "share": slow / even}
            click.echo(f"{name:28} {slow:6.2f} of {even:6.2f} steps a second: {slow / even:.3f}")
        click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
