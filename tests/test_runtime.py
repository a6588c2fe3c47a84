"""Launchers, cores and threads."""

import pytest
from conftest import cli

from mpiconsensus import limits, runtime
from mpiconsensus.errors import UserError


def world(cores, sharing, monkeypatch, omp=None):
    w = runtime.World()
    w.sharing = sharing
    monkeypatch.setattr(runtime, "usable_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    return w


@pytest.mark.parametrize("cores, ranks, threads", [(8, 1, 8), (8, 3, 2), (8, 8, 1), (2, 50, 1)])
def test_threads_are_the_cores_over_the_ranks(cores, ranks, threads, monkeypatch):
    assert world(cores, ranks, monkeypatch).threads() == (threads, None)


def test_a_user_s_omp_num_threads_wins_with_a_warning_when_it_oversubscribes(monkeypatch):
    assert world(8, 2, monkeypatch, omp="4").threads(3) == (4, None)
    threads, warning = world(8, 4, monkeypatch, omp="4").threads()
    assert threads == 4 and "OMP_NUM_THREADS = 4 on 4 ranks" in warning and "2 would fit" in warning
    threads, warning = world(8, 4, monkeypatch).threads(3)
    assert threads == 3 and "training.threads" in warning


@pytest.mark.parametrize("value", ["0", "two", "-1", "1.5"])
def test_a_wrong_omp_num_threads_is_refused(value, monkeypatch):
    with pytest.raises(UserError, match="OMP_NUM_THREADS"):
        world(8, 1, monkeypatch, omp=value).threads()


def test_launchers_are_known_by_what_they_set():
    assert runtime.launcher({"OMPI_COMM_WORLD_SIZE": "4"}).startswith("mpirun")
    assert runtime.launcher({"PMI_RANK": "0"}) == "PMI"
    assert runtime.launcher({"SLURM_JOB_ID": "7"}) is None


def test_tasks_of_srun_that_do_not_know_each_other_are_refused(tmp_path):
    done = cli("train", cwd=tmp_path, SLURM_STEP_ID="0", SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="0")
    assert done.returncode == 2 and "--mpi=pmix" in done.stderr and not list(tmp_path.iterdir())


def test_a_quota_of_cores_counts(monkeypatch):
    monkeypatch.setattr(limits, "cgroup_cores", lambda: 1.5)
    assert limits.usable_cores() == 1
