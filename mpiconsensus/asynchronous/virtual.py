"""Vertices at their own pace under a modelled clock: the same algorithms, deterministic, in one process.

A step of a vertex is three events, each at a modelled time in whole nanoseconds: its gradient is through and published; what it
is held by has arrived and it mixes; it begins the next step. At one moment, all publish ahead of all that mix, these ahead of all that begin,
in ascending order of the vertices. The row of a vertex stays as it is from the beginning of a step to the end of its gradient, so that
gradients of all vertices that are computing at some moment may be taken in one call, whenever the first of them is asked for.
"""

import heapq

from mpiconsensus.asynchronous.engine import Step
from mpiconsensus.errors import TrainingError
from mpiconsensus.transport.mailbox.virtual import NS, nanoseconds

COMPUTED, MIXES, BEGINS = range(3)


class VirtualEngine:
    """Takes all vertices through `steps` steps each.

    algorithm: an Asynchronous that is open. transport: the VirtualMailbox or VirtualPairs that it was opened with. learner:
    has gradients([(i, t), ...]) -> [(loss, ...), ...], vertices ascending, and update(i, t). pace: hetero.Pace; step_s: seconds of a
    gradient at speed 1. on_step(Step) is called behind each step. ends: "all", or "first": when a vertex has taken all its
    steps, the others end behind the one that they are at. stops: {vertex: t}, vertices that stop without a word ahead of
    their step t. done: (n,) steps that each vertex has taken.
    """

    def __init__(self, algorithm, transport, learner, pace, steps, step_s, on_step=None, ends="all", stops=None):
        self.algorithm, self.transport, self.learner, self.pace = algorithm, transport, learner, pace
        self.steps, self.step_s, self.ends, self.stops = steps, step_s, ends, stops or {}
        self.on_step = on_step or (lambda step: None)
        self.n = transport.placement.n
        self.done = [0] * self.n
        self.closing = False
        self._events = []
        self._pending = set()  # vertices whose gradient was not taken yet
        self._losses, self._took, self._published = [0.0] * self.n, [0] * self.n, [0] * self.n
        self._waiting = {}  # {vertex: those that look again when it publishes}
        self._held = set()

    def run(self):
        """Return when every vertex has ended and nothing is in flight. TrainingError where vertices are held for ever."""
        act = (self._computed, self._mix, self._begin)
        self._events = [(self.transport.virtual.time, BEGINS, i) for i in range(self.n)]
        while self._events:
            time, kind, i = heapq.heappop(self._events)
            self.transport.virtual.time = time
            act[kind](i)
        if self._held:
            i = min(self._held)
            wanted = ", ".join(f"{v} at clock {c}" for v, c in self.algorithm.held_by(i, self.done[i]).items())
            raise TrainingError(
                f"vertex {i} waits for ever at its step {self.done[i]}, for vertices {wanted}: one of them has stopped, or its message was lost."
            )
        self._drain()

    def _push(self, time, kind, i):
        heapq.heappush(self._events, (time, kind, i))

    def _begin(self, i):
        t = self.done[i]
        if self.stops.get(i) == t:
            return
        if t == self.steps or self.closing:
            self.algorithm.end(i)
            return
        self.algorithm.begin(i, t)
        self._pending.add(i)
        self._took[i] = nanoseconds(self.pace.seconds(i, t, self.step_s))
        self._push(self.transport.virtual.time + self._took[i], COMPUTED, i)

    def _computed(self, i):
        if i in self._pending:
            pairs = [(j, self.done[j]) for j in sorted(self._pending)]
            for (j, _), found in zip(pairs, self.learner.gradients(pairs), strict=True):
                self._losses[j] = found[0]
            self._pending.clear()
        self.learner.update(i, self.done[i])
        self.algorithm.adapted(i, self.done[i])
        self._published[i] = self.transport.virtual.time
        if i in self._waiting:
            for j in sorted(self._waiting.pop(i)):
                if j in self._held:
                    self._hold(j)
        self._hold(i)

    def _hold(self, i):
        """Let vertex i mix when what it is held by has arrived, or look again when more of it is published."""
        when = self.transport.virtual.time
        for vertex, clock in self.algorithm.held_by(i, self.done[i]).items():
            there = self.transport.arrives(vertex, i, clock)
            if there is None and self.closing:
                self._held.discard(i)
                self._finish(i, [])
                return
            if there is None:
                self._held.add(i)
                self._waiting.setdefault(vertex, set()).add(i)
                return
            when = max(when, there)
        self._held.discard(i)
        self._push(when, MIXES, i)

    def _mix(self, i):
        ages, _ = self.algorithm.mix(i, self.done[i])
        self._finish(i, ages)

    def _finish(self, i, ages):
        time, spent = self.transport.virtual.time, self.transport.spent()
        t = self.done[i]
        self.done[i] = t + 1
        waited = time - self._published[i] + spent
        self.on_step(Step(i, t, self._losses[i], 0.0, self._took[i] / NS, waited / NS, 0.0, ages, (time + spent) / NS))
        self._push(time + spent, BEGINS, i)
        if t + 1 == self.steps and self.ends == "first" and not self.closing:
            self.closing = True
            # Whom they wait for may take no further step.
            for j in sorted(self._held):
                self._hold(j)

    def _drain(self):
        self.transport.virtual.time = max(self.transport.virtual.time, self.transport.settled())
        for i in range(self.n):
            if self.stops.get(i) != self.done[i]:
                self.algorithm.drain(i)
