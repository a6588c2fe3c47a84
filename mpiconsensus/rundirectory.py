"""The directory of a run: made once, never taken from another run; taken up again by the run whose it is."""

import fcntl
import json
import os
import re
import shutil
import time
from itertools import count
from pathlib import Path

from mpiconsensus.errors import UserError

ASIDE = "job.toml.new"  # the job while it is written


def make_directory(job, world, wiring, source, out):
    """Make the run's directory on rank 0 and return its path everywhere; an existing one is never taken."""

    def make():
        try:
            directory = _new_directory(job, wiring, source, out)
            hold(directory)
            (directory / "log").mkdir()
            _put_job(directory, job)
        except FileExistsError as error:
            raise UserError(
                f"run directory {error.filename!r} is there already; give another name (--out DIR) or move it away; "
                "`--resume` goes on with a run."
            ) from None
        except OSError as error:
            raise UserError(f"the run directory cannot be made: {error}; give a writable place (--out DIR).") from None
        return directory

    return world.bcast(world.agree(make if world.rank == 0 else lambda: None))


def named(job, out):
    """Return the directory that --out or log.name asks for, or None."""
    if out is not None:
        return Path(out)
    return Path(job.log.directory) / job.log.name if job.log.name else None


def hold(directory):
    """Keep other processes from going on with this run while this one lives; UserError where another one does.

    The lock goes with the process. A file system without locks is taken as it is.
    """
    handle = os.open(directory, os.O_RDONLY)
    for patience in (0.05, 0.2, None):  # whoever looks whether a run is under way holds the lock for an instant
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if patience:
                time.sleep(patience)
        except OSError:
            os.close(handle)
            return
    os.close(handle)
    raise UserError(f"run {str(directory)!r} is under way in another process; wait for its end, or end it first.")


def under_way(directory):
    """Return whether a process holds the run, as far as locks tell: not across machines, where their file system keeps them apart."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def finished(directory):
    """Return whether the run came to its end, its models written."""
    try:
        index = json.loads((directory / "model" / "index.json").read_text())
    except (OSError, ValueError):
        return False
    return {"last", "best"} <= index.keys()


def barely_begun(directory):
    """Return whether the directory holds nothing that a run wrote."""
    return all(path.name == ASIDE or path.name == "log" and path.is_dir() and not any(path.iterdir()) for path in directory.iterdir())


def move_aside(directory):
    """Give the directory the next free name with a number behind, and return it."""
    for number in count(1):
        aside = directory.with_name(f"{directory.name}.{number}")
        if not aside.exists():
            directory.rename(aside)
            return aside


def mend(directory):
    """Finish or take back the change of logs that a killed resume left half done."""
    log, new, old = (directory / name for name in ("log", "log.new", "log.old"))
    if not log.exists() and new.exists():
        os.rename(new, log)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)


def go_on(directory, job):
    """Make log.new the log, write the job down, and take away what said that the run had ended."""
    (directory / "model" / "index.json").unlink(missing_ok=True)
    os.rename(directory / "log", directory / "log.old")
    os.rename(directory / "log.new", directory / "log")
    shutil.rmtree(directory / "log.old")
    _put_job(directory, job)


def _put_job(directory, job):
    """Write job.toml, whole or not at all: whatever kills this, a resume finds one that it can read, or none."""
    aside = directory / ASIDE
    aside.write_text(job.to_toml())
    os.replace(aside, directory / "job.toml")


def _new_directory(job, wiring, source, out):
    """Make and return the directory that was asked for, or the next free number of the job's name."""
    directory = named(job, out)
    if directory is not None:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir()
        return directory
    parent = Path(job.log.directory)
    parent.mkdir(parents=True, exist_ok=True)
    name = job.name or f"{source.name}-{re.sub('[^a-z0-9]+', '', wiring.spec.rpartition('/')[2].lower())}"
    for number in count(1):
        directory = parent / f"{name}-{number:04d}"
        try:
            directory.mkdir()
            return directory
        except FileExistsError:
            pass  # an earlier run, or one that starts beside this one
