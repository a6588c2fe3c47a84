"""Times of several things taken in turn, so that what else the machine does falls on all of them alike."""

import statistics
import time

PASS_S = 0.1  # a pass is long against a barrier and short against the moods of a shared machine
MOST_CALLS = 20_000


def in_turn(sides, repeats, world, calls=None):
    """Return {name: [seconds a call in each of `repeats` passes]}; collective, rank 0's times are the ones to take.

    sides: {name: function without arguments}. A pass takes each side in turn, `calls` times (None: as often as fills
    PASS_S) between two barriers: from the first rank's start to the last rank's end. A pass ahead of the others warms up.
    """
    counts = {name: calls or _calls_of_a_pass(side, world) for name, side in sides.items()}
    times = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            seconds = _timed(side, counts[name], world)
            if repeat:
                times[name].append(seconds / counts[name])
    return times


def _calls_of_a_pass(side, world):
    seconds, calls = 0.0, 1
    # One call may be shorter than a barrier: its length shows in a longer row of them.
    while seconds < PASS_S / 10 and calls < MOST_CALLS:
        calls = min(MOST_CALLS, 4 * calls)
        seconds = world.bcast(_timed(side, calls, world))
    return max(1, min(MOST_CALLS, round(calls * PASS_S / seconds)))


def _timed(side, calls, world):
    world.barrier()
    start = time.perf_counter()
    for _ in range(calls):
        side()
    world.barrier()
    return time.perf_counter() - start


def figures(times):
    """Return {median_s, min_s, max_s, passes_s} of a list of seconds."""
    return {"median_s": statistics.median(times), "min_s": min(times), "max_s": max(times), "passes_s": list(times)}


def ratio(over, under):
    """Return {median, min, max} of over[p] / under[p], pass by pass."""
    found = [a / b for a, b in zip(over, under, strict=True)]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}
