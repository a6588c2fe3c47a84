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

# Site settings; each can also come from the environment.
VENV=${VENV-.venv}                     # virtual environment (made by `make setup`); empty: the Python that modules give
# module load python openmpi           # what your cluster asks for
LAUNCHER=${LAUNCHER:-mpirun}           # or "srun --mpi=pmix", where Slurm and MPI were built for it

fail() { echo "sweep_array.sh: $1" >&2; exit 2; }

[ -f "${1:-}" ] || fail "no list ${1:-}; mpiconsensus sweep FILE.toml --submit makes one, or see the head of this file"
mapfile -t tasks < "$1"
root=$(cd "$(dirname "$1")/.." && pwd)
shift
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  [ -n "${tasks[$SLURM_ARRAY_TASK_ID]:-}" ] || fail "the list has no task $SLURM_ARRAY_TASK_ID, but ${#tasks[@]}"
  tasks=("${tasks[$SLURM_ARRAY_TASK_ID]}")
fi
# What an outer rank, step or allocation left behind: Python would wait for ranks that are not there, and srun refuse.
for name in $(compgen -e); do
  case $name in
    *_MCA_*) ;;   # settings of the site
    PMIX_* | PMI_* | PRTE_* | OMPI_COMM_* | OMPI_WORLD_* | OMPI_UNIVERSE_*) unset "$name" ;;
    SLURM_STEP* | SLURM_SRUN_* | SLURM_CPU_BIND* | SLURM_MEM_BIND* | SLURM_MEM_PER_*) [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || unset "$name" ;;
  esac
done
# Slurm runs a copy of this file; the jobs name their data from where the sweep was submitted.
cd "${SLURM_SUBMIT_DIR:-.}"
[ -z "$VENV" ] || [ ! -d "$VENV/bin" ] || PATH=$(cd "$VENV/bin" && pwd):$PATH
read -ra launcher <<< "$LAUNCHER"
command -v "${launcher[0]}" > /dev/null || fail "no ${launcher[0]} on the PATH; run \`make setup\`, or load your cluster's modules in this file"

if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
most=${RANKS:-}
if [[ $("${launcher[@]}" --version 2> /dev/null) == *"Open MPI"* ]]; then
  launcher+=(--bind-to none)   # where Slurm counts hardware threads, binding to cores refuses to start
  [ -n "${SLURM_JOB_ID:-}" ] || launcher+=(--oversubscribe)   # inside Slurm the allocation rules
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
  : "${most:=$(python3 -c 'from mpiconsensus.limits import usable_cores; print(usable_cores())')}"
fi

# Slurm tells this shell alone, and mpirun ends its ranks at SIGTERM and SIGINT within half a second but passes SIGUSR2
# on to them: in a process group of its own it gets that one, from here, and no Ctrl-C.
set -m
stopped='' asked='' running='' end=0
trap 'woken=1 stopped=1 asked=1; [ -z "$running" ] || kill -USR2 "$running" 2> /dev/null || true' USR1 USR2
# scancel, or a preemption after which Slurm requeues by itself: a checkpoint, and nothing to ask for
trap 'woken=1 stopped=1; [ -z "$running" ] || kill -USR2 "$running" 2> /dev/null || true' TERM INT HUP
for task in "${tasks[@]}"; do
  [ -z "$stopped" ] || { end=75; break; }
  read -r ranks run <<< "$task"
  [ -z "$most" ] || [ "$ranks" -le "$most" ] || ranks=$most
  "${launcher[@]}" -n "$ranks" python3 -m mpiconsensus train "$root/jobs/$run.toml" --out "$root/$run" --resume auto "$@" < /dev/null &
  running=$! woken=1
  while [ -n "$woken" ]; do   # a signal ends `wait`, not the run
    woken='' code=0
    wait "$running" || code=$?
  done
  running=''
  [ "$code" = 0 ] || end=$code
  [ "$code" != 75 ] || break
done
# 75: a signal stopped the run behind a checkpoint.
if [ "$end" = 75 ] && [ -n "$asked" ] && [ -n "${SLURM_ARRAY_JOB_ID:-}" ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit "$end"
