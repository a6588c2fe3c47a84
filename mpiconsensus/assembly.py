"""run.h5 while a run goes on: a process beside rank 0 assembles it after flushes, so that the steps do not wait for it.

It takes what the ranks leave over (the lowest priority, any core) and at most a hundredth of a core: an assembly that took
t seconds of it is followed by 99 t of rest. It ends with its parent, however that ends.
"""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from mpiconsensus.errors import UserError
from mpiconsensus.merging import aside_of, assemble

SHARE = 0.01
PAUSE_S = 1.0  # ranks flush at one time by their clocks, each behind its step


class Assembly:
    """The process of one run, started by the second notice: a run of less than a flushing interval needs none.

    Whatever befalls it, the run goes on.
    """

    def __init__(self, directory):
        self.directory, self.process, self.notices = directory, None, 0

    def notice(self):
        """Tell that rows were flushed; returns at once."""
        self.notices += 1
        if self.notices < 2:
            return
        with suppress(OSError):
            if self.process is None:
                words = [sys.executable, "-m", "mpiconsensus.assembly", str(self.directory)]
                quiet = subprocess.DEVNULL  # a launcher waits for whoever holds its pipes
                self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet)
                os.set_blocking(self.process.stdin.fileno(), False)
            os.write(self.process.stdin.fileno(), b"\n")

    def close(self):
        """End the process, and what it had begun."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            self.process.stdin.close()
            aside_of(self.directory, self.process.pid).unlink(missing_ok=True)
        self.process = None


def serve(directory, notices):
    """Assemble the log of `directory` whenever something comes from the descriptor `notices`, until that ends."""
    ended = select.poll()
    ended.register(notices, 0)  # the end of a pipe is told unasked
    while os.read(notices, 1 << 16):
        if ended.poll(1000 * PAUSE_S):
            return
        used = time.process_time()
        with suppress(OSError, UserError):  # a full disk, a log on its way to another name: the next time
            assemble(directory)
        used = time.process_time() - used
        if ended.poll(1000 * used * (1 / SHARE - 1)):
            return


def main(directory):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # they are for the ranks
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(19)
        os.sched_setaffinity(0, range(os.cpu_count()))  # a launcher has bound the parent to its core
    serve(directory, sys.stdin.fileno())


if __name__ == "__main__":
    main(sys.argv[1])
