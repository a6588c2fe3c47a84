"""A rank's vertices, each at its own pace, under the clock of the machine.

A vertex trains, rests until its step has lasted as long as it should (unequal machines, emulated), publishes, is held
where a staleness bound says so, mixes what has arrived, is away as long as its row is on an emulated link (pairs), and goes on.
While one rests, is held or away, the others of the rank train.
"""

import time
from typing import NamedTuple

import numpy as np

TRAINS, RESTS, HELD, AWAY, DONE = range(5)
NAP_S = 0.01  # longest time without a look at flags, signals and clocks, and without moving messages on


class Step(NamedTuple):
    """A step of hosted vertex i, done: number t, ages of the rows mixed, seconds. ended_s: on the clock of the mailbox."""

    i: int
    t: int
    loss: float
    io_s: float
    compute_s: float
    wait_s: float
    mix_s: float
    ages: list
    ended_s: float


class Engine:
    """Takes the hosted vertices of an AsyncTrainer through their steps.

    pace: hetero.Pace; least_s: seconds that a gradient at speed 1 takes at least; on_step(Step) is called behind each step;
    beat() between them, and returns whether to stop: vertices then stand ahead of a gradient or are held. closing():
    whether vertices take no further step.
    """

    def __init__(self, trainer, postal, pace, on_step, beat, closing, least_s=0.0):
        self.trainer, self.algorithm, self.postal = trainer, trainer.algorithm, postal
        self.pace, self.on_step, self.beat, self.closing, self.least_s = pace, on_step, beat, closing, least_s
        m = len(trainer.hosted)
        self.phase = [DONE if ended else HELD if held else TRAINS for held, ended in zip(trainer.held, trainer.ended)]
        self._mixed = [None] * m  # ages, seconds and begin of the mix of one whose row is still away
        self._begun, self._due, self._held_since = [0.0] * m, [0.0] * m, [postal.now()] * m
        self._figures = [held or (np.nan, 0.0, 0.0) for held in trainer.held]

    def run(self):
        """Return when every hosted vertex has taken its last step, or stands still because `beat` said so."""
        while True:
            stop = self.beat()
            if not stop and self.closing():
                self._close()
            if all(phase == DONE for phase in self.phase):
                return
            if stop and not {RESTS, AWAY} & set(self.phase):
                self.trainer.held = [self._figures[i] if phase == HELD else None for i, phase in enumerate(self.phase)]
                return
            if not (self._mix() or self._return() or self._publish() or (not stop and self._train())):
                self._wait(stop)

    def _close(self):
        """End the vertices that are ahead of a gradient; whom one that is held waits for may never come: it ends its step unmixed."""
        for i, phase in enumerate(self.phase):
            if phase == HELD and not self._free(i):
                self._finish(i, [], 0.0, self.postal.now())
            if self.phase[i] == TRAINS:
                self._end(i)

    def _train(self):
        """Take the gradient of the vertex that is furthest behind; return whether there was one."""
        ready = [i for i, phase in enumerate(self.phase) if phase == TRAINS]
        if not ready:
            return False
        i = min(ready, key=lambda i: self.trainer.t[i])
        t = self.trainer.t[i]
        if t >= self.trainer.total_steps:
            self._end(i)
            return True
        self._begun[i] = self.postal.now()
        self.algorithm.begin(i, t)
        loss, io_s, compute_s = self.trainer.gradient(i)
        took = max(self.postal.now() - self._begun[i], self.least_s)
        self._due[i] = self._begun[i] + self.pace.seconds(self.trainer.hosted[i], t, took)
        self._figures[i] = loss, io_s, compute_s
        self.phase[i] = RESTS
        return True

    def _publish(self):
        """Publish for a vertex whose step has lasted long enough; return whether there was one."""
        now = self.postal.now()
        for i, phase in enumerate(self.phase):
            if phase == RESTS and self._due[i] <= now:
                loss, io_s, _ = self._figures[i]
                self.trainer.update(i)
                self.algorithm.adapted(i, self.trainer.t[i])
                self._held_since[i] = self.postal.now()
                self._figures[i] = loss, io_s, self._held_since[i] - self._begun[i] - io_s
                self.phase[i] = HELD
                return True
        return False

    def _mix(self):
        """Mix at a vertex that nothing holds; return whether there was one."""
        for i, phase in enumerate(self.phase):
            if phase != HELD or not self._free(i):
                continue
            begun = self.postal.now()
            self._mixed[i] = *self.algorithm.mix(i, self.trainer.t[i]), begun
            self._due[i] = self.postal.now() + self.postal.spent()
            self.phase[i] = AWAY
            return self._return()
        return False

    def _return(self):
        """End the step of a vertex whose row is back; return whether there was one."""
        now = self.postal.now()
        for i, phase in enumerate(self.phase):
            if phase == AWAY and self._due[i] <= now:
                self._finish(i, *self._mixed[i])
                return True
        return False

    def _finish(self, i, ages, mix_s, begun):
        """Tell of a step that is through, begun to be mixed at `begun`."""
        t, ended = self.trainer.t[i], self.postal.now()
        self.trainer.t[i], self.phase[i] = t + 1, TRAINS
        wait_s = begun - self._held_since[i] + max(0.0, ended - begun - mix_s)
        self.on_step(Step(i, t, *self._figures[i], wait_s, mix_s, ages, ended))
        if t + 1 >= self.trainer.total_steps:
            self._end(i)

    def _free(self, i):
        return self.postal.there(self.algorithm.held_by(i, self.trainer.t[i]), self.trainer.hosted[i])

    def _end(self, i):
        self.phase[i], self.trainer.ended[i] = DONE, True
        self.algorithm.end(i)

    def _wait(self, stop):
        """Sleep until the next vertex is due or what one is held by may be there."""
        self.postal.flags()
        now = self.postal.now()
        due = [self._due[i] for i, phase in enumerate(self.phase) if phase in (RESTS, AWAY)]
        seconds = max(0.0, min([NAP_S, *(time_ - now for time_ in due)]))
        held = [i for i, phase in enumerate(self.phase) if phase == HELD]
        if len(held) == 1 and not stop:
            self.postal.wait(self.algorithm.held_by(held[0], self.trainer.t[held[0]]), seconds)
        else:
            time.sleep(min(seconds, 0.002) if held else seconds)
