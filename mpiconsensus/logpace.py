"""When the rows of a rank are written, flushed and assembled, while a run goes on."""

import time

WRITTEN_S = 2.0  # what is written is seen by a live view; a flush makes it survive a crash


class LogPace:
    """Writes a rank's rows every WRITTEN_S and flushes every `flush_s`; rank 0, which has an Assembly, then has run.h5 made anew.

    Both by the clock on the wall: all ranks are at it behind one step and wait for each other once, and run.h5, cut to the
    shortest, has everything up to there.
    """

    def __init__(self, log, flush_s, assembly=None):
        self.log, self.flush_s, self.assembly = log, flush_s, assembly
        self.written = self.flushed = time.time()

    def beat(self, write):
        """Call `write`, which appends the rows that are not in the log yet, and flush where it is time; behind every step."""
        now = time.time()
        due = _passed(self.flushed, now, self.flush_s)
        if not due and not _passed(self.written, now, WRITTEN_S):
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


def _passed(before, now, every):
    """Return whether the clock has passed a multiple of `every` seconds; every = 0: always."""
    return not every or now // every > before // every
