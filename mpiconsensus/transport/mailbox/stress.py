"""Mailboxes and pairs under stress: rows and pauses at random between the ranks of a launcher, and what must hold meanwhile.

Every element of a row is a function of its vertex and clock, a sentinel: a row that mixes two publications shows. No row that was
intact is torn or belongs to another clock; the versions that a vertex reads of another never go back; a clock that was told is
there; what is moved between pairs of rows is neither lost nor doubled. Array legend: n vertices, one a rank, d elements of a row.
"""

import random
import time

import torch

from mpiconsensus.block import Rows
from mpiconsensus.errors import TrainingError
from mpiconsensus.transport.mailbox import open_mailbox
from mpiconsensus.transport.mailbox.pairs import Pairs

D = 5000
NAMES = ("shared", "rma", "p2p", "pairs")
PATIENCE_S = 30.0  # of a wait for a clock that must come
AGES = (0, 1, 2, 4, 8, 16)  # lower edges of the classes that ages are counted in


def stress(world, placement, name, seconds, watchdog):
    """Return on rank 0 what was counted, {word: number}, None elsewhere; TrainingError where something does not hold; collective.

    placement: of a vertex on each rank. name: one of NAMES. A part that hangs is ended by the watchdog.
    """
    trial = (Averages if name == "pairs" else Letters)(name, world, placement)
    watchdog.part(f"{name} under stress", seconds)
    trial.run(seconds)
    watchdog.part(f"{name} behind its stress")
    trial.check()
    found = world.allgather(trial.counts)
    trial.close()
    return {word: sum(counts[word] for counts in found) for word in trial.counts} if world.rank == 0 else None


class Trial:
    words = ()

    def __init__(self, name, world, placement):
        self.name, self.world, self.placement, self.n = name, world, placement, world.size
        self.chance = random.Random(f"{name} {world.rank}")
        self.counts = dict.fromkeys(self.words, 0)
        self.neighbours = sorted({(world.rank + step) % self.n for step in (1, -1, 3, -3)} - {world.rank})

    def require(self, holds, what):
        if not holds:
            raise TrainingError(f"{self.name} under stress: {what}; please report this with the lines of mpiconsensus doctor.")

    def pause(self):
        draw = self.chance.random()
        if draw < 0.003:
            time.sleep(self.chance.random() * 1e-2)  # long enough for others to publish twice
        elif draw < 0.03:
            time.sleep(self.chance.random() * 1e-3)

    def check(self):
        """See that what must hold in the end does; collective."""


