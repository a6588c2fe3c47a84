"""When the rows of a rank are written, flushed and assembled, while a run goes on."""

import time

WRITTEN_S = 1.0  # what is written is seen by a live view; a flush makes it survive a crash


class LogPace:
    """Writes a rank's rows every second and flushes every `flush_s`; rank 0, which has an Assembly, then has run.h5 made anew.

    Flushes come by the clock on the wall: all ranks flush behind one step and wait for it once, and run.h5, cut to the
    shortest, has everything up to there.
    """

    def __init__(self, log, flush_s, assembly=None):
        self.log, self.flush_s, self.assembly = log, flush_s, assembly
        self.written = self.flushed = time.time()

    def beat(self, write):
        """Call `write`, which appends the rows that are not in the log yet, and flush where it is time; behind every step."""
        now = time.time()
        due = not self.flush_s or now // self.flush_s > self.flushed // self.flush_s
        if not due and now - self.written < WRITTEN_S:
            return
        write()
        self.written = now
        if due:
            self.log.flush(wait=False)  # a disk takes its time to sync
            self.flushed = now
            if self.assembly:
                self.assembly.notice()

    def flush(self):
        """Flush, and wait for the disk."""
        self.log.flush()
        self.flushed = time.time()

    def close(self, ended=True):
        """Close the log, and end the assembly; `ended` as in RankLog.close."""
        try:
            self.log.close(ended)
        finally:
            if self.assembly:
                self.assembly.close()
