"""Start-up of many ranks against ranks that only import torch and mpi4py, in turn; and the memory of a rank.

    python benchmarks/startup.py [--ranks 50] [--repeats 3]

Start-up ends when rank 0 speaks: in a run, with the head of its table, ahead of the first step; in the other
program behind a barrier. Memory is the largest resident set of a rank over the run.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

BASELINE = "import torch; from mpi4py import MPI; MPI.COMM_WORLD.Barrier(); MPI.COMM_WORLD.rank or print('epoch', flush=True)"


def resident_mb(name):
    """Return {pid: largest resident set in MB} of the processes whose command line holds `name`."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if name in status.with_name("cmdline").read_text() and "mpirun" not in status.with_name("cmdline").read_text():
                found.update((status.parent.name, int(kb) / 1000) for kb in re.findall(r"VmHWM:\s*(\d+)", status.read_text()))
        except OSError:
            pass  # it ended meanwhile
    return found


def measure(command, directory, name):
    """Return (seconds until 'epoch' appears, (median, largest) resident set of a rank in MB)."""
    start = time.perf_counter()
    peak = {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory)

    def watch():
        while process.poll() is None:
            peak.update(resident_mb(name))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    spoke, said = None, []
    for line in process.stdout:
        said.append(line)
        if spoke is None and line.strip().startswith("epoch"):
            spoke = time.perf_counter() - start
    watcher.join()
    if process.wait() or spoke is None:
        sys.exit("".join(said))
    return spoke, (statistics.median(peak.values()), max(peak.values()))


@click.command()
@click.option("--ranks", default=50)
@click.option("--repeats", default=3)
def main(ranks, repeats):
    launcher = [shutil.which("mpirun"), "--oversubscribe", "--bind-to", "none", "-n", str(ranks), sys.executable]
    with tempfile.TemporaryDirectory() as directory:
        sides = {
            "imports alone": ([*launcher, "-c", BASELINE], "MPI.COMM_WORLD"),
            "mpiconsensus": ([*launcher, "-m", "mpiconsensus", "train", "--set", "training.epochs=2"], "mpiconsensus"),
        }
        times = {name: [] for name in sides}
        for _ in range(repeats):
            for name, (command, word) in sides.items():
                seconds, megabytes = measure(command, directory, word)
                times[name].append(seconds)
                print(f"{name:14} {seconds:6.1f} s, a rank {megabytes[0]:.0f} MB, at most {megabytes[1]:.0f} MB", flush=True)
    ratios = [a / b for a, b in zip(times["mpiconsensus"], times["imports alone"], strict=True)]
    print(f"start-up, {ranks} ranks: mpiconsensus / imports alone, median of {repeats}: {statistics.median(ratios):.2f}")


main()
