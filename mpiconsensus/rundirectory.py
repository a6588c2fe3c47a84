"""The directory of a run: made once, never taken from another run."""

import re
from itertools import count
from pathlib import Path

from mpiconsensus.errors import UserError


def make_directory(job, world, wiring, source, out):
    """Make the run's directory on rank 0 and return its path everywhere; an existing one is never taken."""

    def make():
        try:
            directory = _new_directory(job, wiring, source, out)
            (directory / "log").mkdir()
            (directory / "job.toml").write_text(job.to_toml())
        except FileExistsError as error:
            raise UserError(f"run directory {error.filename!r} is there already; give another name (--out DIR) or move it away.") from None
        except OSError as error:
            raise UserError(f"the run directory cannot be made: {error}; give a writable place (--out DIR).") from None
        return directory

    return world.bcast(world.agree(make if world.rank == 0 else lambda: None))


def _new_directory(job, wiring, source, out):
    """Make and return the directory that was asked for, or the next free number of the job's name."""
    parent = Path(job.log.directory)
    if out is not None or job.log.name:
        directory = parent / job.log.name if out is None else Path(out)
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        return directory
    parent.mkdir(parents=True, exist_ok=True)
    name = job.name or f"{source.name}-{re.sub('[^a-z0-9]+', '', wiring.spec.rpartition('/')[2].lower())}"
    for number in count(1):
        directory = parent / f"{name}-{number:04d}"
        try:
            directory.mkdir()
            return directory
        except FileExistsError:
            pass  # an earlier run, or one that starts beside this one
