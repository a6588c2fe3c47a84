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

i is the index of a hosted vertex, vertices are numbers of the graph. Nothing here is collective.
"""

from abc import abstractmethod

from mpiconsensus.algorithms.base import Algorithm


class Asynchronous(Algorithm):
    """A vertex-wise method over a Mailbox. conserves: what stays constant under delay and loss, in words; "" for nothing.

    open(mailbox, block, placement) comes before the first step, behind `attach` of rows; before it every vertex has the
    initial parameters in its current row. state_dict(i) and load_state_dict(i, state) hold what a vertex needs beside its
    row and its step.
    """

    conserves = ""
    asynchronous = True

    def rounds(self, k):
        raise TypeError(f"{self.name} has no rounds: it mixes what has arrived.")

    @abstractmethod
    def open(self, mailbox, block, placement):
        """Publish the initial rows with clock -1."""

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

    def state_dict(self, i):
        return {}

    def load_state_dict(self, i, state):
        pass
