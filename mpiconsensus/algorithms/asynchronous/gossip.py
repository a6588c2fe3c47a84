"""Asynchronous push-sum with running sums: it keeps the mean under delay and loss.

Vertex i holds a mass m_i = (x_i, w_i), at first (x_i, 1), and trains at z_i = x_i / w_i. At each of its steps, at its own pace:

    x_i <- x_i - w_i a g_i(z_i)                              the local update, at z_i
    S_i <- S_i + m_i,   m_i <- A[i,i] m_i                    the running sum of what was sent, published
    m_i <- m_i + sum_j A[i,j] (S_j - S_j as last seen)       what has arrived from j since

A message that is late or lost delays what it carries: the next one, which has the sum of all before, brings it. On resume a
vertex's mass, its sum and what it has seen go on together, and vertices need not be saved at one instant.
Weights settle where what a vertex sends in a second is what comes: vertices that step r times as often hold 1 / r of the
weight, so that the update, which acts on z and so counts w_i times in the sum, gives each vertex's data equal weight.
Differences of a sum are as exact as the sum: a vertex with w_i below PRECISION of the weight that it has sent in all keeps its
mass for this step; and so does one whose readers have all ended.

Sends: a running sum in float64, with the weight, over each arc, one way, a step.  State: m_i, S_i and sum_j A[i,j] S_j as last seen.
Assumes: columns of A sum to 1, its entries are not negative and its diagonal is positive.
Conserves: sum_i m_i + sum_{i,j} A[i,j] (S_j - S_j as seen by i), to rounding (between gradients): masses and what is in flight. When a vertex
stops in the middle the survivors keep what they hold; what is sent to it is lost, and sum_i w_i of them tells how much is left.
Differs from the paper in: the update is weighted with w_i, so that it is one step of the optimizer at z_i however small w_i is.
Reference: Spiridonoff, Olshevsky & Paschalidis, Robust asynchronous stochastic gradient-push, JMLR 2020, algorithm 2; running
sums: Hadjicostis, Vaidya & Dominguez-Garcia, Robust distributed average consensus via exchange of running sums, IEEE
Trans. Automatic Control 2016.
"""

import time

import numpy as np
import torch

from mpiconsensus.algorithms.asynchronous.base import ENDED, Ages, Asynchronous, Needs
from mpiconsensus.block import Rows
from mpiconsensus.errors import UserError

TRIES = 3  # readings of two rows that may be overwritten meanwhile
PRECISION = 2.0**-26  # what is left of the 52 bits of a double keeps z to a quarter of a unit of float32


