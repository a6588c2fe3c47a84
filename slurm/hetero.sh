#!/usr/bin/env bash
#SBATCH --job-name=hetero
#SBATCH --nodes=4
#SBATCH --ntasks=36
#SBATCH --ntasks-per-node=9
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train a 6x6 torus on CIFAR-10 whose first 18 vertices have twice the computing power of the others.
#   sbatch slurm/hetero.sh [ARGUMENT...]     on a cluster, submitted from the checkout
#   bash slurm/hetero.sh [ARGUMENT...]       on this machine
# Arguments go to `mpiconsensus train`, for example --set training.epochs=3. docs/run-on-slurm.md tells the rest.
#
# Power 2 means twice the data, and a gradient at every step where the others have one at every second.
# Assumed: two nodes of each kind, for example by --constraint="[fast*2&slow*2]" with the features of your site, and the
# names of the fast ones come first: ranks fill the nodes in the order of their names. A vertex on the wrong kind of node
# makes its neighbours wait, with the same numbers. Other powers: hetero.powers in the job, and shards made with them.
set -euo pipefail
SCRIPT=hetero.sh

# Site settings; each can also come from the environment. Paths are relative to the checkout.
# module load python openmpi  # what your cluster asks for
VENV=${VENV-.venv}              # virtual environment (made by `make setup`); empty: the Python that modules give
LAUNCHER=${LAUNCHER:-mpirun}    # or "srun --mpi=pmix", where Slurm and MPI were built for it
INSIDE=${INSIDE:-}              # what Python starts in: "apptainer exec mpiconsensus.sif"; empty: as it is
RANKS=${RANKS:-}                # empty: the tasks of the allocation; without Slurm the cores, at most the vertices
JOB=${JOB:-jobs/hetero36.toml}
SHARDS=${SHARDS:-}              # empty: where the job says
RAW=${RAW:-}                    # folder of the raw files; shards that are missing are made from them
RUN=${RUN:-}                    # run directory, gone on with where it is there; empty: runs/NAME-JOBID inside Slurm

for here in "$(dirname "$0")" "${SLURM_SUBMIT_DIR:-.}/slurm"; do [ ! -f "$here/run.bash" ] || break; done
[ -f "$here/run.bash" ] || { echo "$SCRIPT: no $here/run.bash; submit from the checkout: sbatch slurm/$SCRIPT" >&2; exit 2; }
# shellcheck source=slurm/run.bash
. "$here/run.bash"
train "$@"
