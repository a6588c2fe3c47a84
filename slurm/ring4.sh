#!/usr/bin/env bash
#SBATCH --job-name=ring4
#SBATCH --ntasks=4
#SBATCH --time=00:30:00
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train the main job, four vertices of a ring, on the digits of the package: no data to prepare, a minute to run.
#   sbatch slurm/ring4.sh [ARGUMENT...]     on a cluster, submitted from the checkout
#   bash slurm/ring4.sh [ARGUMENT...]       on this machine
# Arguments go to `mpiconsensus train`, for example --set training.epochs=3. docs/run-on-slurm.md tells the rest.
set -euo pipefail
SCRIPT=ring4.sh

# Site settings; each can also come from the environment. Paths are relative to the checkout.
# module load python openmpi  # what your cluster asks for
VENV=${VENV-.venv}              # virtual environment (made by `make setup`); empty: the Python that modules give
LAUNCHER=${LAUNCHER:-mpirun}    # or "srun --mpi=pmix", where Slurm and MPI were built for it
INSIDE=${INSIDE:-}              # what Python starts in: "apptainer exec mpiconsensus.sif"; empty: as it is
RANKS=${RANKS:-}                # empty: the tasks of the allocation; without Slurm the cores, at most the vertices
JOB=${JOB:-jobs/ring4.toml}
RUN=${RUN:-}                    # run directory, gone on with where it is there; empty: runs/NAME-JOBID inside Slurm

for here in "$(dirname "$0")" "${SLURM_SUBMIT_DIR:-.}/slurm"; do [ ! -f "$here/run.bash" ] || break; done
[ -f "$here/run.bash" ] || { echo "$SCRIPT: no $here/run.bash; submit from the checkout: sbatch slurm/$SCRIPT" >&2; exit 2; }
# shellcheck source=slurm/run.bash
. "$here/run.bash"
train "$@"
