"""What a job script must know ahead of its ranks: how many there are, and how missing shards are made.

    python3 slurm/look.py SCRIPT JOB [ARGUMENT...]     ARGUMENTs as of `mpiconsensus train`; RANKS and RAW from the environment

Prints the number of ranks: RANKS, else the tasks of the allocation, else the usable cores. Where the job's shards are missing, and
always where PREPARE is set, then the script, raw files, shards and options that make them, a line each: the job's head says them.
A mistake: one line, exit code 2.
"""

import contextlib
import os
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
try:
    import click

    from mpiconsensus import config, topology
    from mpiconsensus.cli.train import train
    from mpiconsensus.data.source import open_source
    from mpiconsensus.errors import UserError
    from mpiconsensus.limits import usable_cores
except ImportError as error:
    print(f"{sys.argv[1]}: {sys.executable} has no {error.name}: run `make setup`, or set VENV to where it was installed", file=sys.stderr)
    sys.exit(2)


def look(path, arguments, environ):
    """Return the words to print. UserError, or click's, where the job, its arguments or its tasks do not fit."""
    if not Path(path).is_file():
        raise UserError(f"no job file {path} in {Path.cwd()}; give another by JOB")
    with contextlib.redirect_stdout(sys.stderr):
        given = train.make_context("train", [path, *arguments]).params
    job = config.load(path, given["overrides"])
    asked, tasks = (number(name, environ.get(name)) for name in ("RANKS", "SLURM_NTASKS"))
    n = topology.net(job.topology.graph, asked or tasks or usable_cores(), job.topology.seed).n
    ranks = asked or tasks or min(n, usable_cores())
    if asked and tasks and asked > tasks:
        raise UserError(f"RANKS = {asked}, but the allocation has {tasks} tasks; ask for more: sbatch --ntasks={asked}")
    if ranks > n:
        raise UserError(f"{ranks} tasks for the {n} vertices of {job.topology.graph}; ask for fewer, sbatch --ntasks={n}, or set RANKS={n}")
    shards = job.data.shards
    if environ.get("PREPARE") and not shards:
        raise UserError(f"{path} needs no shards: its data lie in the package")
    if shards and (environ.get("PREPARE") or not Path(shards, "manifest.json").exists()):
        return [str(ranks), *preparation(path, shards, n, environ.get("RAW"))]
    open_source(job.data, n, job.hetero.powers, job.training.seed)
    return [str(ranks)]


def number(name, text):
    """Return the whole number of a setting, None where it is not set."""
    if text and not (text.isascii() and text.isdecimal() and int(text)):
        raise UserError(f"{name} = {text!r} is not allowed; give a whole number of at least 1")
    return int(text) if text else None


def preparation(path, shards, n, raw):
    """Return script and arguments that make the job's shards from the folder `raw`."""
    found = re.search(r"^# Shards: python3? (data_prep/[^(;\n]+)", Path(path).read_text(), re.MULTILINE)
    if not found:
        raise UserError(f"no shards in {shards}, and {path} does not say how they are made; see docs/prepare-data.md")
    script, _, _, *options = shlex.split(found[1])
    options[options.index("--shards") + 1] = str(n)
    words = [script, raw or "RAW", shards, *options]
    if not raw:
        command = shlex.join(["python3", *words])
        raise UserError(f"no shards in {shards}; make them with `{command}` (RAW: the folder of the raw files), or set RAW and start again")
    return words


if __name__ == "__main__":
    try:
        print(*look(sys.argv[2], sys.argv[3:], os.environ), sep="\n")
    except click.exceptions.Exit:  # --help
        pass
    except (UserError, click.ClickException) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        sys.exit(2)
