"""What an asynchronous algorithm is: what a vertex does between two of its gradients, with what has arrived.

An engine, under a real or a virtual clock, takes each hosted vertex through its steps t = 0, 1, ..., total - 1:

    begin(i, t)            ahead of the gradient
    gradient, local update of the current row of the block
    adapted(i, t)          behind the update: publish
    while held_by(i, t): wait or let other vertices go on
    mix(i, t) -> ages      blend what has arrived into the row
    ...
    end(i)                 once, behind the last step of this vertex; others may still train
    drain(i) -> bool       behind everybody's last step, until it returns False at all vertices: nothing is in flight

i is the index of a hosted vertex; `vertex`, `reader` and those of `held_by` are numbers of the graph. Nothing here is
collective.
"""

from abc import abstractmethod
from array import array
from bisect import bisect_left
from typing import NamedTuple

import torch

from mpiconsensus.algorithms.base import Algorithm
from mpiconsensus.errors import UserError
from mpiconsensus.schedule import full

ENDED = 1 << 62  # the clock of a vertex's last word


class Needs(NamedTuple):
    """What an algorithm exchanges through. kind: "mailbox" or "pairs"; d, dtype: of its rows.

    in_block: the rows are those of the block, whose storage the transport makes; elsewhere the block has storage of its
    own, one buffer a vertex, and `open` binds the transport's.
    """

    kind: str
    d: int
    dtype: torch.dtype
    in_block: bool


class Asynchronous(Algorithm):
    """A vertex-wise method over a Mailbox, or over Pairs. conserves: what stays constant under delay and loss, in words;
    "" for nothing.

    weights: for each vertex {j: w} of its row of W. readers: {j: the vertices that read its row}. adjacent: for each
    vertex those at the other end of an edge, or of an arc in either direction; clocks go there.
    state_dict(i) and load_state_dict(i, state) hold what a vertex needs beside its row and its step; load_state_dict comes
    behind `open`, with the row of the state in the block.
    """

    conserves = ""
    asynchronous = True

    def __init__(self, setting):
        super().__init__(setting)
        if setting.varying:
            raise UserError(f"algorithm.name = {self.name} is for a graph that stays, this one changes; take algorithm.name = consensus.")
        if setting.options.train_every not in (0, 1):
            raise UserError(
                f"algorithm.train_every = {setting.options.train_every}: with {self.name} every vertex trains at each of its own steps; "
                "take 0, and hetero.speed to emulate slow ones."
            )
        self.train_every = [1] * self.n
        self.round = full(setting.rows)
        self.weights = [dict(zip(js.tolist(), ws.tolist())) for js, ws in setting.rows]
        self.readers = self.round.readers
        self.adjacent = [set() for _ in range(self.n)]
        for sender, readers in self.readers.items():
            for reader in readers:
                self.adjacent[sender].add(reader)
                self.adjacent[reader].add(sender)
        self.adjacent = [sorted(found) for found in self.adjacent]

    def rounds(self, k):
        raise TypeError(f"{self.name} has no rounds: it mixes what has arrived.")

    def needs(self, d, dtype):
        """Return the Needs for replicas of (d,) elements of dtype."""
        return Needs("mailbox", d, dtype, True)

    @property
    def depth(self):
        """Rows of the model that a vertex needs memory for: three buffers, one written, two that are read."""
        return 3

    def bytes_of_step(self, d, dtype):
        """Return the bytes that all vertices send when each takes one step."""
        needs = self.needs(d, dtype)
        return int(self.round.out_degree.sum()) * needs.d * needs.dtype.itemsize

    @abstractmethod
    def open(self, transport, block, placement):
        """Publish the initial rows with clock -1: every vertex has its initial parameters in its row of the block."""

    def begin(self, i, t):
        """Prepare the row of hosted vertex i for its gradient of step t."""

    @abstractmethod
    def adapted(self, i, t):
        """Publish what the local update of step t has made of the row of hosted vertex i."""

    def held_by(self, i, t):
        """Return {vertex: clock}: who must publish that clock before hosted vertex i may mix at step t; {} for nobody."""
        return {}

    @abstractmethod
    def mix(self, i, t):
        """Blend what has arrived into the row of hosted vertex i and return (ages of the rows mixed, seconds of sums)."""

    def end(self, i):
        """Say that hosted vertex i has taken its last step."""

    def drain(self, i):
        """Take in what is still in flight to hosted vertex i; return whether there may be more."""
        return False

    def look(self, vertex, out):
        """Write the newest parameters of any vertex that this rank can read without asking into `out`, (p,); return whether there were some.

        For measurements: whatever the clock of the vertex is, and whatever an emulated link would hold back.
        """
        return False

    def weight(self, i):
        """Return the weight of hosted vertex i in the mean that the method conserves; a drained run without loss has n in all."""
        return 1.0

    def state_dict(self, i):
        return {}

    def load_state_dict(self, i, state):
        pass


class Ages:
    """How old rows are, in steps of their readers: m hosted vertices, whose steps began at times that are kept."""

    KEPT = 4096  # times between two looks at what is not needed any more

    def __init__(self, m):
        self._begun = [array("d") for _ in range(m)]

    def begin(self, i, stamp):
        """Note that hosted vertex i begins a step at `stamp`, seconds on the clock of the mailbox."""
        self._begun[i].append(stamp)

    def of(self, i, t, letter):
        """Return the age of a letter at step t of hosted vertex i: the steps by which its clock is behind, or the steps that
        the reader has begun since it was published where these are fewer, as they are behind a slow writer."""
        behind = t - letter.clock
        if behind <= 0:
            return 0
        begun = self._begun[i]
        # Looked for among the last `behind` of them alone, which is the smaller of the two.
        return len(begun) - bisect_left(begun, letter.stamp, max(0, len(begun) - behind))

    def forget(self, i, letters):
        """Drop the times ahead of all of `letters`, the newest ones: later letters are newer."""
        begun = self._begun[i]
        if len(begun) > self.KEPT and letters:
            del begun[: bisect_left(begun, min(letter.stamp for letter in letters))]
