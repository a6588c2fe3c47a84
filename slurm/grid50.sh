#!/usr/bin/env bash
#SBATCH --job-name=grid50
#SBATCH --ntasks=50
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train the 50 vertices of a 5x10 grid on CIFAR-10, a rank a vertex.
#   sbatch slurm/grid50.sh [ARGUMENT...]     on a cluster, submitted from the checkout
#   bash slurm/grid50.sh [ARGUMENT...]       on this machine
# Arguments go to `mpiconsensus train`, for example --set training.epochs=3. docs/run-on-slurm.md tells the rest.
set -euo pipefail
SCRIPT=grid50.sh

# Site settings; each can also come from the environment. Paths are relative to the checkout.
# module load python openmpi  # what your cluster asks for
VENV=${VENV-.venv}              # virtual environment (made by `make setup`); empty: the Python that modules give
LAUNCHER=${LAUNCHER:-mpirun}    # or "srun --mpi=pmix", where Slurm and MPI were built for it
INSIDE=${INSIDE:-}              # what Python starts in: "apptainer exec mpiconsensus.sif"; empty: as it is
RANKS=${RANKS:-}                # empty: the tasks of the allocation; without Slurm the cores, at most the vertices
JOB=${JOB:-jobs/grid50.toml}
SHARDS=${SHARDS:-}              # empty: where the job says
RAW=${RAW:-}                    # folder of the raw files; shards that are missing are made from them
RUN=${RUN:-}                    # run directory, gone on with where it is there; empty: runs/NAME-JOBID inside Slurm

for here in "$(dirname "$0")" "${SLURM_SUBMIT_DIR:-.}/slurm"; do [ ! -f "$here/run.bash" ] || break; done
[ -f "$here/run.bash" ] || { echo "$SCRIPT: no $here/run.bash; submit from the checkout: sbatch slurm/$SCRIPT" >&2; exit 2; }
# shellcheck source=slurm/run.bash
. "$here/run.bash"
train "$@"
