# shellcheck shell=bash
# What the scripts beside this file share. They source it, then call `train "$@"`, or `begin` and what they want of their own.
# It reads their settings SCRIPT VENV LAUNCHER INSIDE RANKS JOB SHARDS RAW RUN, and `here`, the directory of this file.
# A mistake: one line, exit code 2.

fail() { echo "$SCRIPT: $1" >&2; exit 2; }

# Go to directory $1, take the virtual environment, and forget what an outer rank, step or allocation left behind.
begin() {
  local name tasks=${SLURM_TASKS_PER_NODE:-}
  # Slurm runs a copy of a script, which lies elsewhere. One started by hand lies here, within an allocation (salloc) too.
  batch=
  [ -z "${SLURM_JOB_ID:-}" ] || [ "$(dirname "$0")" -ef "$here" ] || batch=$SLURM_JOB_ID
  cd "$1" || exit 2
  # A job inherits the variables of the shell that submitted it. Those of an MPI rank make Python wait for ranks that are
  # not there. Those of a step or of another allocation change what srun asks for, beneath mpirun too: it is refused.
  for name in $(compgen -e); do
    case $name in
      *_MCA_*) ;;   # settings of the site
      PMIX_* | PMI_* | PRTE_* | OMPI_COMM_* | OMPI_WORLD_* | OMPI_UNIVERSE_*) unset "$name" ;;
      SLURM_STEP* | SLURM_SRUN_* | SLURM_CPU_BIND* | SLURM_MEM_BIND* | SLURM_MEM_PER_*) [ -z "$batch" ] || unset "$name" ;;
    esac
  done
  # SLURM_TASKS_PER_NODE is always the job's own, as 9(x4) or 16(x2),4.
  [ -z "$batch" ] || [ "${SLURM_NTASKS_PER_NODE:-}" = "${tasks%%[(,]*}" ] || unset SLURM_NTASKS_PER_NODE
  [ -z "$VENV" ] || [ ! -d "$VENV/bin" ] || PATH=$(cd "$VENV/bin" && pwd):$PATH
  read -ra python <<< "$INSIDE python3"
  needs "${python[0]}"
}

needs() { command -v "$1" > /dev/null || fail "no $1 on the PATH; run \`make setup\`, or load your cluster's modules in this file"; }

# Set `found` to the ranks of JOB with these arguments of `mpiconsensus train` and, where its shards are missing, the words
# behind `python3` of the command that makes them: script, raw files, shards, options.
look() {
  local lines
  lines=$(RANKS=${RANKS:-} RAW=${RAW:-} "${python[@]}" slurm/look.py "$SCRIPT" "$JOB" "$@") || exit
  mapfile -t found <<< "$lines"
  [ -n "$lines" ] || exit 0   # --help
}

# Set `launcher` to LAUNCHER and the options that its kind needs.
find_launcher() {
  read -ra launcher <<< "$LAUNCHER"
  needs "${launcher[0]}"
  if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  if [[ $("${launcher[@]}" --version 2> /dev/null) == *"Open MPI"* ]]; then
    launcher+=(--bind-to none)   # where Slurm counts hardware threads, binding to cores refuses to start
    [ -n "${SLURM_JOB_ID:-}" ] || launcher+=(--oversubscribe)   # inside Slurm the allocation rules
  fi
}

running='' stopped='' asked='' lost=''

# Run a command to its end and set `code` to its exit code; `stopped` where a signal asked for that, and `asked` where it was
# Slurm's, for a stop that it does not mend itself.
supervise() {
  local told=1
  # Slurm tells this shell alone, and mpirun ends its ranks at SIGTERM and SIGINT within half a second but passes SIGUSR2
  # on to them: in a process group of its own it gets that one, from here, and no Ctrl-C.
  set -m
  "$@" < /dev/null &
  running=$!
  trap 'told=1 stopped=1 asked=1; kill -USR2 "$running" 2> /dev/null || true' USR1 USR2
  # scancel is final, and after a preemption Slurm requeues by itself.
  trap 'told=1 stopped=1; kill -USR2 "$running" 2> /dev/null || true' TERM INT HUP
  while [ -n "$told" ]; do   # a signal ends `wait`, not the run
    told='' code=0
    wait "$running" || code=$?
  done
  running=''   # a signal that comes later must not reach whoever has its number by then
}

# Where the command that trained the run in directory $1 ended with 0, look whether that is true: a launcher that has lost a
# node may say so. A run is finished when its models are there; it may be `lost` a few times.
doubt() {
  local index=$1/model/index.json
  if [ "$code" != 0 ] || [ ! -d "$1/log" ] || { grep -qs '"last"' "$index" && grep -qs '"best"' "$index"; }; then
    return
  fi
  echo "$SCRIPT: the launcher ended with 0, but the run in $1 is not finished (a lost node?); started again it goes on." >&2
  code=1
  [ "${SLURM_RESTART_COUNT:-0}" -ge 5 ] || lost=1
}

# Have Slurm start job $1 again where it is to go on.
requeue() {
  # 75: a signal stopped the run behind a checkpoint.
  if { [ "$code" = 75 ] && [ -n "$asked" ]; } || [ -n "$lost" ]; then
    scontrol requeue "$1"
  fi
}

# Train JOB on RANKS ranks: make shards that are missing, start it, stop it behind a checkpoint at a signal, requeue it.
train() {
  local ours=''
  begin "$here/.."
  find_launcher
  [ -z "${SHARDS:-}" ] || set -- --set "data.shards=$SHARDS" "$@"
  look "$@"
  [ ${#found[@]} = 1 ] || "${python[@]}" "${found[@]:1}"

  # A requeued job finds its run by this name.
  [ -n "$RUN" ] || [ -z "$batch" ] || RUN=runs/${SLURM_JOB_NAME:-${SCRIPT%.sh}}-$batch
  if [ -n "$RUN" ] && [[ " $*" != *" --out"* && " $*" != *" --resume"* ]]; then
    set -- --out "$RUN" --resume auto "$@"
    ours=1
  fi
  supervise "${launcher[@]}" -n "${found[0]}" "${python[@]}" -m mpiconsensus train "$JOB" "$@"
  [ -z "$ours" ] || doubt "$RUN"
  [ -z "$batch" ] || [ -z "$ours" ] || requeue "$batch"
  exit "$code"
}
