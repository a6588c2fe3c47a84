"""The doctor: each warning for the facts that should raise it, and an answer where MPI kills the process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mpiconsensus import doctor, limits, machine

ROOT = str(Path(doctor.__file__).parents[1])
MIB = 1 << 20
HEALTHY = machine.Facts(
    python=(3, 11, 2),
    versions={"torch": "2.13.0+cpu", "torchvision": "0.28.0"},
    torchvision_needs="2.13.0",
    system="Linux",
    cpu="a CPU",
    cores=8,
    cores_present=16,
    quota=None,
    slots=8,
    memory=32_000 * MIB,
    shm=16_000 * MIB,
    filesystem="ext4",
    root=False,
    environ={},
    programs={"mpirun": "/usr/bin/mpirun", "mpiexec": None, "srun": None},
    mpirun_version="mpirun (Open MPI) 5.0.11",
    launcher=None,
    announced=None,
    ranks=1,
    hosts={"a": 1},
    ranks_here=1,
    mpi={"library": "Open MPI v5.0.11", "vendor": "Open MPI 5.0.11", "thread level": "serialized", "CUDA-aware": "no"},
    torch={"torch threads": 8, "GPU support": "none", "devices": []},
    hdf5={"HDF5": "2.0.0", "built": "serial"},
)
LAUNCHED = HEALTHY._replace(
    launcher="mpirun (Open MPI)",
    announced=8,
    ranks=8,
    hosts={"a": 4, "b": 4},
    ranks_here=4,
    environ={"OMP_NUM_THREADS": "2"},
)
NO_PROGRAMS = {"mpirun": None, "mpiexec": None, "srun": None}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.mark.parametrize(
    "facts",
    [
        HEALTHY,
        LAUNCHED,
        HEALTHY._replace(environ={"OMP_NUM_THREADS": "8"}),
        HEALTHY._replace(root=True, environ=AS_ROOT),
        LAUNCHED._replace(root=True),
        HEALTHY._replace(root=True, mpirun_version="HYDRA build details:", mpi={"vendor": "MPICH 4.2.0"}),
        HEALTHY._replace(slots=2, environ={"PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}),
        HEALTHY._replace(slots=2, environ={"OMPI_MCA_rmaps_base_oversubscribe": "1"}),
        LAUNCHED._replace(slots=1),
        LAUNCHED._replace(announced=16, ranks=16, hosts=dict.fromkeys("abcd", 4)),
        HEALTHY._replace(programs={**NO_PROGRAMS, "srun": "/usr/bin/srun"}, mpirun_version=None),
        HEALTHY._replace(shm=None),
        HEALTHY._replace(shm=65 * MIB),
        LAUNCHED._replace(shm=32 * MIB, ranks=1, announced=1, ranks_here=1, hosts={"a": 1}),
        HEALTHY._replace(torch={"GPU support": "CUDA 12.6", "devices": ["NVIDIA H200"]}),
        HEALTHY._replace(versions={"torch": "2.13.0+cu126", "torchvision": "0.28.0"}),
        HEALTHY._replace(versions={"torch": "2.13.0", "torchvision": "not installed"}, torchvision_needs=None),
        HEALTHY._replace(environ={"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}),
        HEALTHY._replace(environ=SRUN, announced=1),
        LAUNCHED._replace(environ=SRUN, launcher="PMIx"),
        LAUNCHED._replace(launcher="PMIx", announced=None),
        HEALTHY._replace(environ={"HDF5_USE_FILE_LOCKING": "FALSE"}, filesystem="lustre"),
        HEALTHY._replace(environ={"HDF5_USE_FILE_LOCKING": "TRUE"}),
        HEALTHY._replace(filesystem="nfs4"),
    ],
)
def test_nothing_is_said_of_a_healthy_machine(facts):
    assert doctor.warnings(facts) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (HEALTHY._replace(mpi={"error": "ImportError: no libmpi"}), ["mpi4py cannot start", "no libmpi", "Install"]),
        (HEALTHY._replace(programs=NO_PROGRAMS, mpirun_version=None), ["no mpirun in PATH", "module"]),
        (HEALTHY._replace(root=True), ["root", "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"]),
        (HEALTHY._replace(root=True, environ={"OMPI_ALLOW_RUN_AS_ROOT": "1"}), ["root", "CONFIRM=1"]),
        (HEALTHY._replace(mpi={"vendor": "MPICH 4.2.0"}), ["Open MPI", "MPICH 4.2.0", "train alone"]),
        (HEALTHY._replace(environ=SRUN, announced=36), ["36 tasks", "PMI", "srun --mpi=pmix"]),
        (LAUNCHED._replace(ranks=1, ranks_here=1), ["started 8 ranks", "MPI sees 1"]),
        (HEALTHY._replace(slots=2), ["no more than 2", "--oversubscribe"]),
        (HEALTHY._replace(environ={"OMP_NUM_THREADS": "9"}), ["OMP_NUM_THREADS=9 x 1", "8 usable", "set it to 8"]),
        (LAUNCHED._replace(environ={"OMP_NUM_THREADS": "3"}), ["OMP_NUM_THREADS=3 x 4", "8 usable", "set it to 2"]),
        (HEALTHY._replace(environ={"OMP_NUM_THREADS": "four"}), ["'four'", "set it to 8"]),
        (LAUNCHED._replace(cores=3, environ={}), ["4 ranks", "share 3 usable", "at most 3"]),
        (LAUNCHED._replace(shm=64 * MIB), ["/dev/shm holds 64 MB", "--shm-size"]),
        (HEALTHY._replace(shm=32 * MIB), ["/dev/shm holds 32 MB"]),
        (HEALTHY._replace(environ={"HDF5_USE_FILE_LOCKING": "off"}), ["'off'", "BEST_EFFORT"]),
        (HEALTHY._replace(environ={"HDF5_USE_FILE_LOCKING": "TRUE"}, filesystem="nfs4"), ["TRUE", "nfs4", "BEST"]),
        (HEALTHY._replace(hdf5={"error": "ImportError: libhdf5"}), ["h5py", "libhdf5"]),
        (HEALTHY._replace(python=(3, 10, 4)), ["Python 3.10.4", "3.11"]),
        (HEALTHY._replace(torch={"error": "OSError: libtorch"}), ["torch cannot be used", "libtorch"]),
        (HEALTHY._replace(torch={"GPU support": "CUDA 12.6", "devices": []}), ["CUDA 12.6", "no device", "nvidia-smi"]),
        (HEALTHY._replace(torchvision_needs="2.12.1"), ["torchvision 0.28.0", "2.12.1", "2.13.0"]),
    ],
)
def test_what_will_hurt_is_said_in_one_sentence(facts, words):
    (sentence,) = doctor.warnings(facts)
    assert [word for word in words if word not in sentence] == []


def test_the_report_names_every_fact():
    facts = LAUNCHED._replace(
        quota=6.5, torch={"torch threads": 8, "GPU support": "CUDA 12.6", "devices": ["NVIDIA H200"]},
        environ={"OMP_NUM_THREADS": "2", "SLURM_JOB_ID": "7"}, mpi={"error": "RuntimeError: broken"},
    )
    sections = dict(doctor.report(facts))
    text = str(sections)
    assert all(isinstance(value, str) for items in sections.values() for _, value in items)
    for fact in ("3.11.2", "2.13.0+cpu", "8 usable, 16 present, container limit 6.5", "32000 MB", "16000 MB", "ext4",
                 "RuntimeError: broken", "/usr/bin/mpirun", "not in PATH", "mpirun (Open MPI) 5.0.11", "4 on a, 4 on b",
                 "CUDA 12.6", "NVIDIA H200", "serial", "('OMP_NUM_THREADS', '2')", "('SLURM_JOB_ID', '7')"):
        assert fact in text, fact


@pytest.mark.parametrize("aware, line", [(True, "GPU-aware MPI          yes (probed)"), (False, "GPU-aware MPI          no (probed)")])
def test_mpi_is_probed_where_there_is_a_gpu(monkeypatch, aware, line):
    from mpiconsensus.transport import device

    found = {}
    for name, devices in (("with", ["NVIDIA H200"]), ("without", [])):
        torch = {"GPU support": "CUDA 12.6", "devices": devices}
        monkeypatch.setattr(doctor, "collect", lambda torch=torch: HEALTHY._replace(torch=torch, mpi=dict(HEALTHY.mpi)))
        monkeypatch.setattr(device, "probe", lambda: aware)
        found[name] = []
        doctor.run(found[name].append)
    assert [text.strip() for text in found["with"] if "GPU-aware" in text] == [line]
    assert not any("GPU-aware" in text for text in found["without"])


def test_the_rank_is_known_before_mpi_starts():
    announced = machine.announced_ranks
    assert announced({}) == (0, None)
    assert announced({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "PMIX_RANK": "3"}) == (3, 8)
    assert announced({"PMI_RANK": "1", "PMI_SIZE": "4"}) == (1, 4)
    assert announced({"PMIX_RANK": "5"}) == (5, None)
    # A batch script runs once, whatever the number of tasks of its job; srun's tasks run in a step.
    batch = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "36"}
    assert announced(batch) == (0, None)
    assert announced({**batch, "SLURM_PROCID": "4", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "36"}) == (4, 36)


def test_limits_of_control_groups(tmp_path):
    own, root = tmp_path / "own", tmp_path / "cgroup"
    found = lambda: (limits.cgroup_cores(root, own), limits.cgroup_memory(root, own))
    assert found() == (None, [])
    own.write_text("0::/job/task\n")
    groups = (("", "max 100000", "max"), ("job", "150000 100000", "max"), ("job/task", "400000 100000", "1000"))
    for directory, cpu, memory in groups:
        (root / directory).mkdir(parents=True, exist_ok=True)
        (root / directory / "cpu.max").write_text(cpu)
        (root / directory / "memory.max").write_text(memory)
    assert found() == (1.5, [1000])
    own.write_text("4:memory:/old\n3:cpu,cpuacct:/old\n")
    for name, value in (("cpu/old/cpu.cfs_quota_us", "50000"), ("cpu/old/cpu.cfs_period_us", "100000"),
                        ("cpu/cpu.cfs_quota_us", "-1"), ("cpu/cpu.cfs_period_us", "100000"),
                        ("memory/old/memory.limit_in_bytes", "2000")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value)
    assert found() == (0.5, [2000])


def doctor_process(command=(), path=ROOT, **environ):
    code = "from mpiconsensus import doctor; doctor.run(print)"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "PRTE_", "SLURM_", "MV2_"))}
    return subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False,
        env={**clean, **AS_ROOT, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **environ},
    )


def fake_mpi4py(directory, source):
    (directory / "mpi4py").mkdir()
    (directory / "mpi4py" / "__init__.py").write_text(source)
    return os.pathsep.join([str(directory), ROOT])


def test_alone_it_finds_mpi_in_a_child():
    done = doctor_process()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mpiconsensus doctor") == 1
    for line in ("library ", "thread level ", "HDF5 ", "torch threads ", "no launcher", "mpiconsensus  "):
        assert line in done.stdout
    assert "error" not in done.stdout


@pytest.mark.skipif(not shutil.which("mpirun"), reason="no mpirun")
def test_under_mpirun_one_rank_speaks_for_all():
    done = doctor_process(["mpirun", "-n", "2", "--oversubscribe", "--bind-to", "none"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mpiconsensus doctor") == 1
    assert f"2 on {os.uname().nodename}" in done.stdout
    assert "no launcher" not in done.stdout


def test_it_answers_where_mpi_kills_the_process(tmp_path):
    path = fake_mpi4py(tmp_path, "import os, sys; print('no fabric', file=sys.stderr, flush=True); os.abort()")
    done = doctor_process(path=path)
    assert done.returncode == 0, done.stderr
    assert "! mpi4py cannot start MPI: the process ended with SIGABRT. no fabric. Install" in done.stdout
    assert "HDF5_USE_FILE_LOCKING" in done.stdout


def test_every_task_of_srun_without_pmi_but_the_first_is_silent():
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    assert doctor_process(SLURM_PROCID="1", **step).stdout == ""


def test_a_hanging_mpi_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    source = f"""
import subprocess, time
daemon = subprocess.Popen(["sleep", "300"])
open({str(tmp_path / "pid")!r}, "w").write(str(daemon.pid))
time.sleep(300)
"""
    monkeypatch.setenv("PYTHONPATH", fake_mpi4py(tmp_path, source))
    assert machine.probe("mpi_facts", timeout_s=5) == {"error": "no answer within 5 s"}
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not stat.exists() or stat.read_text().split()[2] in "ZX"


def test_importing_the_doctor_loads_nothing_heavy():
    heavy = ("torch", "h5py", "mpi4py", "networkx")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, mpiconsensus.doctor; print([m for m in {heavy} if m in sys.modules])"],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "PYTHONPATH": ROOT},
    )
    assert done.stdout == "[]\n"
