"""The scripts of slurm/: on this machine, and in allocations made up with a launcher that only takes notes.

tests/test_real_slurm.py submits them to a real Slurm.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, environment, run

from mpiconsensus import config
from mpiconsensus.limits import usable_cores
from mpiconsensus.runread import Run

SLURM = ROOT / "slurm"
SCRIPT = SLURM / "torus36.sh"
# script -> (job, its graph, ranks that #SBATCH asks for, what the script puts ahead of the arguments)
TRAINING = {
    "torus36.sh": ("jobs/torus36.toml", "torus:6x6", 36, []),
    "ring4.sh": ("jobs/ring4.toml", "ring:4", 4, []),
    "expander25.sh": ("jobs/expander25.toml", "margulis:25", 25, []),
    "grid50.sh": ("jobs/grid50.toml", "grid:5x10", 50, []),
    "hetero.sh": ("jobs/hetero36.toml", "torus:6x6", 36, []),
    "gpu_node.sh": ("jobs/torus36.toml", "torus:6x6", 4, ["--set", "training.device=cuda"]),
}
SCRIPTS = [*TRAINING, "prepare_data.sh"]
SHORT = ["--set", "training.max_steps=2", "--set", "model.name=logistic"]


def script(*words, path=SCRIPT, **changes):
    """Run `bash slurm/torus36.sh words...` with the Python of these tests."""
    return run("bash", path, *words, timeout=240, **{"VENV": sys.prefix, **changes})


def one_line(done):
    """Return the one line of a mistake that a script tells."""
    assert done.returncode == 2 and done.stdout == "", done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def options(name):
    """Return the words of a script's #SBATCH lines."""
    return [line.split()[1] for line in (SLURM / name).read_text().splitlines() if line.startswith("#SBATCH ")]


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
        f"command -v python3 > '{tmp_path}/python'; env > '{tmp_path}/environment'\n"
        f"echo \"$PWD $OMPI_ALLOW_RUN_AS_ROOT $OMPI_ALLOW_RUN_AS_ROOT_CONFIRM\" > '{tmp_path}/surroundings'\n"
    )
    stub.chmod(0o755)
    path = os.pathsep.join([str(stub.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    return path, lambda: (tmp_path / "arguments").read_text().splitlines()


def batch(tmp_path, name, *words, tasks, **changes):
    """Run a script as Slurm does: a copy, kept elsewhere, of a job submitted from the checkout."""
    copy = shutil.copy(SLURM / name, tmp_path / "slurm_script")
    allocation = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": str(tasks), "SLURM_TASKS_PER_NODE": str(tasks), "SLURM_SUBMIT_DIR": str(ROOT)}
    return run("bash", copy, *words, cwd=tmp_path, timeout=240, **{**allocation, **changes})


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
    line = one_line(done)
    assert "`python3 data_prep/cifar10.py RAW nowhere --shards 36`" in line and line.startswith("torus36.sh: ")
    assert not (tmp_path / "arguments").exists()


def test_shards_among_the_arguments_need_no_others(notes, shards):
    path, arguments = notes
    done = script("--set", f"data.shards={shards}", SHARDS="nowhere", VENV="", PATH=path)
    assert done.returncode == 0, done.stderr
    assert arguments()[-2:] == ["--set", f"data.shards={shards}"]


def test_inside_an_allocation_the_tasks_are_the_ranks(tmp_path, notes, shards):
    path, arguments = notes
    # Slurm runs a copy: the checkout is where the job was submitted.
    done = batch(tmp_path, "torus36.sh", "--set", "log.name=a name", tasks=36, SHARDS=str(shards), VENV="", PATH=path)
    assert done.returncode == 0, done.stderr
    expected = ["--bind-to", "none", "-n", "36", "python3", "-m", "mpiconsensus", "train", "jobs/torus36.toml"]
    resumed = ["--out", "runs/torus36-7", "--resume", "auto"]  # requeued, it goes on where it stopped
    assert arguments() == [*expected, *resumed, "--set", f"data.shards={shards}", "--set", "log.name=a name"]
    assert (tmp_path / "surroundings").read_text().split()[0] == str(ROOT)
    # With an empty VENV the PATH stays as the modules made it.
    assert (tmp_path / "python").read_text().strip() == str(Path(sys.executable).parent / "python3")


def test_submitted_from_elsewhere_it_says_where_from(tmp_path, notes):
    path, _ = notes
    for name in SCRIPTS:
        line = one_line(batch(tmp_path, name, tasks=4, VENV="", PATH=path, SLURM_SUBMIT_DIR=str(tmp_path)))
        assert line.startswith(f"{name}: ") and str(tmp_path) in line and f"sbatch slurm/{name}" in line


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


def test_another_job_launcher_and_container_come_from_the_environment(tmp_path, notes):
    path, arguments = notes
    launcher = f"{tmp_path / 'bin' / 'mpirun'} --mpi=pmix"
    changes = {"VENDOR": "srun", "LAUNCHER": launcher, "RANKS": "3", "JOB": "jobs/expander50.toml", "INSIDE": "env A=b"}
    done = script(VENV="", PATH=path, **changes)
    assert done.returncode == 0, done.stderr
    words = ["--mpi=pmix", "-n", "3", "env", "A=b", "python3", "-m", "mpiconsensus", "train", "jobs/expander50.toml"]
    assert arguments() == words  # no shards: the job needs none


def test_without_a_launcher_it_says_how_to_get_one(shards):
    done = script(SHARDS=str(shards), LAUNCHER="no-such-mpirun")
    line = one_line(done)
    assert "no-such-mpirun" in line and "make setup" in line


def test_a_signal_to_the_script_alone_stops_the_run_and_requeues_the_job(tmp_path, shards):
    """As Slurm does: the script turns it into the one that mpirun passes on, waits, and asks for a requeue; requeued, it goes on."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    allocation = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(ROOT), "RANKS": "2", "RUN": str(tmp_path / "run"), "SHARDS": str(shards)}
    launcher = "mpirun --oversubscribe"  # what Slurm would allow by itself
    env = environment(VENV=sys.prefix, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}", LAUNCHER=launcher, **allocation)
    copy = shutil.copy(SCRIPT, tmp_path / "slurm_script")
    words = ["bash", copy, "--set", "model.name=logistic", "--set", "training.epochs=100000", "--set", "evaluation.samples=1"]
    for told, requeued in ((signal.SIGTERM, False), (signal.SIGUSR2, True)):  # scancel's, and the end of the time
        process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        next(line for line in process.stdout if line[:5].strip().isdecimal())  # the first row of its table
        os.kill(process.pid, told)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 75 and "SIGUSR2 received" in stderr, stderr
        assert (tmp_path / "asked").exists() == requeued
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    with Run(tmp_path / "run") as run:
        steps = len(run.steps("step"))
    done = run_script(words, env, "--set", f"training.max_steps={steps + 2}", "--set", "training.epochs=100000")
    assert done.returncode == 0 and f"going on at step {steps} of {steps + 2}" in done.stdout, done.stderr


def run_script(words, env, *more):
    return subprocess.run([*words, *more], env=env, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize("name", TRAINING)
def test_a_script_starts_its_job_with_its_tasks(tmp_path, notes, name):
    path, arguments = notes
    job, graph, ranks, ahead = TRAINING[name]
    stub = tmp_path / "bin" / "nvidia-smi"
    stub.write_text("#!/bin/sh\necho GPU 0; echo GPU 1\n")
    stub.chmod(0o755)
    assert f"--ntasks={ranks}" in options(name) and config.load(ROOT / job).topology.graph == graph
    # Digits: what the job's own shards say is tested with the jobs.
    words = ["--set", "data.shards=", "--set", "model.name=logistic"]
    done = batch(tmp_path, name, *words, tasks=ranks, VENV="", PATH=path)
    assert done.returncode == 0, done.stderr
    expected = ["-n", str(ranks), "python3", "-m", "mpiconsensus", "train", job, "--out", f"runs/{Path(name).stem}-7", "--resume", "auto"]
    assert arguments()[2:] == [*expected, *ahead, *words]
    done = script(*words, path=SLURM / name, VENV="", PATH=path)
    assert done.returncode == 0, done.stderr
    here = 2 if name == "gpu_node.sh" else min(ranks, usable_cores())
    assert arguments()[2:] == ["--oversubscribe", "-n", str(here), "python3", "-m", "mpiconsensus", "train", job, *ahead, *words]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_what_slurm_and_a_reader_need(name):
    text = (SLURM / name).read_text()
    assert text.startswith("#!/usr/bin/env bash\n#SBATCH --job-name=") and "\nset -euo pipefail\n" in text and '"$@"' in text
    assert {"--requeue", "--open-mode=append", "--output=%x-%j.log"} <= set(options(name))
    assert name not in TRAINING or "--signal=B:USR2@120" in options(name)
    assert len(text.splitlines()) < 50


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck():
    done = run("shellcheck", "-x", *SLURM.glob("*.sh"), cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_what_an_outer_rank_and_allocation_left_behind_is_gone(tmp_path, notes):
    path, _ = notes
    left = {
        "PMIX_RANK": "1", "PMI_SIZE": "2", "OMPI_COMM_WORLD_SIZE": "2", "PRTE_LAUNCHED": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_SRUN_COMM_HOST": "x", "SLURM_MEM_PER_CPU": "10", "SLURM_CPU_BIND": "quiet,mask_cpu:0x1", "SLURM_NTASKS_PER_NODE": "3",
    }  # fmt: skip
    kept = {"OMPI_MCA_btl": "self,sm,tcp", "PRTE_MCA_x": "1", "SLURM_NODELIST": "n1"}
    found = lambda: dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    done = batch(tmp_path, "ring4.sh", tasks=4, VENV="", PATH=path, **left, **kept)
    assert done.returncode == 0, done.stderr
    assert not left.keys() & found().keys() and kept.items() <= found().items()
    batch(tmp_path, "ring4.sh", tasks=4, VENV="", PATH=path, SLURM_NTASKS_PER_NODE="2", SLURM_TASKS_PER_NODE="2(x2)")
    assert found()["SLURM_NTASKS_PER_NODE"] == "2"  # the job's own


@pytest.mark.parametrize(
    ("log", "model", "restarts", "code", "requeued"),
    [(True, "", "0", 1, True), (True, '{"last": {}}', "0", 1, True), (True, '{"last": {}, "best": {}}', "0", 0, False), (True, "", "5", 1, False), (False, "", "0", 0, False)],
)
def test_a_launcher_that_lost_a_node_and_ends_with_0_is_not_believed(tmp_path, notes, log, model, restarts, code, requeued):
    """A run is finished when its models are there. What has no log yet, such as --dry-run, is no run."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    if log:
        (tmp_path / "run" / "log").mkdir(parents=True)
    if model:
        (tmp_path / "run" / "model").mkdir()
        (tmp_path / "run" / "model" / "index.json").write_text(model)
    done = batch(tmp_path, "ring4.sh", tasks=4, VENV="", PATH=notes[0], RUN=str(tmp_path / "run"), SLURM_RESTART_COUNT=restarts)
    assert done.returncode == code, done.stderr
    assert ("is not finished" in done.stderr) == (code == 1)
    assert (tmp_path / "asked").exists() == requeued
    assert not requeued or (tmp_path / "asked").read_text() == "requeue 7\n"


def test_by_hand_in_an_allocation_its_tasks_are_taken_and_nothing_is_requeued(tmp_path, notes):
    path, arguments = notes
    done = script(path=SLURM / "ring4.sh", VENV="", PATH=path, SLURM_JOB_ID="7", SLURM_NTASKS="3", SLURM_SUBMIT_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert arguments() == ["--bind-to", "none", "-n", "3", "python3", "-m", "mpiconsensus", "train", "jobs/ring4.toml"]


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("ring4.sh", {"SLURM_NTASKS": "5", "SLURM_JOB_ID": "7"}, ["5 tasks", "4 vertices of ring:4", "--ntasks=4", "RANKS=4"]),
        ("ring4.sh", {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "RANKS": "3"}, ["RANKS = 3", "2 tasks", "sbatch --ntasks=3"]),
        ("ring4.sh", {"RANKS": "none"}, ["RANKS = 'none'", "at least 1"]),
        ("ring4.sh", {"JOB": "jobs/nothing.toml"}, ["no job file jobs/nothing.toml", str(ROOT)]),
        ("ring4.sh", {"LAUNCHER": "no-launcher --mpi=pmix"}, ["no no-launcher on the PATH"]),
        ("ring4.sh", {"INSIDE": "apptainer-here exec image"}, ["no apptainer-here on the PATH"]),
        ("hetero.sh", {}, ["no shards in shards/cifar10-36-unequal", f"--shards 36 --powers {'2,' * 18}{'1,' * 17}1`", "RAW"]),
        ("grid50.sh", {"JOB": "jobs/fashion_cycle4.toml"}, ["`python3 data_prep/fashion_mnist.py RAW shards/fashion-4 --shards 4`"]),
        ("gpu_node.sh", {"SLURM_GPUS_ON_NODE": "0"}, ["no GPU here", "--gpus-per-node"]),
        ("prepare_data.sh", {}, ["`python3 data_prep/cifar10.py RAW shards/cifar10-36 --shards 36`", "RAW"]),
        ("prepare_data.sh", {"JOB": "jobs/ring4.toml"}, ["jobs/ring4.toml needs no shards"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_ahead_of_the_ranks(tmp_path, notes, name, changes, words):
    path, _ = notes
    line = one_line(script(path=SLURM / name, VENV="", PATH=path, **changes))
    assert line.startswith(f"{name}: ") and all(word in line for word in words), line
    assert not (tmp_path / "arguments").exists()


def test_wrong_arguments_are_told_ahead_of_the_ranks(tmp_path, notes, shards):
    path, _ = notes
    ring4 = {"path": SLURM / "ring4.sh", "VENV": "", "PATH": path}
    assert "algorithm.periods" in one_line(script("--set", "algorithm.periods=2", **ring4))
    assert "--sets" in one_line(script("--sets", "algorithm.period=2", **ring4))
    assert "36 shards, the graph has 4 vertices" in one_line(script(**ring4, SHARDS=str(shards)))
    assert "SHARDS --shards 16`" in one_line(script("--set", "topology.graph=torus:4x4", VENV="", PATH=path, SHARDS="SHARDS"))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (bare / "python3").chmod(0o755)
    assert "VENV" in one_line(script(path=SLURM / "ring4.sh", VENV="", PATH=f"{bare}:{path}", PYTHONPATH=""))
    assert not (tmp_path / "arguments").exists()


def test_a_job_that_does_not_say_how_its_shards_are_made(tmp_path, notes):
    path, _ = notes
    job = tmp_path / "mine.toml"
    job.write_text('[topology]\ngraph = "ring:4"\n[data]\nshards = "nowhere"\n')
    line = one_line(script(path=SLURM / "ring4.sh", VENV="", PATH=path, JOB=str(job), RAW="raw"))
    assert "nowhere" in line and str(job) in line and "docs/prepare-data.md" in line


def test_prepare_data_makes_stripes_and_verifies_what_a_job_needs(tmp_path):
    path, made = SLURM / "prepare_data.sh", tmp_path / "storage" / "shards"
    made.parent.mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lfs").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/striped\n')
    (tmp_path / "bin" / "lfs").chmod(0o755)
    site = {"RAW": str(raw_cifar(tmp_path)), "SHARDS": str(made), "JOB": "jobs/hetero36.toml", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = script("--seed", "3", path=path, STRIPE="2", **site)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["powers"] == [2.0] * 18 + [1.0] * 18 and manifest["seed"] == 3
    assert (tmp_path / "striped").read_text().splitlines()[-1] == f"setstripe -c 2 -- {made.parent}"
    (made / "shard-0007.h5").write_bytes(b"")
    done = script("--seed", "3", path=path, STRIPE="", **site)
    assert done.returncode == 2 and "shard-0007.h5" in done.stdout + done.stderr


def test_the_container_holds_what_the_scripts_start():
    text = (SLURM / "mpiconsensus.def").read_text()
    assert all((ROOT / line.split()[0]).exists() for line in text.partition("%files\n")[2].partition("\n%")[0].splitlines() if line.strip())
