#!/usr/bin/env bash
#SBATCH --job-name=prepare_data
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Make the shards that a job needs from the raw files, on striped storage where there is Lustre, and verify them.
#   RAW=raw sbatch slurm/prepare_data.sh [OPTION...]                            those of the torus of 36
#   RAW=raw JOB=jobs/fashion_cycle4.toml bash slurm/prepare_data.sh [OPTION...]  on this machine, for another job
# Options go to the script in data_prep/ that the head of the job names, for example --partition dirichlet:0.3 --force.
# Started again, it leaves shards that are complete as they are, and verifies them.
set -euo pipefail
SCRIPT=prepare_data.sh

# Site settings; each can also come from the environment. Paths are relative to the checkout.
# module load python            # what your cluster asks for
VENV=${VENV-.venv}              # virtual environment (made by `make setup`); empty: the Python that modules give
INSIDE=${INSIDE:-}              # what Python starts in: "apptainer exec mpiconsensus.sif"; empty: as it is
JOB=${JOB:-jobs/torus36.toml}
SHARDS=${SHARDS:-}              # empty: where the job says
RAW=${RAW:-}                    # folder of the raw files
STRIPE=${STRIPE-1}              # storage targets a file is spread over, on Lustre; empty: as the directory has it

for here in "$(dirname "$0")" "${SLURM_SUBMIT_DIR:-.}/slurm"; do [ ! -f "$here/run.bash" ] || break; done
[ -f "$here/run.bash" ] || { echo "$SCRIPT: no $here/run.bash; submit from the checkout: sbatch slurm/$SCRIPT" >&2; exit 2; }
# shellcheck source=slurm/run.bash
. "$here/run.bash"
begin "$here/.."
PREPARE=1 look ${SHARDS:+--set "data.shards=$SHARDS"}
shards=${found[3]}
[ -z "$STRIPE" ] || bash data_prep/stripe.sh "$(dirname "$shards")" "$STRIPE"
"${python[@]}" "${found[@]:1}" "$@"
"${python[@]}" data_prep/verify.py "$shards"
