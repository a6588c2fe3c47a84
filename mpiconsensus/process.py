"""Whose a directory is: the process that works in it, written down so that it can be told from any other.

process.json: host, boot (of the kernel), pid, start (of the process, in ticks of the kernel since then), slurm (job or task
that it belongs to), at (seconds since 1970). A number of a process comes again; one with the same start does not.
"""

import json
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

NAME = "process.json"


def sign(directory):
    """Write down in `directory` that this process works in it; a disk that refuses does not end the work."""
    facts = {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "start": _start(os.getpid()), "slurm": slurm_job(), "at": time.time()}
    aside = Path(directory, NAME + ".new")
    with suppress(OSError):
        aside.write_text(json.dumps(facts))
        os.replace(aside, Path(directory, NAME))


def owner(directory):
    """Return what `sign` wrote in `directory`, or None where there is nothing that can be read."""
    try:
        found = json.loads(Path(directory, NAME).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"host", "boot", "pid", "start", "slurm", "at"} <= found.keys() else None


def here(owner):
    """Return whether the owner worked on this host, since the kernel was started."""
    return owner is not None and (owner["host"], owner["boot"]) == (socket.gethostname(), _boot())


def alive(owner):
    """Return whether the very process of `owner` is there, on this host."""
    return here(owner) and owner["start"] is not None and _start(owner["pid"]) == owner["start"]


def tell(owner, number):
    """Send a signal to the process of `owner`; return whether it is there to be told. PermissionError where it is another user's."""
    try:
        handle = os.pidfd_open(owner["pid"])
    except OSError:
        return False
    try:
        # The handle stays that of one process, whatever becomes of its number.
        if not alive(owner):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def slurm_job(environ=os.environ):
    """Return the Slurm job that this process belongs to, "1234", or the task of an array, "1234_7"; else ""."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")


def _start(pid):
    """Return when a process was started, or None where there is none: field 22 of its stat, proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name of the program, in brackets, may hold anything
    return None if state in "ZX" else int(fields[18])


def _boot():
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
