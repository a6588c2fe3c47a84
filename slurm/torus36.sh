#!/usr/bin/env bash
#SBATCH --job-name=torus36
#SBATCH --ntasks=36
#SBATCH --time=04:00:00
#SBATCH --output=torus36-%j.log
#SBATCH --signal=B:USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Train the 36 vertices of a 6x6 torus on CIFAR-10.
#   sbatch slurm/torus36.sh [ARGUMENT...]     on a cluster, submitted from the checkout: a rank a vertex
#   bash slurm/torus36.sh [ARGUMENT...]       on this machine: the vertices share as many ranks as it has cores
# Arguments go to `mpiconsensus train`, for example --set training.epochs=3. On a cluster the job goes on where it
# stopped when its time is up or it is preempted: two minutes ahead the run writes a checkpoint and the job is requeued.
set -euo pipefail

# Site settings; each can also come from the environment. Paths are relative to the checkout.
VENV=${VENV-.venv}                     # virtual environment (made by `make setup`); empty: the Python that modules give
# module load python openmpi           # what your cluster asks for
LAUNCHER=${LAUNCHER:-mpirun}           # or "srun --mpi=pmix", where Slurm and MPI were built for it
RANKS=${RANKS:-}                       # empty: the tasks of the allocation; without Slurm the cores, at most 36
JOB=${JOB:-jobs/torus36.toml}
SHARDS=${SHARDS:-shards/cifar10-36}
RAW=${RAW:-}                           # folder that holds cifar-10-batches-bin; shards that are missing are made from it
RUN=${RUN:-}                           # run directory, gone on with where it is there; empty: runs/NAME-JOBID inside Slurm

fail() { echo "torus36.sh: $1" >&2; exit 2; }

# Slurm runs a copy of this file, so that its own place tells nothing.
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
[ -f "$JOB" ] || fail "no job file $JOB in $PWD; submit from the checkout: sbatch slurm/torus36.sh"
[ -z "$VENV" ] || [ ! -d "$VENV/bin" ] || PATH=$(cd "$VENV/bin" && pwd):$PATH
read -ra launcher <<< "$LAUNCHER"
command -v "${launcher[0]}" > /dev/null || fail "no ${launcher[0]} on the PATH; run \`make setup\`, or load your cluster's modules in this file"

prepare=(python3 data_prep/cifar10.py "${RAW:-RAW}" "$SHARDS" --shards 36)
if [ ! -e "$SHARDS/manifest.json" ] && [[ "$*" != *data.shards=* ]]; then
  [ -n "$RAW" ] || fail "no shards in $SHARDS; make them with \`${prepare[*]}\` (RAW holds cifar-10-batches-bin), or set RAW and start again"
  "${prepare[@]}"
fi

if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
if [[ $("${launcher[@]}" --version 2> /dev/null) == *"Open MPI"* ]]; then
  launcher+=(--bind-to none)   # where Slurm counts hardware threads, binding to cores refuses to start
  [ -n "${SLURM_JOB_ID:-}" ] || launcher+=(--oversubscribe)   # inside Slurm the allocation rules
fi
: "${RANKS:=${SLURM_NTASKS:-$(python3 -c 'from mpiconsensus.limits import usable_cores; print(min(36, usable_cores()))')}}"

# A requeued job finds its run by this name.
[ -n "$RUN" ] || [ -z "${SLURM_JOB_ID:-}" ] || RUN=runs/${SLURM_JOB_NAME:-torus36}-$SLURM_JOB_ID
requeue=
if [ -n "$RUN" ] && [[ " $*" != *" --out"* && " $*" != *" --resume"* ]]; then
  set -- --out "$RUN" --resume auto "$@"
  requeue=${SLURM_JOB_ID:-}
fi

# Slurm tells this shell alone, and mpirun ends its ranks at SIGTERM and SIGINT within half a second but passes SIGUSR2
# on to them: in a process group of its own it gets that one, from here, and no Ctrl-C.
set -m
"${launcher[@]}" -n "$RANKS" python3 -m mpiconsensus train "$JOB" --set "data.shards=$SHARDS" "$@" < /dev/null &
running=$!
trap 'told=1; kill -USR2 "$running" 2> /dev/null || true' USR1 USR2 TERM INT HUP
told=1
while [ -n "$told" ]; do   # a signal ends `wait`, not the run
  told='' code=0
  wait "$running" || code=$?
done
# 75: a signal stopped the run behind a checkpoint.
if [ "$code" = 75 ] && [ -n "$requeue" ]; then
  scontrol requeue "$requeue"
fi
exit "$code"
