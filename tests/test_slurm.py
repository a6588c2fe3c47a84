"""slurm/torus36.sh: on this machine, in an allocation made up with a launcher that only takes notes, and in a real Slurm."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment, run

from mpiconsensus.limits import usable_cores
from mpiconsensus.runread import Run

SCRIPT = ROOT / "slurm" / "torus36.sh"
SHORT = ["--set", "training.max_steps=2", "--set", "model.name=logistic"]


def script(*words, **changes):
    """Run `bash slurm/torus36.sh words...` with the Python of these tests."""
    return run("bash", SCRIPT, *words, timeout=240, **{"VENV": sys.prefix, **changes})


def raw_cifar(folder):
    """Write CIFAR-10's six files with 15 records each, 8 in the test set; return the folder that holds theirs."""
    random = np.random.default_rng(1)
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    for name, count in [*((f"data_batch_{k}.bin", 15) for k in range(1, 6)), ("test_batch.bin", 8)]:
        labels = random.integers(0, 10, (count, 1), dtype=np.uint8)
        pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
        (inner / name).write_bytes(np.hstack([labels, pixels]).tobytes())
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    out = folder / "cifar10-36"
    done = run(sys.executable, ROOT / "data_prep" / "cifar10.py", raw_cifar(folder), out, "--shards", 36)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def notes(tmp_path):
    """Put a launcher called mpirun first on the PATH; return (PATH, function that reads the arguments it was given)."""
    stub = tmp_path / "bin" / "mpirun"
    stub.parent.mkdir()
    stub.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo "mpirun (${VENDOR:-Open MPI}) 5.0"; exit; }\n'
        f"for word; do printf '%s\\n' \"$word\"; done > '{tmp_path}/arguments'\n"
        f"command -v python3 > '{tmp_path}/python'\n"
        f"echo \"$PWD $OMPI_ALLOW_RUN_AS_ROOT $OMPI_ALLOW_RUN_AS_ROOT_CONFIRM\" > '{tmp_path}/surroundings'\n"
    )
    stub.chmod(0o755)
    path = os.pathsep.join([str(stub.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    return path, lambda: (tmp_path / "arguments").read_text().splitlines()


def check_run(directory, shards, ranks):
    made = Run(directory)
    assert made.complete and made.graph["spec"] == "torus:6x6" and list(made.vertices) == list(range(36))
    assert made.facts["ranks"] == ranks and made.config["data"]["shards"] == str(shards)
    assert made.config["training"]["max_steps"] == 2 and made.config["training"]["lr"] == 0.1
    return made


def test_this_machine_makes_the_shards_and_trains_36_vertices(tmp_path):
    shards, out = tmp_path / "made" / "cifar10-36", tmp_path / "run"
    shards.parent.mkdir()
    raw = raw_cifar(tmp_path)
    done = script(*SHORT, "--out", out, cwd=tmp_path, RANKS="2", RAW=str(raw), SHARDS=str(shards))
    assert done.returncode == 0, done.stderr
    check_run(out, shards, ranks=2)
    assert "36 vertices, 72 edges" in done.stdout


def test_missing_shards_are_told_in_one_line(tmp_path, notes):
    path, _ = notes
    done = script(SHARDS="nowhere", VENV="", PATH=path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "`python3 data_prep/cifar10.py RAW nowhere --shards 36`" in line
    assert not (tmp_path / "arguments").exists()


def test_shards_among_the_arguments_need_no_others(notes, shards):
    path, arguments = notes
    done = script("--set", f"data.shards={shards}", SHARDS="nowhere", VENV="", PATH=path)
    assert done.returncode == 0, done.stderr
    assert arguments()[-2:] == ["--set", f"data.shards={shards}"]


def test_inside_an_allocation_the_tasks_are_the_ranks(tmp_path, notes, shards):
    path, arguments = notes
    # Slurm runs a copy: the checkout is where the job was submitted.
    copy = shutil.copy(SCRIPT, tmp_path / "slurm_script")
    allocation = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "36", "SLURM_SUBMIT_DIR": str(ROOT)}
    done = run("bash", copy, "--set", "log.name=a name", cwd=tmp_path, SHARDS=str(shards), VENV="", PATH=path, **allocation)
    assert done.returncode == 0, done.stderr
    expected = ["--bind-to", "none", "-n", "36", "python3", "-m", "mpiconsensus", "train", "jobs/torus36.toml"]
    resumed = ["--out", "runs/torus36-7", "--resume", "auto"]  # requeued, it goes on where it stopped
    assert arguments() == [*expected, "--set", f"data.shards={shards}", *resumed, "--set", "log.name=a name"]
    assert (tmp_path / "surroundings").read_text().split()[0] == str(ROOT)
    # With an empty VENV the PATH stays as the modules made it.
    assert (tmp_path / "python").read_text().strip() == str(Path(sys.executable).parent / "python3")


def test_submitted_from_elsewhere_it_says_where_from(tmp_path, notes, shards):
    path, _ = notes
    done = script(SHARDS=str(shards), VENV="", PATH=path, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert str(tmp_path) in line and "sbatch slurm/torus36.sh" in line


def test_outside_the_cores_are_the_ranks(tmp_path, notes, shards):
    path, arguments = notes
    done = script(SHARDS=str(shards), VENV="", PATH=path, OMPI_ALLOW_RUN_AS_ROOT="", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="")
    assert done.returncode == 0, done.stderr
    ranks = str(min(36, usable_cores()))
    assert arguments()[:7] == ["--bind-to", "none", "--oversubscribe", "-n", ranks, "python3", "-m"]
    assert (tmp_path / "surroundings").read_text().split()[1:] == (["1", "1"] if os.getuid() == 0 else [])


def test_another_mpi_gets_no_flags_of_open_mpi(notes, shards):
    path, arguments = notes
    done = script(SHARDS=str(shards), VENV="", PATH=path, RANKS="5", VENDOR="Hydra")
    assert done.returncode == 0, done.stderr
    assert arguments()[:3] == ["-n", "5", "python3"]


def test_another_job_and_launcher_come_from_the_environment(tmp_path, notes, shards):
    path, arguments = notes
    launcher = f"{tmp_path / 'bin' / 'mpirun'} --mpi=pmix"
    done = script(SHARDS=str(shards), VENV="", PATH=path, VENDOR="srun", LAUNCHER=launcher, RANKS="4", JOB="jobs/cifar_cycle4.toml")
    assert done.returncode == 0, done.stderr
    assert arguments()[:3] == ["--mpi=pmix", "-n", "4"] and "jobs/cifar_cycle4.toml" in arguments()


def test_without_a_launcher_it_says_how_to_get_one(shards):
    done = script(SHARDS=str(shards), LAUNCHER="no-such-mpirun")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "no-such-mpirun" in line and "make setup" in line


def test_a_signal_to_the_script_alone_stops_the_run_and_requeues_the_job(tmp_path, shards):
    """As Slurm does: the script turns it into the one that mpirun passes on, waits, and asks for a requeue; requeued, it goes on."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    allocation = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(ROOT), "RANKS": "2", "RUN": str(tmp_path / "run"), "SHARDS": str(shards)}
    launcher = "mpirun --oversubscribe"  # what Slurm would allow by itself
    env = environment(VENV=sys.prefix, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", LAUNCHER=launcher, **allocation)
    words = ["bash", SCRIPT, "--set", "model.name=logistic", "--set", "training.epochs=100000", "--set", "evaluation.samples=1"]
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    next(line for line in process.stdout if line.split()[:1] == ["2"])
    os.kill(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75 and "SIGUSR2 received" in stderr, stderr
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    with Run(tmp_path / "run") as run:
        steps = len(run.steps("step"))
    done = run_script(words, env, "--set", f"training.max_steps={steps + 2}", "--set", "training.epochs=100000")
    assert done.returncode == 0 and f"going on at step {steps} of {steps + 2}" in done.stdout, done.stderr


def run_script(words, env, *more):
    return subprocess.run([*words, *more], env=env, capture_output=True, text=True, timeout=240, check=False)


def slurm_is_up():
    if "SLURM_CONF" not in os.environ or not shutil.which("sbatch"):
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not slurm_is_up(), reason="no Slurm: set SLURM_CONF where one is up")
def test_sbatch(tmp_path, shards):
    # Yielding: an emulated cluster has more tasks than cores.
    site = {"SLURM_CONF": os.environ["SLURM_CONF"], "VENV": sys.prefix, "SHARDS": str(shards), "OMPI_MCA_mpi_yield_when_idle": "1"}
    words = ["sbatch", "--wait", f"--output={tmp_path}/log", "slurm/torus36.sh", *SHORT, "--out", tmp_path / "run"]
    done = run(*words, cwd=ROOT, timeout=600, **site)
    assert done.returncode == 0, (tmp_path / "log").read_text()
    made = check_run(tmp_path / "run", shards, ranks=36)
    if made.facts["nodes"] > 1:
        assert made.facts["transport"] == "neighbor"
