"""The command line: one module a group of commands, imported when one of them runs."""

import importlib
import os
import sys
import traceback

import click

from mpiconsensus import __version__
from mpiconsensus.errors import Stopped, TrainingError, UserError, did_you_mean

# command -> (module, one line for the overview): help must come at once, without torch or MPI.
COMMANDS = {
    "train": ("train", "Train one replica a vertex; the main command."),
    "config": ("lists", "List every key of a job, with type, default and meaning."),
    "algorithms": ("lists", "List the algorithms, with formula and reference."),
    "models": ("lists", "List the models."),
    "compressors": ("lists", "List the compressors, with class, constant and bits."),
    "topology": ("topology", "Graphs and weights: how fast they agree and what they send, before a run."),
    "sweep": ("sweep", "Many runs from one file: here, or as a job array of Slurm."),
    "cancel": ("sweep", "End runs and sweeps, here or in Slurm."),
    "status": ("results", "Tell how runs stand: state, step, accuracy, time left."),
    "watch": ("results", "Show how a run goes, anew every second."),
    "report": ("results", "Print the table of a run from its log."),
    "trace": ("results", "Write the steps of a run as a timeline for Perfetto."),
    "export": ("results", "Copy one model out of a run."),
    "evaluate": ("results", "Evaluate a run's model on a data set."),
    "bench": ("bench", "Measure this machine: rounds, loading, steps."),
    "doctor": ("lists", "Describe this machine, and warn of what will hurt."),
}


class Commands(click.Group):
    """Commands by name, each from its module."""

    def list_commands(self, context):
        return list(COMMANDS)

    def get_command(self, context, name):
        if name not in COMMANDS:
            raise UserError(f"no command {name!r}; commands are {', '.join(COMMANDS)}.{did_you_mean(name, COMMANDS)}")
        return getattr(importlib.import_module(f"mpiconsensus.cli.{COMMANDS[name][0]}"), name)

    def format_commands(self, context, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def group():
    """Decentralised training of neural networks over the edges of a graph."""


def main():
    """Run the command line; one clear line and exit code 2 for a user's mistake, 3 for a run that cannot go on.

    75 (EX_TEMPFAIL of sysexits.h: try again later) for a run that a signal stopped behind a checkpoint.
    """
    code = 0
    try:
        group.main(standalone_mode=False)
    except UserError as error:
        if _ranks() > 1 and not getattr(error, "agreed", False):
            _end_everywhere(error, 2)
        code = _tell(error, 2)
    except click.ClickException as error:
        code = _tell(error.format_message(), 2)
    except TrainingError as error:
        _end_everywhere(error, 3)
    except Stopped as error:
        code = _tell(error, 75)
    except click.Abort:
        code = _tell("interrupted.", 130)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing to tell anyone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception:  # noqa: BLE001 - the last resort: a defect must end every rank
        traceback.print_exc()
        _end_everywhere("this is a defect of mpiconsensus; please report it with the lines above and `mpiconsensus doctor`.", 1)
    sys.exit(code)


def _tell(message, code):
    # Under a launcher all ranks agree on a user's mistake, and rank 0 alone speaks.
    if _rank() == 0:
        print(f"mpiconsensus: {message}", file=sys.stderr, flush=True)
    return code


def _end_everywhere(message, code):
    """Tell why and end every rank: what one rank alone has met, the others would wait for."""
    where = f"rank {_rank()}: " if _ranks() > 1 else ""
    print(f"mpiconsensus: {where}{message}", file=sys.stderr, flush=True)
    if _ranks() > 1:
        sys.modules["mpi4py.MPI"].COMM_WORLD.Abort(code)
    sys.exit(code)


def _ranks():
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi.COMM_WORLD.size if mpi and mpi.Is_initialized() and not mpi.Is_finalized() else 1


def _rank():
    if _ranks() > 1:
        return sys.modules["mpi4py.MPI"].COMM_WORLD.rank
    # A mistake on the command line is found before MPI is loaded: the launcher says who we are.
    return int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK") or os.environ.get("PMIX_RANK") or 0)
