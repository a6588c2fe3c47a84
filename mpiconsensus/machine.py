"""The facts of this machine that the doctor tells: versions, MPI, cores, memory, GPU, HDF5, Slurm.

Loading an MPI library starts it, which ends the process on some login nodes, and a binary for another CPU dies at
its import. So without a launcher the heavy libraries are tried in a child process with a time limit. Under a
launcher they are loaded here: a child of a rank would be taken for the rank itself.
"""

import ctypes
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from mpiconsensus import __version__, runtime
from mpiconsensus.limits import cgroup_cores, cgroup_memory, physical_cores

PACKAGES = ("torch", "torchvision", "numpy", "h5py", "mpi4py", "networkx", "click", "safetensors", "rich")
VARIABLES = "OMP_NUM_THREADS|OMPI_ALLOW_RUN|.*_MCA_rmaps_|HDF5_USE_|SLURM_(JOB|STEP|NTASKS|NNODES|CPUS|TASKS|MPI)"
MARK = "doctor-found:"


class Facts(NamedTuple):
    """What `collect` found. Sizes in bytes; None where there is no such thing.

    cores: usable by the ranks of this node; slots: ranks that mpirun starts on it unasked; announced: ranks that the
    launcher says it started; ranks: those that MPI sees; mpi, torch, hdf5: of the *_facts functions, or {"error": why}.
    """

    python: tuple
    versions: dict
    torchvision_needs: str | None
    system: str
    cpu: str
    cores: int
    cores_present: int
    quota: float | None
    slots: int
    memory: int
    shm: int | None
    filesystem: str
    root: bool
    environ: dict
    programs: dict
    mpirun_version: str | None
    launcher: str | None
    announced: int | None
    ranks: int
    hosts: dict
    ranks_here: int
    mpi: dict
    torch: dict
    hdf5: dict


def collect():
    """Return the Facts of this node, or None on the ranks that should be silent; collective under a launcher."""
    environ = {name: value for name, value in os.environ.items() if re.match(VARIABLES, name)}
    affinity = os.sched_getaffinity(0)
    launcher = runtime.launcher()
    rank, announced = announced_ranks(os.environ)
    examine = (lambda name: _guarded(globals()[name])) if launcher else probe
    mpi = examine("mpi_facts")
    node, seen = platform.node(), [(platform.node(), affinity)]
    if launcher and "error" not in mpi:
        world = runtime.World.start()
        seen, rank = world.gather((node, affinity)), max(rank, world.rank)
    if rank > 0:
        return None
    hosts = dict(Counter(host for host, _ in seen))
    # mpirun binds each rank to cores of its own: what the node offers to this run is their union.
    cores = len(set().union(*(theirs for host, theirs in seen if host == node)))
    quota = cgroup_cores()
    programs = {name: shutil.which(name) for name in ("mpirun", "mpiexec", "srun")}
    return Facts(
        python=sys.version_info[:3],
        versions={"mpiconsensus": __version__, **versions()},
        torchvision_needs=_torch_of_torchvision(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}, {_os_name()}",
        cpu=cpu_model(),
        cores=max(1, min(cores, int(quota or cores))),
        cores_present=os.cpu_count(),
        quota=quota,
        slots=int(environ.get("SLURM_NTASKS", 0)) or physical_cores(affinity),
        memory=min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *cgroup_memory()]),
        shm=_size("/dev/shm"),
        filesystem=_filesystem(Path.cwd()),
        root=os.geteuid() == 0,
        environ=environ,
        programs=programs,
        mpirun_version=_mpirun_version(programs["mpirun"]),
        launcher=launcher,
        announced=announced,
        ranks=sum(hosts.values()),
        hosts=hosts,
        ranks_here=hosts[node],
        mpi=mpi,
        torch=examine("torch_facts"),
        hdf5=examine("hdf5_facts"),
    )


