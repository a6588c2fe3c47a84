"""What any rank wants all ranks to do, agreed between steps: to end because of a signal, to write a checkpoint.

Every beat the ranks start a non-blocking maximum of a few numbers behind the same step, and take its result behind the
same later step: by then it has long arrived, so that nobody waits, and all act behind one step. What comes between two
beats rides with the next one: a wish is heard after two beats at most.
"""

import time

import numpy as np

from mpiconsensus.transport.waiting import wait_until

# Seconds between two beats; one step where steps take longer. A beat costs some ten microseconds.
BEAT_S = 0.25
# Beats adapt to the pace of the slowest rank; a few fast steps must not put the next one far off.
GROWTH = 4


class Pulse:
    """wish: a function that returns this rank's (signal number or 0, 1 to save or 0). Behind every step each rank calls beat."""

    def __init__(self, world, wish):
        self.world, self.wish = world, wish
        self._request, self._due, self._steps, self._arrived = None, 0, 1, False
        self._mine, self._all = np.zeros(3, np.int64), np.zeros(3, np.int64)
        self._since = time.perf_counter()

    def beat(self, k):
        """Return the (signal number, 1 to save) that all ranks agreed on behind step k - 1; (0, 0) between beats. Collective."""
        if self.world.size == 1:
            return self.wish()
        if self._request is not None and k < self._due:
            # Asking now and then lets the library pass the numbers on.
            self._arrived = self._arrived or self._request.Test()
            return 0, 0
        taken, number, save = self._steps, 0, 0
        if self._request is not None:
            self.close()
            number, save = int(self._all[0]), int(self._all[1])
            self._steps = -int(self._all[2])
        if not number:
            self._start(k, taken)
        return number, save

    def _start(self, k, taken):
        now = time.perf_counter()
        pace = taken * BEAT_S / max(now - self._since, 1e-9)
        self._since = now
        self._mine[:2] = self.wish()
        # The slowest rank counts: the largest of the negative paces.
        self._mine[2] = -int(min(max(pace, 1), GROWTH * taken))
        self._request = self.world.start_max(self._mine, self._all)
        self._due, self._arrived = k + self._steps, False

    def close(self):
        """Take in what is under way; collective."""
        if self._request is not None:
            wait_until(self._request.Test, self.world.crowded)
            self._request = None
