"""What Slurm knows of jobs: their states by sacct, by squeue where that keeps no accounts, and scancel.

A job is "1234", a task of an array "1234_7". Where there is no Slurm, or it does not answer, nothing is known.
"""

import os
import re
import shutil
import subprocess

from mpiconsensus.errors import UserError

PATIENCE_S = 20
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "RESIZING", "SIGNALING", "STAGE_OUT", "STOPPED"}
OWN = ("SLURM_CONF", "SLURM_TIME_FORMAT")  # settings of the site; the other SLURM_* describe the job around this process


def states(jobs):
    """Return {job: state in capitals} of the jobs and tasks that Slurm knows of those asked for; an array's tasks are told one by one."""
    arrays = sorted({job.partition("_")[0] for job in jobs if job})
    if not arrays:
        return {}
    listed = ",".join(arrays)
    found = _parsed(_ask("sacct", "--parsable2", "--noheader", "--allocations", "--format=JobID,State", "--jobs", listed))
    # A job that was just filed may not be in the accounts yet.
    if unknown := [array for array in arrays if not any(job.partition("_")[0] == array for job in found)]:
        found |= _parsed(_ask("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", "--jobs", ",".join(unknown)))
    return found


def cancel(jobs):
    """Cancel jobs and tasks; UserError with Slurm's words where it refuses."""
    call("scancel", *jobs)


def call(*words):
    """Run a command of Slurm and return what it prints; UserError where it is missing or refuses."""
    if not shutil.which(words[0]):
        raise UserError(f"there is no {words[0]} on the PATH; call this where Slurm is, or load its module.")
    try:
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=3 * PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} does not answer within {3 * PATIENCE_S} s; look with sinfo whether Slurm is up.") from None
    if done.returncode:
        told = "; ".join(line.partition("error: ")[2] or line for line in done.stderr.splitlines() if line.strip())
        raise UserError(f"{words[0]} refuses: {told or f'exit code {done.returncode}'}.")
    return done.stdout


def environment():
    """Return the environment without what describes the Slurm job around this process: it must not reach another one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLURM_") or name in OWN}


def _ask(*words):
    """Return what a command prints, "" where it is missing, does not answer, or has no accounts."""
    if not shutil.which(words[0]):
        return ""
    try:
        done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _parsed(text):
    """Return {job: state} of lines such as `1234_7|CANCELLED by 1000` and `1234_[3,5-9%2]|PENDING`."""
    found = {}
    for line in text.splitlines():
        job, bar, state = line.strip().partition("|")
        if bar and state:
            found |= dict.fromkeys(_tasks(job), state.split()[0].rstrip("+"))
    return found


def _tasks(job):
    """Return the jobs that an id names: `7_[0-6:2,9%4]` is five of them."""
    found = re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", job)
    if not found:
        return [job]
    tasks = []
    for part in found[2].split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if span:
            tasks += range(int(span[1]), int(span[2] or span[1]) + 1, int(span[3] or 1))
    return [f"{found[1]}_{task}" for task in tasks]
