"""mpiconsensus, one of whose ranks gets SIGUSR2 behind a step of its first vertex, as FAULT = {"rank", "step"} says."""

import json
import os
import signal

from mpiconsensus.asynchronous import session
from mpiconsensus.cli import main

fault = json.loads(os.environ["FAULT"])
inner = session.AsyncSession._step


def step(self, done):
    inner(self, done)
    if self.world.rank == fault["rank"] and (done.i, done.t) == (0, fault["step"]):
        os.kill(os.getpid(), signal.SIGUSR2)


session.AsyncSession._step = step
session.LOOK_S = 0.0  # a small run would be over before the next look
main()
