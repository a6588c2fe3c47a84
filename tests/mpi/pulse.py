"""Run under mpirun: ranks at odds in speed, one of which is told something at a time of its own, act on it behind one step."""

import random
import time

from mpiconsensus import pulse
from mpiconsensus.runtime import World

world = World.start()
pulse.BEAT_S = 0.02
for trial in range(4):
    chance = random.Random(10 * trial + world.rank)
    told_at = time.monotonic() + (0.1 if world.rank == trial else 1e9)
    once = []

    def wish(told_at=told_at, once=once):
        number = 12 if time.monotonic() > told_at else 0
        save = int(world.rank == 0 and not once)
        once.extend([1] * save)
        return number, save

    beats, saved, k = pulse.Pulse(world, wish), [], 0
    while True:
        k += 1
        time.sleep(chance.uniform(0, 0.002) * (1 + world.rank))
        number, save = beats.beat(k)
        if save:
            saved.append(k)
        if number:
            break
    beats.close()
    late_s = time.monotonic() - told_at
    ends = world.allgather((k, saved, number))
    assert len(set(map(str, ends))) == 1 and number == 12 and len(saved) == 1, ends
    assert all(s < 30 for s in world.allgather(late_s)), "within beats, not at the end of time"
print("agreed")
