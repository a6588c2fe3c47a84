"""The directory of a sweep, ROOT: what its runs are, and which job arrays were filed for them.

    ROOT/sweep.json        name, runs (names, in order), arrays: [{job, runs (task k is runs[k]), at (seconds since 1970)}]
    ROOT/jobs/NAME.toml    the job of a run; ROOT/jobs/array-K.txt: what the K-th array runs, a line a task
    ROOT/output/           what each run said, errors too
    ROOT/NAME/             the run directory, there once the run was started
"""

import json
import os
from pathlib import Path

from mpiconsensus.errors import UserError

INDEX, JOBS, OUTPUT = "sweep.json", "jobs", "output"
FORMAT = "mpiconsensus sweep 1"
RESERVED = (JOBS, OUTPUT)


def is_sweep(path):
    """Return whether `path` is the directory of a sweep."""
    return (Path(path) / INDEX).is_file()


def read(root):
    """Return the content of sweep.json; UserError where it is none of ours."""
    path = Path(root) / INDEX
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}; give the directory of a sweep.") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is not in format {FORMAT!r}; read it with the version of mpiconsensus that wrote it.")
    return found


def write(root, name, runs, arrays):
    """Write sweep.json, whole or not at all."""
    aside = Path(root, INDEX + ".new")
    aside.write_text(json.dumps({"format": FORMAT, "name": name, "runs": runs, "arrays": arrays}, indent=1))
    os.replace(aside, Path(root, INDEX))


def runs(root):
    """Return the run directories of a sweep in order, those that are not there yet too."""
    return [Path(root) / name for name in read(root)["runs"]]


def job_file(root, name):
    """Return the path of a run's job."""
    return Path(root) / JOBS / f"{name}.toml"


def filed(run):
    """Return (job, seconds since 1970) of the last array task that was filed for the run directory of a sweep, or ("", 0)."""
    run = Path(run)
    if not is_sweep(run.parent):
        return "", 0.0
    for array in reversed(read(run.parent)["arrays"]):
        if run.name in array["runs"]:
            return f"{array['job']}_{array['runs'].index(run.name)}", array["at"]
    return "", 0.0
