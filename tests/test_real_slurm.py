"""The job scripts under a real Slurm, on four pretended nodes of this machine (slurm_cluster.py): `make test-slurm`.

Interrupted jobs run side by side, two ranks each; every one must end with the parameters of a run in one process that nobody touched.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import slurm_cluster
from conftest import ROOT, cli, run, small_job
from safetensors.numpy import load_file
from test_slurm import raw_cifar

from mpiconsensus.runread import Run

# By themselves: beside other tests a pretended node is too slow for what is awaited of it.
ASKED = bool(os.environ.get("MPICONSENSUS_TEST_SLURM"))
pytestmark = pytest.mark.skipif(not ASKED or bool(slurm_cluster.missing()), reason=f"make test-slurm runs these; no Slurm: {slurm_cluster.missing()}")
STEPS = 200
# Flushed every second: from another machine a run is taken for a running one until its log is three intervals old.
KEYS = ["model.name=slow_model:slow", "evaluation.samples=1", f"training.max_steps={STEPS}", "checkpoint.every_minutes=0.01", "training.epochs=20", "log.flush_s=1"]
JOB = [*small_job(), *(word for key in KEYS for word in ("--set", key))]
# Where each job runs, and what it asks for beyond ring4.sh's own lines; the second signal of `limit` is put off (see `lives`).
JOBS = {
    "limit": ["-w", "n1", "--time=1", "--signal=B:USR2@30"],
    "preempted": ["-w", "n2"],
    "warned": ["-w", "n2", "-p", "warned"],
    "failed-node": ["-w", "n3,n4", "-N2", "--ntasks-per-node=1"],
    "cancelled": ["-w", "n1"],
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


def submit(cluster, *words, **settings):
    """Submit, from the checkout, and return the job's number."""
    # Yielding: these nodes have more cores than the machine that pretends them.
    site = {"VENV": sys.prefix, "OMPI_MCA_mpi_yield_when_idle": "1", "PYTHONPATH": f"{ROOT}:{ROOT}/tests", "OMP_NUM_THREADS": "1"}
    return cluster.call("sbatch", "--parsable", *words, cwd=ROOT, **site, **settings).strip()


def ended(cluster, job):
    """Wait for the end of a job and return how it ended: COMPLETED, CANCELLED, ..."""
    last = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    return cluster.wait_for(lambda: (state := cluster.job(job)["JobState"]) in last and state, f"the end of job {job}")


