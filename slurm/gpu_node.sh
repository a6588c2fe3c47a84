#!/usr/bin/env bash
#SBATCH --job-name=gpu_node
#SBATCH --nodes=1
#SBATCH --ntasks=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train a 6x6 torus on CIFAR-10 on the four GPUs of a node: a rank a GPU, nine vertices a rank.
#   sbatch slurm/gpu_node.sh [ARGUMENT...]     on a cluster, submitted from the checkout
#   bash slurm/gpu_node.sh [ARGUMENT...]       on this machine
# Arguments go to `mpiconsensus train`, for example --set training.epochs=3. docs/run-on-slurm.md tells the rest.
#
# Rank r of a node takes its GPU number r, and starts again at 0 where there are more ranks than GPUs: --ntasks=8 puts two
# on each. Every rank must see all GPUs of its node, or each would take its own number 0 and count wrongly: ask for GPUs a
# node, not a task (--gpus-per-task, --gpu-bind).
set -euo pipefail
SCRIPT=gpu_node.sh

# Site settings; each can also come from the environment. Paths are relative to the checkout.
# module load python openmpi cuda # what your cluster asks for
VENV=${VENV-.venv}              # virtual environment (made by `make setup`); empty: the Python that modules give
LAUNCHER=${LAUNCHER:-mpirun}    # or "srun --mpi=pmix", where Slurm and MPI were built for it
INSIDE=${INSIDE:-}              # what Python starts in: "apptainer exec mpiconsensus.sif"; empty: as it is
RANKS=${RANKS:-}                # empty: the tasks of the allocation; without Slurm the cores, at most the vertices
JOB=${JOB:-jobs/torus36.toml}
SHARDS=${SHARDS:-}              # empty: where the job says
RAW=${RAW:-}                    # folder of the raw files; shards that are missing are made from them
RUN=${RUN:-}                    # run directory, gone on with where it is there; empty: runs/NAME-JOBID inside Slurm

for here in "$(dirname "$0")" "${SLURM_SUBMIT_DIR:-.}/slurm"; do [ ! -f "$here/run.bash" ] || break; done
[ -f "$here/run.bash" ] || { echo "$SCRIPT: no $here/run.bash; submit from the checkout: sbatch slurm/$SCRIPT" >&2; exit 2; }
# shellcheck source=slurm/run.bash
. "$here/run.bash"
gpus=${SLURM_GPUS_ON_NODE:-$({ nvidia-smi --list-gpus || true; } 2> /dev/null | wc -l)}
[ "$gpus" -gt 0 ] || fail "no GPU here: ask for some, sbatch --gpus-per-node=4, or train on cores: slurm/torus36.sh"
RANKS=${RANKS:-${SLURM_NTASKS:-$gpus}}
train --set training.device=cuda "$@"
