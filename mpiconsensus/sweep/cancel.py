"""`mpiconsensus cancel`: the end of runs and sweeps, where they run: a task of Slurm, or a process of this host."""

import signal
from pathlib import Path

from mpiconsensus import process, rundirectory, slurm, status, sweepdirectory
from mpiconsensus.errors import UserError


def cancel(paths, say=print):
    """End every run of `paths`, run directories and directories of sweeps; say what was done. UserError where nothing can be."""
    for path in map(Path, paths):
        runs = status.find([path])
        ended = [run for run in runs if run.is_dir() and rundirectory.finished(run)]
        if len(ended) == len(runs):
            what = f"run {str(path)!r} is" if runs == [path] else f"all runs of {str(path)!r} are"
            raise UserError(f"{what} finished: there is nothing to cancel; `mpiconsensus report {path}` tells the end.")
        jobs = {run: status.job_of(run) for run in runs if run not in ended}
        known = slurm.states(jobs.values())
        alive = {run: job for run, job in jobs.items() if known.get(job) in slurm.WAITING | slurm.RUNNING}
        told = _tell(path, say) if sweepdirectory.is_sweep(path) else False  # the sweep first: it would start the next run
        if alive:
            slurm.cancel(sorted(set(alive.values())))
            for run, job in alive.items():
                say(f"{run}: scancel {job}, which was {known[job]}")
        for run in jobs.keys() - alive.keys():
            told |= _tell(run, say)
        if not alive and not told:
            raise UserError(f"{str(path)!r} is not under way: {_why(runs)}.")


def _tell(directory, say):
    """Ask the process that works in `directory` for a checkpoint and its end, where it is of this host; return whether it was."""
    owner = process.owner(directory)
    try:
        if not process.alive(owner) or not process.tell(owner, signal.SIGUSR2):
            return False
    except PermissionError:
        raise UserError(f"{directory}: process {owner['pid']} is another user's; ask them to end it.") from None
    say(f"{directory}: SIGUSR2 to process {owner['pid']}, which ends, behind a checkpoint where it keeps any")
    return True


def _why(runs):
    owners = [owner for owner in map(process.owner, runs) if owner]
    elsewhere = sorted({owner["host"] for owner in owners if not process.here(owner)})
    if elsewhere:
        return f"not on this host, and Slurm tells of no job; if it still runs on {', '.join(elsewhere)}, cancel it there"
    return "no process of this host works in it, and Slurm tells of no job that waits or runs"
