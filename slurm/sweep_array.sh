#!/usr/bin/env bash
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train the runs of a sweep, one a task of a job array.
#   mpiconsensus sweep FILE.toml --submit [SBATCH OPTION...]      on a cluster: makes the list, and files this script
#   bash slurm/sweep_array.sh ROOT/jobs/array-1.txt [ARGUMENT...] on this machine: the runs of a list, one after the other
# The list has a line a task, the ranks of a run and its name. Arguments go to `mpiconsensus train`. A run goes on where
# it stopped when the time of its task is up: two minutes ahead it writes a checkpoint, and the task is requeued.
set -euo pipefail
SCRIPT=sweep_array.sh

# Site settings; each can also come from the environment.
# module load python openmpi  # what your cluster asks for
VENV=${VENV-.venv}              # virtual environment (made by `make setup`); empty: the Python that modules give
LAUNCHER=${LAUNCHER:-mpirun}    # or "srun --mpi=pmix", where Slurm and MPI were built for it
INSIDE=${INSIDE:-}              # what Python starts in: "apptainer exec mpiconsensus.sif"; empty: as it is
RANKS=${RANKS:-}                # most ranks of a run; empty: as the list says, without Slurm at most the cores

# Slurm runs a copy of this file; `mpiconsensus sweep` puts run.bash beside the list.
for here in "$(dirname "$0")" "$(dirname "${1:-.}")"; do [ ! -f "$here/run.bash" ] || break; done
[ -f "$here/run.bash" ] || { echo "$SCRIPT: no $here/run.bash; submit by: mpiconsensus sweep FILE.toml --submit" >&2; exit 2; }
# shellcheck source=slurm/run.bash
. "$here/run.bash"
[ -f "${1:-}" ] || fail "no list ${1:-}; mpiconsensus sweep FILE.toml --submit makes one, or see the head of this file"
mapfile -t tasks < "$1"
root=$(cd "$(dirname "$1")/.." && pwd)
shift
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  [ -n "${tasks[$SLURM_ARRAY_TASK_ID]:-}" ] || fail "the list has no task $SLURM_ARRAY_TASK_ID, but ${#tasks[@]}"
  tasks=("${tasks[$SLURM_ARRAY_TASK_ID]}")
fi
begin "${SLURM_SUBMIT_DIR:-.}"   # the jobs name their data from where the sweep was submitted
find_launcher
if [ -z "${SLURM_JOB_ID:-}" ]; then
  : "${RANKS:=$("${python[@]}" -c 'from mpiconsensus.limits import usable_cores; print(usable_cores())')}"
fi

end=0
for task in "${tasks[@]}"; do
  [ -z "$stopped" ] || { end=75; break; }
  read -r ranks run <<< "$task"
  [ -z "$RANKS" ] || [ "$ranks" -le "$RANKS" ] || ranks=$RANKS
  supervise "${launcher[@]}" -n "$ranks" "${python[@]}" -m mpiconsensus train "$root/jobs/$run.toml" --out "$root/$run" --resume auto "$@"
  doubt "$root/$run"
  [ "$code" = 0 ] || end=$code
  [ "$code" != 75 ] || break
done
code=$end
[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
exit "$code"
