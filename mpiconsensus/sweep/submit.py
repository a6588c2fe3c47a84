"""A sweep as one job array of Slurm: what it runs is written to a list, a line a task."""

import os
import shutil
import sys
import time
from pathlib import Path

from mpiconsensus import slurm, sweepdirectory
from mpiconsensus.errors import UserError
from mpiconsensus.sweep import children, states

SCRIPT = Path("slurm/sweep_array.sh")
SHARED = "run.bash"  # what the script sources: Slurm runs a copy of the script alone, so that it is put beside the list
# Options of sbatch that are this command's to give, and how to ask for what they do.
OURS = {"--array": "--at-once K", "-a": "--at-once K", "--ntasks": "--ranks R", "-n": "--ranks R", "--wrap": SCRIPT, "--parsable": "nothing",
        "--output": f"ROOT/{sweepdirectory.OUTPUT}", "-o": f"ROOT/{sweepdirectory.OUTPUT}"}  # fmt: skip


def submit(sweep, ranks=None, at_once=None, options=(), say=print):
    """File the runs that are missing as one job array and return its id, or "" where none is; `options` go to sbatch.

    ranks: of each run, at most its vertices; default: as many. at_once: tasks side by side; default: as Slurm likes.
    """
    children.require_alone()
    _check(options)
    script = _script()
    vertices = states.check(sweep)
    if not shutil.which("sbatch"):
        raise UserError("there is no sbatch on the PATH; submit where Slurm is, or train here with --local.")
    states.prepare(sweep)
    queued = states.queued(sweep)
    missing = [run.name for run in sweep.runs if run.name not in queued and not states.done(sweep, run)]
    if queued:
        say(f"{len(queued)} of {len(sweep.runs)} runs wait or run in Slurm already")
    if not missing:
        say(f"nothing is missing: `mpiconsensus status {sweep.root}`")
        return ""
    shutil.copyfile(script.with_name(SHARED), sweep.root / sweepdirectory.JOBS / SHARED)
    counts = [min(ranks or vertices[name], vertices[name]) for name in missing]
    listed = _write(sweep.root, [f"{count} {name}" for count, name in zip(counts, missing, strict=True)])
    root = sweep.root.absolute()
    words = ["sbatch", "--parsable", f"--job-name={sweep.name}", f"--array=0-{len(missing) - 1}" + (f"%{at_once}" if at_once else ""),
             f"--ntasks={max(counts)}", f"--output={root / sweepdirectory.OUTPUT}/%A_%a.log"]  # fmt: skip
    if sys.prefix != sys.base_prefix:
        os.environ.setdefault("VENV", sys.prefix)
    try:
        job = slurm.call(*words, *options, str(script), str(listed)).split(";")[0].strip()
    except UserError:
        listed.unlink()
        raise
    stored = sweepdirectory.read(root)
    array = {"job": job, "runs": missing, "at": time.time()}
    sweepdirectory.write(root, stored["name"], stored["runs"], [*stored["arrays"], array])
    say(f"job array {job} of {len(missing)} runs, {max(counts)} ranks each at most")
    say(f"follow  mpiconsensus status {sweep.root}    (what they say: {sweep.root / sweepdirectory.OUTPUT}/{job}_*.log)")
    say(f"end     mpiconsensus cancel {sweep.root}")
    return job


def _check(options):
    for option in options:
        word = option.partition("=")[0]
        if word in OURS:
            raise UserError(f"{word} cannot go to sbatch, which gets it from the sweep: {OURS[word]}.")


def _script():
    """Return the script of the directory that this is called in, which may have been edited, else that of the checkout."""
    for path in (SCRIPT.absolute(), Path(__file__).resolve().parents[2] / SCRIPT):
        if path.is_file():
            if not path.with_name(SHARED).is_file():
                raise UserError(f"{str(path)!r} needs {SHARED} beside it; copy slurm/{SHARED} of the checkout there.")
            return path
    raise UserError(f"there is no {SCRIPT} in {str(Path.cwd())!r}; submit from the checkout, or copy the script from there.")


def _write(root, lines):
    """Write the list of the next array and return its path."""
    folder = root.absolute() / sweepdirectory.JOBS
    path = folder / f"array-{len(list(folder.glob('array-*.txt'))) + 1}.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
