"""Look at this machine: versions, MPI, launcher, cores, memory, GPU, HDF5, Slurm; and say what will hurt.

Loading an MPI library starts it, which ends the process on some login nodes, and a binary for another CPU dies at
its import. So without a launcher the heavy libraries are tried in a child process with a time limit. Under a
launcher they are loaded here: a child of a rank would be taken for the rank itself.
`report` and `warnings` are pure functions of the Facts that `collect` gathers.
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

PACKAGES = ("torch", "torchvision", "numpy", "h5py", "mpi4py", "networkx", "click", "safetensors", "rich")
NETWORK_FILESYSTEMS = ("nfs", "nfs4", "lustre", "beegfs", "gpfs", "cifs", "smb3", "ceph", "fuse.sshfs", "9p")
LOCKING_VALUES = ("TRUE", "1", "FALSE", "0", "BEST_EFFORT")
VARIABLES = "OMP_NUM_THREADS|OMPI_ALLOW_RUN|.*_MCA_rmaps_|HDF5_USE_|SLURM_(JOB|STEP|NTASKS|NNODES|CPUS|TASKS|MPI)"
RANKS_OF_THE_FIRST_RUN = 4
MARK = "doctor-found:"
MIB = 1 << 20


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


def run(echo=print):
    """Print the report and the warnings with `echo`, on one rank alone; collective under a launcher."""
    facts = collect()
    if facts is None:
        return
    echo("mpiconsensus doctor")
    for section, items in report(facts):
        echo(f"\n{section}")
        for item, value in items:
            echo(f"  {item:<22} {value}")
    found = warnings(facts)
    echo("\nwhat will hurt" if found else "\nnothing found that will hurt")
    for sentence in found:
        echo(f"  ! {sentence}")


def report(facts):
    """Return [(section, [(item, value), ...]), ...], every value a short text."""
    limit = f", container limit {facts.quota:g}" if facts.quota else ""
    variables = sorted((name, value) for name, value in facts.environ.items() if name.startswith("SLURM_"))
    return [
        ("versions", [("python", ".".join(map(str, facts.python))), *facts.versions.items()]),
        ("machine", [
            ("system", facts.system),
            ("CPU", facts.cpu),
            ("cores", f"{facts.cores} usable, {facts.cores_present} present{limit}"),
            ("memory", f"{facts.memory / MIB:.0f} MB"),
            ("/dev/shm", "none" if facts.shm is None else f"{facts.shm / MIB:.0f} MB"),
            ("current directory", f"on {facts.filesystem}"),
            ("user", "root" if facts.root else "not root"),
        ]),
        ("MPI", [
            *_items(facts.mpi),
            *((name, path or "not in PATH") for name, path in facts.programs.items()),
            ("mpirun --version", facts.mpirun_version or "no answer"),
            ("started by", facts.launcher or "no launcher"),
            ("ranks", str(facts.ranks)),
            ("ranks per node", ", ".join(f"{count} on {host}" for host, count in facts.hosts.items())),
        ]),
        ("torch and threads", [*_items(facts.torch), ("OMP_NUM_THREADS", _variable(facts, "OMP_NUM_THREADS"))]),
        ("HDF5", [*_items(facts.hdf5), ("HDF5_USE_FILE_LOCKING", _variable(facts, "HDF5_USE_FILE_LOCKING"))]),
        ("Slurm", variables or [("job", "none")]),
    ]


def _items(found):
    return [(k, ", ".join(v) or "none" if isinstance(v, list) else str(v)) for k, v in found.items()]


def _variable(facts, name):
    return facts.environ.get(name, "not set")


def warnings(facts):
    """Return a sentence for each thing that will hurt, with what to do about it."""
    return [*_about_mpi(facts), *_about_cores(facts), *_about_files(facts), *_about_python(facts)]


def _about_mpi(f):
    environ = f.environ
    open_mpi = "Open MPI" in (f.mpirun_version or "")
    if "error" in f.mpi:
        yield (f"mpi4py cannot start MPI: {f.mpi['error']}. Install an MPI library, or load your cluster's MPI module; "
               "until then one process hosts all vertices.")
    if not f.programs["mpirun"] and not f.programs["srun"]:
        yield "no mpirun in PATH: activate the environment it is installed in, or load your cluster's MPI module."
    allowed = all(environ.get(f"OMPI_ALLOW_RUN_AS_ROOT{end}") == "1" for end in ("", "_CONFIRM"))
    if f.root and open_mpi and not allowed and not f.launcher:
        yield ("you are root, and Open MPI's mpirun refuses root: "
               "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1.")
    if f.mpirun_version and "vendor" in f.mpi and open_mpi != ("Open MPI" in f.mpi["vendor"]):
        yield (f"mpirun is {f.mpirun_version}, but mpi4py uses {f.mpi['vendor']}: every rank would train alone; "
               "use the mpirun of the same MPI.")
    if not f.launcher and "SLURM_STEP_ID" in environ and (f.announced or 1) > 1:
        yield (f"srun started {f.announced} tasks without PMIx or PMI, so that each would train alone: "
               "use srun --mpi=pmix (srun --mpi=list shows what there is).")
    elif f.announced not in (None, f.ranks) and "error" not in f.mpi:
        yield (f"{f.launcher} started {f.announced} ranks, but MPI sees {f.ranks}: mpi4py was loaded with another MPI "
               "than the launcher's; use the launcher of the same MPI (under Slurm: srun --mpi=pmix).")
    permitted = any("oversubscribe" in name + value for name, value in environ.items() if "_MCA_rmaps_" in name)
    if open_mpi and not f.launcher and f.slots < RANKS_OF_THE_FIRST_RUN and not permitted:
        yield f"mpirun starts no more than {f.slots} rank(s) here: for more, add --oversubscribe --bind-to none."


def _about_cores(f):
    omp = f.environ.get("OMP_NUM_THREADS", "")
    fits = max(1, f.cores // f.ranks_here)
    if omp and not re.fullmatch("[1-9][0-9]*", omp):
        yield f"OMP_NUM_THREADS={omp!r} is no whole number of at least 1: set it to {fits}, or unset it."
    elif omp and int(omp) > fits:
        yield (f"OMP_NUM_THREADS={omp} x {f.ranks_here} rank(s) on this node oversubscribes its {f.cores} usable "
               f"core(s), and a step can take tens of times as long: set it to {fits}, or unset it.")
    if f.ranks_here > f.cores:
        yield (f"{f.ranks_here} ranks on this node share {f.cores} usable core(s) and take turns: start at most "
               f"{f.cores} of them here, each can host several vertices.")
    # Without a launcher the ranks are still to come.
    if (f.ranks_here > 1 or not f.launcher) and f.shm is not None and f.shm <= 64 * MIB:
        yield (f"/dev/shm holds {f.shm / MIB:.0f} MB, and the ranks of a node exchange messages through it: give the "
               "container more (docker run --shm-size=1g).")


def _about_files(f):
    locking = f.environ.get("HDF5_USE_FILE_LOCKING")
    if locking is not None and locking not in LOCKING_VALUES:
        yield f"HDF5_USE_FILE_LOCKING={locking!r} is not known to HDF5: use TRUE, FALSE or BEST_EFFORT, or unset it."
    elif locking in ("TRUE", "1") and f.filesystem in NETWORK_FILESYSTEMS:
        yield (f"HDF5_USE_FILE_LOCKING={locking} and the current directory is on {f.filesystem}: if that has no locks, "
               "no file can be opened; use BEST_EFFORT, or unset it.")
    if "error" in f.hdf5:
        yield f"h5py cannot be used: {f.hdf5['error']}. Neither data nor logs can be read or written without it."


def _about_python(f):
    if f.python < (3, 11):
        yield f"Python {'.'.join(map(str, f.python))} is too old: mpiconsensus needs 3.11 or later."
    if "error" in f.torch:
        yield f"torch cannot be used: {f.torch['error']}. Nothing trains without it."
    elif f.torch["GPU support"] != "none" and not f.torch["devices"]:
        yield (f"torch is built for {f.torch['GPU support']}, but sees no device: training runs on the CPU. "
               "Look at nvidia-smi, CUDA_VISIBLE_DEVICES and the driver, or install torch for the CPU.")
    has, needs = (f.versions.get("torch") or "").split("+")[0], f.torchvision_needs
    if needs and has[:1].isdigit() and has != needs:
        yield f"torchvision {f.versions['torchvision']} is built for torch {needs}, not {has}: install a pair."


def collect():
    """Return the Facts of this node, or None on the ranks that should be silent; collective under a launcher."""
    environ = {name: value for name, value in os.environ.items() if re.match(VARIABLES, name)}
    affinity = os.sched_getaffinity(0)
    launcher = runtime.launcher()
    rank, announced = _announced(os.environ)
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
        versions={"mpiconsensus": __version__, **{name: _version(name) for name in PACKAGES}},
        torchvision_needs=_torch_of_torchvision(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}, {_os_name()}",
        cpu=_first_match("/proc/cpuinfo", r"model name\s*: (.*)") or platform.processor() or "not known",
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
    code = f"from mpiconsensus import doctor; print(doctor.MARK + doctor.json.dumps(doctor._guarded(doctor.{name})))"
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


def _announced(environ):
    """Return this process's rank and the number of ranks (None: not said) in the launcher's environment."""
    pairs = [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
             ("PMI_RANK", "PMI_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")]
    # A batch script has SLURM_PROCID too, but no step: nothing has launched it as a rank.
    for rank, size in pairs:
        if rank in environ and size in environ:
            return int(environ[rank]), int(environ[size])
    return int(environ.get("PMIX_RANK", 0)), None


def cgroup_cores(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """Return the CPU quota of this process's control group and those above it, in cores, or None."""
    limits = []
    for directory in _cgroups("cpu", root, own):
        quota, period = (_words(directory / "cpu.max") + ["", ""])[:2]
        quota = quota or "".join(_words(directory / "cpu.cfs_quota_us"))
        period = period or "".join(_words(directory / "cpu.cfs_period_us"))
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def cgroup_memory(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """Return the memory limits in bytes of this process's control group and those above it."""
    words = [word for directory in _cgroups("memory", root, own) for name in ("memory.max", "memory.limit_in_bytes")
             for word in _words(directory / name)]
    return [int(word) for word in words if word.isdigit()]


def _cgroups(controller, root, own):
    """Yield the directories of this process's control group and of its parents, version 2 and 1."""
    for line in Path(own).read_text().splitlines() if Path(own).exists() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = Path(root, controller) if controllers else Path(root)
            group = top / path.strip("/")
            yield from (d for d in (group, *group.parents) if d.is_relative_to(top))


def physical_cores(cpus):
    """Return how many cores the logical `cpus` lie on; hyperthreads share one."""
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({" ".join(_words(topology.format(cpu))) or cpu for cpu in cpus})


def _words(path):
    try:
        return Path(path).read_text().split()
    except OSError:
        return []


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