class AsyncGossip(Asynchronous):
    name = "async-gossip"
    formula = "S_i <- S_i + m_i, m_i <- A[i,i] m_i + sum_j A[i,j] (S_j - S_j as last seen), m = (x, w), z = x / w; columns of A sum to 1"
    reference = "Spiridonoff, Olshevsky & Paschalidis 2020; Hadjicostis, Vaidya & Dominguez-Garcia 2016"
    keys = ("ends", "final_average")
    conserves = "the sum of the masses (x, w) and of what is in flight"

    def __init__(self, setting):
        super().__init__(setting)
        columns = np.zeros(self.n)
        for js, ws in setting.rows:
            np.add.at(columns, js, ws)
        worst = int(np.abs(columns - 1.0).argmax())
        take = "take topology.weights = push-sum, or metropolis where the graph has no arcs."
        if abs(columns[worst] - 1.0) > 1e-9:
            raise UserError(f"algorithm.name = async-gossip needs columns of weights that sum to 1, column {worst} sums to {columns[worst]:.6g}; {take}")
        for i, row in enumerate(self.weights):
            if row.get(i, 0.0) <= 0 or min(row.values()) < 0:
                raise UserError(
                    f"algorithm.name = async-gossip needs weights that are not negative, positive on the diagonal; row {i} has "
                    f"{row.get(i, 0.0):.6g} there and {min(row.values()):.6g} at least; {take}"
                )
        self.sent = [sum(self.weights[reader][j] for reader in self.readers.get(j, ())) for j in range(self.n)]

    @property
    def depth(self):
        return 11  # the replica; in float64 three buffers of the sum, the mass and what was taken

    def needs(self, d, dtype):
        return Needs("mailbox", d + 1, torch.float64, False)

    def open(self, transport, block, placement):
        self.mailbox, self.block, self.placement = transport, block, placement
        self.sums = Rows(transport.storage())
        transport.bind(self.sums)
        m, d = block.m, block.d
        self.mass = torch.ones((m, d + 1), dtype=torch.float64, device=transport.device)
        self.taken = torch.zeros((m, d + 1), dtype=torch.float64, device=transport.device)
        self._arrived, self._change = torch.zeros_like(self.mass[0]), torch.zeros_like(self.mass[0])
        self._clock = [-1] * m
        self._seen = [{} for _ in range(m)]
        self.ages = Ages(m)
        # Views are made once: to take one costs as much as a sum over a short row.
        self._mass, self._taken = self.mass.unbind(0), self.taken.unbind(0)
        self._x, self._w = self.mass[:, :d].unbind(0), self.mass[:, d].unbind(0)
        self._change_of_x, self._z = self._change[:d], self._arrived[:d]
        self._read = [[j for j in row if j != i] for i, row in enumerate(self.weights)]
        for i in range(m):
            self._x[i].copy_(block.x(i))
            self.mailbox.publish(i, -1)

    def begin(self, i, t):
        self.ages.begin(i, self.mailbox.now())

    def adapted(self, i, t):
        mass, x, before = self._mass[i], self.block.x(i), self.sums.x(i)
        # What the update has changed z by; z itself is rounded to the type of the model, the mass is not.
        torch.sub(x.double(), self._debiased(i).to(x.dtype), out=self._change_of_x)
        weight = self._w[i].item()
        self._x[i].add_(self._change_of_x, alpha=weight)
        if weight >= PRECISION * before[-1].item() and not self._alone(i):
            after = self.sums.other(i)
            torch.add(before, mass, out=after)
            # What the sum has grown by, in its own rounding, is what is taken away.
            torch.sub(after, before, out=self._change)
            mass.sub_(self._change, alpha=self.sent[self.placement.hosted[i]])
            self.sums.flip(i)
            self.mailbox.publish(i, t)
            self._clock[i] = t

    def mix(self, i, t):
        start = time.perf_counter()
        letters = self._take(i)
        seen, fresh = self._seen[i], []
        for letter in letters:
            if letter.clock != ENDED and seen.get(letter.vertex, 0) < letter.version:
                fresh.append(self.ages.of(i, t, letter))
            seen[letter.vertex] = letter.version
        self.ages.forget(i, letters)
        return fresh, time.perf_counter() - start

    def end(self, i):
        self._publish(i, ENDED, self.sums.x(i))

    def drain(self, i):
        letters = self._take(i)
        vertex = self.placement.hosted[i]
        ended = sum(letter.clock == ENDED for letter in letters)
        return ended < len(self._read[vertex])

    def look(self, vertex, out):
        """As above: the last two sums differ by the mass that the vertex had when it sent; of one that has ended they are alike."""
        mailbox, reader = self.mailbox.unheld, self.placement.hosted[0]
        for _ in range(TRIES):
            letter = mailbox.peek(vertex, reader)
            before = letter and mailbox.peek(vertex, reader, letter.clock - 1)
            if not before or before.clock < 0 < letter.clock:  # the sum of a run that is gone on with, on top of nothing
                return False
            mass = letter.row - before.row
            if mailbox.intact([letter, before]):
                weight = float(mass[-1])
                if weight > 0:
                    out.copy_(mass[: len(out)] / weight)
                return weight > 0
        return False

    def weight(self, i):
        return float(self.mass[i, -1])

    def state_dict(self, i):
        state = {"mass": self.mass[i], "sum": self.sums.x(i), "taken": self.taken[i]}
        return {**{name: row.clone() for name, row in state.items()}, "clock": self._clock[i]}

    def load_state_dict(self, i, state):
        self.mass[i].copy_(state["mass"])
        self.taken[i].copy_(state["taken"])
        if state["clock"] >= 0:
            self._publish(i, int(state["clock"]), state["sum"])

    def _publish(self, i, clock, row):
        """Publish `row` as the running sum of hosted vertex i, in the buffer behind the one that was published last."""
        self.sums.other(i).copy_(row)
        self.sums.flip(i)
        self.mailbox.publish(i, clock)
        if clock != ENDED:  # a run that is gone on with may have more steps
            self._clock[i] = clock

    def _debiased(self, i):
        return torch.div(self._x[i], self._w[i], out=self._z)

    def _alone(self, i):
        vertex = self.placement.hosted[i]
        return all(self.mailbox.clock(reader, vertex) == ENDED for reader in self.readers.get(vertex, ()))

    def _take(self, i):
        """Add to the mass of hosted vertex i what has arrived since, set z, and return the letters."""
        vertex = self.placement.hosted[i]
        row, arrived = self.weights[vertex], self._arrived
        while True:
            letters = self.mailbox.letters(self._read[vertex], vertex)
            arrived.zero_()
            for letter in letters:
                arrived.add_(letter.row, alpha=row[letter.vertex])
            if self.mailbox.intact(letters):
                break
        torch.sub(arrived, self._taken[i], out=self._change)
        self._mass[i].add_(self._change)
        self._taken[i].copy_(arrived)
        self.block.x(i).copy_(self._debiased(i))
        return letters