@pytest.fixture(scope="module")
def lives(cluster, tmp_path_factory):
    """Start all jobs, interrupt each in its own way behind a checkpoint, and let it end: {name: directory}, {name: how it ended}."""
    where = tmp_path_factory.mktemp("lives")
    jobs, runs = {}, {name: where / name for name in JOBS}
    for name, words in JOBS.items():
        hold = where / f"{name}.hold"
        hold.touch()
        settings = {"RUN": str(runs[name]), "HOLD": str(hold)}
        jobs[name] = submit(cluster, f"--output={where}/{name}.log", "--ntasks=2", *words, "slurm/ring4.sh", *JOB, **settings)
    reference = cli("train", "--set", "topology.graph=ring:4", *JOB, "--out", where / "alone", HOLD="", PYTHONPATH=f"{ROOT}:{ROOT}/tests")
    assert reference.returncode == 0, reference.stderr
    for name in JOBS:
        log = where / f"{name}.log"
        begun = lambda: list(runs[name].glob("checkpoint/step-*")) or cluster.job(jobs[name])["JobState"] == "FAILED"  # noqa: B023
        assert cluster.wait_for(begun, f"a checkpoint of {name}") is not True, log.read_text()
    cluster.call("scancel", jobs["cancelled"])
    cluster.power_off("n4")
    submit(cluster, "-p", "high", "-w", "n2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    for name in JOBS:
        if name != "cancelled":
            cluster.wait_for(lambda: cluster.job(jobs[name])["Restarts"] != "0", f"{name} to be requeued")  # noqa: B023
    # The second lives are quick ones.
    cluster.call("scontrol", "update", f"jobid={jobs['limit']}", "timelimit=10")
    for name in JOBS:
        (where / f"{name}.hold").unlink()
    cluster.start_node("n4")
    cluster.wait_for(lambda: not cluster.call("scontrol", "update", "nodename=n4", "state=resume", check=False), "n4")
    states = {name: ended(cluster, job) for name, job in jobs.items()}
    return runs, states, {name: (where / f"{name}.log").read_text() for name in JOBS}, where / "alone"


def assert_same(one, other):
    """Compare the parameters of all vertices and of the mean model, bit for bit."""
    files = sorted(path.relative_to(other) for path in other.glob("model/**/*.safetensors"))
    assert files and files == sorted(path.relative_to(one) for path in one.glob("model/**/*.safetensors"))
    for file in files:
        mine, its = load_file(one / file), load_file(other / file)
        assert mine.keys() == its.keys() and all(np.array_equal(mine[key], its[key]) for key in its), file


@pytest.mark.parametrize("name", [name for name in JOBS if name != "cancelled"])
def test_an_interrupted_job_is_requeued_and_ends_with_the_same_bits(lives, name):
    runs, states, logs, alone = lives
    assert states[name] == "COMPLETED", logs[name]
    assert "resumed    going on at step " in logs[name]
    assert_same(runs[name], alone)


@pytest.mark.parametrize("name", ["limit", "warned"])
def test_a_job_that_is_told_writes_a_checkpoint_first(lives, name):
    _, _, logs, _ = lives
    assert "SIGUSR2 received: stopped at step " in logs[name]


def test_a_preempted_job_is_told_by_slurm(lives):
    _, _, logs, _ = lives
    assert "DUE TO PREEMPTION" in logs["preempted"] and "FAILURE" in logs["failed-node"].upper()


def test_a_cancelled_job_stays_ended_and_can_be_resumed(lives, tmp_path):
    runs, states, logs, alone = lives
    assert states["cancelled"] == "CANCELLED" and "resumed" not in logs["cancelled"], logs["cancelled"]
    with Run(runs["cancelled"]) as left:
        assert not left.complete
    told = cli("status", runs["cancelled"])
    assert told.returncode == 0 and "stopped" in told.stdout, told.stdout + told.stderr
    done = cli("train", "--resume", runs["cancelled"], HOLD="", PYTHONPATH=f"{ROOT}:{ROOT}/tests")
    assert done.returncode == 0 and "going on at step" in done.stdout, done.stderr
    assert_same(runs["cancelled"], alone)


def test_a_job_submitted_from_a_rank_of_another_allocation_is_its_own(cluster, tmp_path):
    """The job inherits what mpirun, a step and the allocation left: without care its ranks wait for others, and srun refuses memory."""
    words = ["sbatch", "--parsable", "--wait", "-N2", "--ntasks=2", "--mem=50", f"--output={tmp_path}/log", "slurm/ring4.sh", *JOB]
    inner = tmp_path / "inner.sh"
    inner.write_text('[ "$OMPI_COMM_WORLD_RANK" = 0 ] || exec "$@" > /dev/null\n')
    mpirun = Path(sys.executable).parent / "mpirun"
    outer = [*("salloc", "-n2", "--ntasks-per-node=2", "--mem-per-cpu=10"), mpirun if mpirun.exists() else "mpirun", "-n", "2", "bash", inner]
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    site = {"VENV": sys.prefix, "PYTHONPATH": f"{ROOT}:{ROOT}/tests", "RUN": str(tmp_path / "run"), "HOLD": "", "OMP_NUM_THREADS": "1"}
    cluster.call(*outer, *words, cwd=ROOT, **site, **root)
    assert Run(tmp_path / "run").facts["nodes"] == 2, (tmp_path / "log").read_text()


def test_a_sweep_is_one_job_array_and_files_nothing_twice(cluster, tmp_path):
    file, root = tmp_path / "seeds.toml", tmp_path / "root"
    file.write_text('[set]\n"topology.graph" = "ring:2"\n"model.name" = "logistic"\n"training.max_steps" = 3\n[grid]\n"training.seed" = [1, 2, 3]\n')
    sweep = [sys.executable, "-m", "mpiconsensus", "sweep", file, "--out", root, "--at-once", "2", "--submit", "--mem=50"]
    site = {"VENV": sys.prefix, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    told = cluster.call(*sweep, cwd=ROOT, **site)
    assert "job array" in told and "of 3 runs, 2 ranks each" in told
    runs = [root / f"seed={seed}" for seed in (1, 2, 3)]
    cluster.wait_for(lambda: all((run / "model" / "last" / "mean.safetensors").exists() for run in runs), "the three runs")
    for seed, run_ in zip((1, 2, 3), runs, strict=True):
        with Run(run_) as made:
            assert made.facts["ranks"] == 2 and made.config["training"]["seed"] == seed
    assert "nothing is missing" in cluster.call(*sweep, cwd=ROOT, **site)
    assert cluster.call("squeue", "--noheader").count("seeds") <= 3


def test_an_unknown_partition_is_slurms_own_line(cluster, tmp_path):
    done = run("sbatch", "-p", "nowhere", "slurm/ring4.sh", cwd=ROOT, RUN=str(tmp_path / "run"), **cluster.environment)
    assert done.returncode == 1 and "invalid partition" in done.stderr and not (tmp_path / "run").exists()


def test_36_ranks_on_four_nodes(cluster, tmp_path):
    shards = tmp_path / "shards"
    done = run(sys.executable, ROOT / "data_prep" / "cifar10.py", raw_cifar(tmp_path), shards, "--shards", 36)
    assert done.returncode == 0, done.stderr
    words = ["--set", "model.name=logistic", "--set", "training.max_steps=2", "--set", "evaluation.samples=8"]
    settings = {"SHARDS": str(shards), "RUN": str(tmp_path / "run")}
    job = submit(cluster, "-N4", "--ntasks-per-node=9", f"--output={tmp_path}/log", "slurm/torus36.sh", *words, **settings)
    assert ended(cluster, job) == "COMPLETED", (tmp_path / "log").read_text()
    made = Run(tmp_path / "run")
    assert made.complete and made.facts["ranks"] == 36 and made.facts["nodes"] == 4
    assert [made.facts["hosts"].count(node) for node in slurm_cluster.NODES] == [9] * 4
    text = (tmp_path / "log").read_text()
    assert "36 ranks x 1 thread, 4 nodes" in text and "shared in a node, neighbor between nodes" in text
    # Ranks fill node after node: of a torus's rows of six vertices each node has one and a half.
    assert "of 72 edges 72 cross ranks, 28 cross nodes" in text
