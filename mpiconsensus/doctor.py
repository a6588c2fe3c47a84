"""Describe this machine and say what will hurt: `mpiconsensus doctor`; try its MPI: `mpiconsensus doctor --mpi`.

`report` and `warnings` are pure functions of the Facts that machine.collect gathers.
"""

import re

from mpiconsensus import runtime
from mpiconsensus.errors import UserError
from mpiconsensus.machine import collect

NETWORK_FILESYSTEMS = ("nfs", "nfs4", "lustre", "beegfs", "gpfs", "cifs", "smb3", "ceph", "fuse.sshfs", "9p")
LOCKING_VALUES = ("TRUE", "1", "FALSE", "0", "BEST_EFFORT")
RANKS_OF_THE_FIRST_RUN = 4
MIB = 1 << 20


def run(echo=print):
    """Print the report and the warnings with `echo`, on one rank alone; collective under a launcher."""
    facts = collect()
    if facts is None:
        return
    if facts.torch.get("devices") and "error" not in facts.mpi:
        from mpiconsensus.transport.device import probe

        facts.mpi["GPU-aware MPI"] = f"{'yes' if probe() else 'no'} (probed)"
    echo("mpiconsensus doctor")
    for section, items in report(facts):
        echo(f"\n{section}")
        for item, value in items:
            echo(f"  {item:<22} {value}")
    found = warnings(facts)
    echo("\nwhat will hurt" if found else "\nnothing found that will hurt")
    for sentence in found:
        echo(f"  ! {sentence}")


def run_mpi(echo=print, seconds=0.0):
    """Try one-sided operations between the ranks of this launcher and tell with `echo`, on rank 0 alone, what follows; collective.

    seconds: put mailboxes and pairs under stress for so long in all; TrainingError where a row is torn or an update lost.
    Return whether atomics and locks hold; a part that hangs ends the process with exit code 1. UserError on one rank.
    """
    world = runtime.World.start() if runtime.launcher() else None
    if world is None or world.size == 1:
        raise UserError(
            "doctor --mpi tries operations between ranks, and there is one; start it as the job will run, "
            "for example mpirun -n 4 mpiconsensus doctor --mpi, or srun --mpi=pmix in an allocation."
        )
    from mpiconsensus.transport.mailbox import probe

    watchdog = probe.Watchdog(world.rank)
    found = probe.measure(world, watchdog)
    if seconds:
        _stress(world, seconds, watchdog, echo)
    watchdog.part(None)
    if found is None:
        return True
    echo(f"one-sided operations between {found['ranks']} ranks on {found['nodes']} node(s)")
    for way, times in found["rest"].items():
        echo(f"\n{way}\n  {'':<14} {'at rest, ms':>12} {'target computes, longest of many, ms':>38}")
        for name, rest in times.items():
            busy = ", ".join(f"{t[name]:.3g} ({window})" for (where, window), t in found["busy"].items() if where == way)
            echo(f"  {name:<14} {rest:>12.3g} {busy:>38}")
    echo("")
    for item in ("counts", "locks"):
        echo(f"  {item:<14} {found[item][0]} of {found[item][1]}")
    faults = probe.wrong(found)
    for sentence in [*faults, *([] if faults else probe.advice(found))]:
        echo(f"  ! {sentence}")
    return not faults


def _stress(world, seconds, watchdog, echo):
    """Put what rows go through under stress, one after the other, and tell the counts; collective."""
    from mpiconsensus.placement import Placement
    from mpiconsensus.transport.mailbox import stress

    placement = Placement(world.size, world.size, world.rank)
    names = [name for name in stress.NAMES if name != "shared" or world.fullest_node > 1]
    for name in names:
        counts = stress.stress(world, placement, name, seconds / len(names), watchdog)
        if counts:
            echo(f"{name}, {world.size} ranks, {seconds / len(names):g} s: " + ", ".join(f"{word} {count:,}" for word, count in counts.items()))
    if world.rank == 0:
        echo("under stress no row was torn, no version went back, no update was lost, nothing hung\n")


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
