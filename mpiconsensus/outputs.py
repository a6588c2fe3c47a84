"""Files that a command writes: refused before any work where they cannot be made, written aside and renamed."""

import importlib.util
import os
from pathlib import Path

from mpiconsensus.errors import TrainingError, UserError

PICTURES = (".png", ".pdf", ".svg")


def check(option, path, force=False, suffixes=None):
    """Raise UserError unless the file `path` of a command's `option` can be made; `force` writes over one that is there.

    `suffixes`: those allowed; with PICTURES, matplotlib must be installed.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{option} {path}: the suffix says the format; choose one of {', '.join(suffixes)}.")
    if suffixes == PICTURES and not importlib.util.find_spec("matplotlib"):
        raise UserError("pictures need matplotlib; install it: pip install matplotlib.")
    if path.is_dir():
        raise UserError(f"{option} {path}: that is a directory; give a file.")
    if path.exists() and not force:
        raise UserError(f"{option} {path}: the file is there already; give another name, or --force to write over it.")
    if not path.absolute().parent.is_dir():
        raise UserError(f"{option} {path}: there is no directory {str(path.parent)!r}; make it, or give another place.")


def synchronise(path):
    """Return when the disk has what was written to a file or directory."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def put(path, write):
    """Make the file `path`, whole or not at all: `write(name)` fills a file beside it; TrainingError where the disk refuses."""
    path = Path(path)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.new{path.suffix}")
    try:
        write(str(aside))
        os.replace(aside, path)
    except OSError as error:
        raise TrainingError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error
    finally:
        aside.unlink(missing_ok=True)