def mpi_facts():
    """Load MPI and return what its library says of itself; MPI starts."""
    MPI = runtime.mpi()
    levels = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
    name, version = MPI.get_vendor()
    return {
        "library": MPI.Get_library_version().splitlines()[0].strip("\0 "),
        "vendor": f"{name} {'.'.join(map(str, version))}",
        "thread level": {getattr(MPI, f"THREAD_{level}"): level.lower() for level in levels}[MPI.Query_thread()],
        "CUDA-aware": _cuda_aware(),
    }


def torch_facts():
    """Import torch and return its threads, the GPU support it is built with and the devices it sees."""
    from warnings import catch_warnings, simplefilter

    import torch

    with catch_warnings():
        simplefilter("ignore")  # an old driver: said in words by the missing device
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    return {
        "torch threads": torch.get_num_threads(),
        "GPU support": f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else "none",
        "devices": [torch.cuda.get_device_name(i) for i in range(count)],
    }


def hdf5_facts():
    """Import h5py, which starts MPI where it is built parallel, and return its HDF5 version and build."""
    import h5py

    return {"HDF5": h5py.version.hdf5_version, "built": "parallel" if h5py.get_config().mpi else "serial"}


def probe(name, timeout_s=60):
    """Return the dict of this module's function `name`, called in a child process, or {"error": why}."""
    code = f"from mpiconsensus import machine; print(machine.MARK + machine.json.dumps(machine._guarded(machine.{name})))"
    path = [p for p in (os.environ.get("PYTHONPATH"), str(Path(__file__).parents[1])) if p]
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        # The whole session: MPI may have started daemons, which would hold the pipes open.
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return {"error": f"no answer within {timeout_s} s"}
    for line in out.splitlines():
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    end = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
    return {"error": f"the process ended with {end}. {' '.join(err.split())[-300:]}".strip(" .")}


def _guarded(function):
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises belongs in the report
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _cuda_aware():
    """Return what MPIX_Query_cuda_support of the loaded MPI library says: yes, no, or not reported."""
    library = _first_match("/proc/self/maps", r"(/\S*/libmpi(?:_abi)?\.so\S*)")
    try:
        return "yes" if ctypes.CDLL(library).MPIX_Query_cuda_support() else "no"
    except (OSError, AttributeError):
        return "not reported"


def announced_ranks(environ):
    """Return this process's rank and the number of ranks (None: not said) in the launcher's environment."""
    pairs = [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
             ("PMI_RANK", "PMI_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")]
    # A batch script has SLURM_PROCID too, but no step: nothing has launched it as a rank.
    for rank, size in pairs:
        if rank in environ and size in environ:
            return int(environ[rank]), int(environ[size])
    return int(environ.get("PMIX_RANK", 0)), None


def cpu_model():
    """Return what the kernel calls the processor."""
    return _first_match("/proc/cpuinfo", r"model name\s*: (.*)") or platform.processor() or "not known"


def versions():
    """Return {package: version, or "not installed"} of what the figures and faults of a machine depend on."""
    return {name: _version(name) for name in PACKAGES}


def _first_match(path, pattern):
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return None
    return found and found.group(1)


def _size(path):
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_frsize * status.f_blocks


def _filesystem(directory):
    """Return the type of the file system that `directory` lies on, e.g. ext4, nfs4, lustre."""
    fits = [(len(mount), kind) for _, mount, kind, *_ in
            (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
            if directory.is_relative_to(mount)]
    return max(fits)[1]


def _mpirun_version(path):
    if path is None:
        return None
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        done = subprocess.run([path, "--version"], check=True, text=True, timeout=20, **pipes)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.strip().splitlines()), None)


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _torch_of_torchvision():
    """Return the torch version that the installed torchvision was built for, from its metadata, or None."""
    try:
        needs = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    found = [re.match(r"torch\b\W*==([0-9.]+)", need) for need in needs]
    return next((match.group(1) for match in found if match), None)


def _os_name():
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""