class Letters(Trial):
    """A mailbox: each rank publishes, and reads the newest row of its neighbours and the one before it."""

    words = ("published", "read", "overtaken, rejected", "torn, rejected", *(f"age {age}" for age in AGES))

    def __init__(self, name, world, placement):
        super().__init__(name, world, placement)
        readers = {v: sorted({(v + step) % self.n for step in (1, -1, 3, -3)} - {v}) for v in range(self.n)}
        self.mailbox = open_mailbox(name, world, self.placement, D, torch.float64, readers=readers)
        self.rows = Rows(self.mailbox.storage())
        self.mailbox.bind(self.rows)
        self.clock, self.versions = -1, dict.fromkeys(self.neighbours, -1)
        self.fill(self.rows.x(0))
        self.mailbox.publish(0, self.clock)
        world.barrier()

    def fill(self, row):
        """Write a row in two parts with a pause in between, as a slow vertex does."""
        half = self.chance.randrange(1, D)
        row[:half] = self.sentinel(self.world.rank, self.clock)
        self.pause()
        row[half:] = self.sentinel(self.world.rank, self.clock)

    def sentinel(self, vertex, clock):
        return vertex * 1e9 + clock

    def publish(self, clock):
        self.clock = clock
        self.rows.flip(0)
        self.fill(self.rows.x(0))
        self.pause()
        self.mailbox.publish(0, clock)
        self.counts["published"] += 1

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.publish(self.clock + self.chance.choice((1, 1, 3)))
            for u in self.neighbours:
                self.read(u)

    def read(self, u):
        v = self.world.rank
        told = self.mailbox.clock(u, v)
        letter = self.mailbox.peek(u, v)
        if letter is None:
            self.require(told == -2, f"vertex {v} was told of clock {told} of {u} and found no row")
            return
        self.require(letter.clock >= told, f"vertex {v} was told of clock {told} of {u} and then found {letter.clock}")
        self.require(letter.version >= self.versions[u], f"vertex {v} read version {letter.version} of {u} behind {self.versions[u]}")
        self.versions[u] = letter.version
        behind = self.clock - letter.clock
        self.counts[f"age {max(age for age in AGES if age <= max(0, behind))}"] += 1
        self.look_at(letter)
        older = self.mailbox.peek(u, v, letter.clock - 1)
        if older is not None:
            self.require(older.clock < letter.clock, f"vertex {v} asked for clock {letter.clock - 1} of {u} and got {older.clock}")
            self.look_at(older)

    def look_at(self, letter):
        """Read a row in two parts, as a slow reader does, and compare it with its sentinel where it is said to be intact."""
        half = self.chance.randrange(1, D)
        first = letter.row[:half].clone()
        if self.chance.random() < 0.02:
            time.sleep(self.chance.random() * 5e-3)
        row = torch.cat([first, letter.row[half:]])
        low, high, wanted = float(row.min()), float(row.max()), self.sentinel(letter.vertex, letter.clock)
        if self.mailbox.intact([letter]):
            self.require(low == wanted == high, f"vertex {self.world.rank} read {low:.0f} to {high:.0f} of {letter.vertex} at clock {letter.clock}: torn")
            self.counts["read"] += 1
        else:
            self.counts["overtaken, rejected"] += 1
            self.counts["torn, rejected"] += low != high

    def check(self):
        """Go on in step: each waits for the rows of one clock, as a bound of zero asks."""
        first = max(self.world.allgather(self.clock)) + 1
        for clock in range(first, first + 20):
            self.publish(clock)
            for u in self.neighbours:
                self.require(self.mailbox.wait({u: clock}, PATIENCE_S), f"vertex {self.world.rank} waited for clock {clock} of {u} in vain")
                letter = self.mailbox.peek(u, self.world.rank, clock)
                self.require(letter is not None and letter.clock == clock, f"vertex {self.world.rank} asked for clock {clock} of {u} and got {letter and letter.clock}")
                self.look_at(letter)
        self.world.barrier()

    def close(self):
        self.rows = None
        self.mailbox.close()


class Averages(Trial):
    """Pairs of rows: whole numbers are moved between the rows of random pairs; their sum over the vertices stays what it was, exactly."""

    words = ("exchanges",)

    def __init__(self, name, world, placement):
        super().__init__(name, world, placement)
        self.pairs = Pairs(world, self.placement, D, torch.float64)
        self.start = torch.arange(D, dtype=torch.float64)
        with self.pairs.hold(world.rank) as (row,):
            row.copy_(self.start)
        world.barrier()

    def run(self, seconds):
        end, rank = time.monotonic() + seconds, self.world.rank
        while time.monotonic() < end:
            amount, other = self.chance.randrange(1, 1000), self.chance.choice(self.neighbours)
            self.pause()
            with self.pairs.hold(rank, other) as (mine, theirs):
                before = mine.clone()
                self.pause()
                mine.copy_(before - amount)
                theirs.add_(amount)
            self.counts["exchanges"] += 1

    def check(self):
        self.world.barrier()
        offsets = self.pairs.rows(0) - self.start
        self.require(bool((offsets == offsets[0]).all()), f"the row of vertex {self.world.rank} is torn")
        total = sum(self.world.allgather(float(offsets[0])))
        self.require(total == 0, f"updates were lost: the sum of the rows changed by {total:g}")
        self.world.barrier()

    def close(self):
        self.pairs.close()
