"""The command line with a fault: JSON in FAULT says what befalls which rank, and where.

{"rank": 1, "what": "kill" | "refuse" | a signal's name, "where": "step" | "operation" | "seconds", "at": 7, "times": 1}
An operation is one on files within the writing of a checkpoint or within a resume; seconds run from the first step.
"""

import errno
import json
import os
import pathlib
import shutil
import signal
import threading

import safetensors.torch

from mpiconsensus import checkpoint, cli, rundirectory
from mpiconsensus.training import Trainer


def plant(fault):
    """Build the fault into this process, if it is the one that it is for."""
    if fault["rank"] != int(os.environ.get("OMPI_COMM_WORLD_RANK", "0")):
        return
    {"step": at_step, "operation": at_operation, "seconds": at_seconds}[fault["where"]](fault)


def befall(what):
    if what == "refuse":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), signal.SIGKILL if what == "kill" else getattr(signal, what))


def at_step(fault):
    step = Trainer.step

    def faulty(self):
        if self.k == fault["at"]:
            befall(fault["what"])
        return step(self)

    Trainer.step = faulty


def at_seconds(fault):
    step, timer = Trainer.step, threading.Timer(fault["at"], lambda: befall("kill"))
    timer.daemon = True

    def timed(self):
        if not timer.ident:
            timer.start()
        return step(self)

    Trainer.step = timed


def at_operation(fault):
    count = {"inside": 0, "done": 0}

    def inside(module, name):
        function = getattr(module, name)

        def counted(*args):
            count["inside"] += 1
            try:
                return function(*args)
            finally:
                count["inside"] -= 1

        setattr(module, name, counted)

    def operation(owner, name, half=None):
        function = getattr(owner, name)

        def faulty(*args, **options):
            if count["inside"]:
                count["done"] += 1
                if 0 <= count["done"] - fault["at"] < fault.get("times", 1):
                    if half:
                        half(*args)
                    befall(fault["what"])
            return function(*args, **options)

        setattr(owner, name, faulty)

    def half_a_file(tensors, path, metadata):
        pathlib.Path(path).write_bytes(safetensors.torch.save(tensors, metadata)[:-100])

    inside(checkpoint, "write")
    inside(checkpoint, "set_aside")
    inside(rundirectory, "go_on")
    inside(rundirectory, "mend")
    operation(safetensors.torch, "save_file", half_a_file)
    for owner, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (shutil, "rmtree"), (pathlib.Path, "mkdir"), (pathlib.Path, "write_text")):
        operation(owner, name)


if __name__ == "__main__":
    if "FAULT" in os.environ:
        plant(json.loads(os.environ["FAULT"]))
    cli.main()
