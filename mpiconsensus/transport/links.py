"""Emulated links of synchronous rounds: a round lasts as long as the slowest of the edges that end at this rank's vertices."""

import time
import weakref


class Links:
    """delay(sender, receiver, nbytes) -> seconds, as hetero.Pace.delay; nbytes: of a row."""

    def __init__(self, delay, placement, nbytes):
        self._delay, self._hosted, self._nbytes = delay, placement.hosted, nbytes
        self._seconds = weakref.WeakKeyDictionary()

    def seconds(self, round_):
        """Return how long the slowest row that the hosted vertices need in this round is under way."""
        if round_ not in self._seconds:
            edges = ((j, i) for i in self._hosted for j in round_.sources.get(i, ()) if j != i)
            self._seconds[round_] = max((self._delay(j, i, self._nbytes) for j, i in edges), default=0.0)
        return self._seconds[round_]

    def finish(self, exchange):
        """Finish the round of `exchange` when its rows have arrived: counted from its start, or from the last sender's where that was late."""
        waits = exchange.waits
        row = exchange.finish()
        begun_s = time.monotonic() if exchange.waits > waits else exchange.started_s
        time.sleep(max(0.0, begun_s + self.seconds(exchange.round) - time.monotonic()))
        return row
