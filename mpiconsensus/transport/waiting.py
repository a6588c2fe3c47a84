"""Waiting for others without taking their cores."""

import os
import time

# A nap costs its length, about 60 us of timer slack, and some 15 us of processor at the end: naps grow with the time
# that was waited already, so that a long wait costs little and a short one ends soon.
NAP_S, LONGEST_NAP_S, GROWTH = 5e-5, 2e-3, 1.25
SPINS = 50
YIELDS = 2000


def wait_until(ready, crowded):
    """Return when ready() is true. crowded: more ranks than cores, so that whoever waits may hold the core of the late one.

    A rank that spins or yields still counts as running, and the system leaves two ranks that compute on one core
    beside it; asleep, it makes room.
    """
    turns, nap_s = 0, NAP_S
    while not ready():
        turns += 1
        if turns <= SPINS:
            continue
        if crowded or turns > YIELDS:
            time.sleep(nap_s)
            nap_s = min(LONGEST_NAP_S, GROWTH * nap_s)
        else:
            os.sched_yield()
