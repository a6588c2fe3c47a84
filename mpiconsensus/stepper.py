"""One step of a schedule on the rows of a rank: what is exchanged, before and after the local update.

before(); gradients; after(update) - for the trainer and for a user's own loop alike.
"""

import time

import numpy as np

from mpiconsensus.errors import UserError
from mpiconsensus.mixing import run_delayed, run_round
from mpiconsensus.schedule import MEAN


class Stepper:
    """Runs the rounds of an algorithm on a Block; where the algorithm is delayed, mixes with the round of the step before.

    optimizers: has push(i), pull(i), reset(i), decay(i) for hosted vertex i. momentum_policy: local, mixed or reset.
    on_mixed(i): called for hosted vertex i after a step that mixed it (buffers that restart there).
    k: the step. wait_s, mix_s, hidden_s: seconds since the last `take`, waited for others, spent on sums, and spent by
    rows under way behind other work. bytes_sent: (m,) bytes that the hosted vertices sent.
    """

    def __init__(self, algorithm, order, exchange, reduction, block, placement, *, optimizers, momentum_policy="local", on_mixed=None):
        self.algorithm, self.order, self.exchange, self.reduction = algorithm, order, exchange, reduction
        self.block, self.placement, self.optimizers = block, placement, optimizers
        self.momentum_policy, self.on_mixed = momentum_policy, on_mixed
        if algorithm.delayed and (momentum_policy != "local" or block.layout.buffers or on_mixed):
            raise UserError("algorithm.delay = 1 mixes parameters alone; take training.momentum_policy = local and model.buffers = local.")
        self.k = 0
        self.drift = None
        self._watch = False
        self._started = None
        self._late = None  # the round that a delayed algorithm started a step ago
        self.row_bytes = block.d * block.layout.dtype.itemsize
        self.take()

    def take(self):
        """Return and clear (wait_s, mix_s, hidden_s, bytes_sent, bits by formula, residual of compression), NaN where nothing is compressed."""
        taken = (*(getattr(self, name, 0.0) for name in ("wait_s", "mix_s", "hidden_s", "bytes_sent")), np.nan, np.nan)
        self.wait_s = self.mix_s = self.hidden_s = 0.0
        self.bytes_sent = np.zeros(self.block.m, np.int64)
        return taken

    def watch_drift(self):
        """Measure how far the rounds of this step move the mean of the parameters, into `drift`; collective."""
        self._watch = True

    def before(self, resumed=False):
        """Do what comes ahead of the gradients of step k. resumed: the state was taken behind it, so its rounds are done."""
        self._rounds = self.algorithm.rounds(self.k)
        if self.order == "cta":
            if not resumed:
                self._run()
        elif self.order == "dpsgd" and self._overlaps():
            self._push()
            self.exchange.start(self._rounds[0])
            self._started = self._rounds[0]

    def after(self, update):
        """Update with the gradients of step k and do what comes behind; update(i, decay) for hosted vertex i.

        update's `decay` is False where the weight decay is in the gradient already.
        """
        trained = [i for i, v in enumerate(self.placement.hosted) if self.algorithm.trains(self.k, v)]
        if self.order == "dpsgd":
            # The gradient, decay included, belongs to the unmixed point.
            for i in trained:
                self.optimizers.decay(i)
            self._run()
        for i in trained:
            update(i, self.order != "dpsgd")
        if self.order == "atc":
            self._run()
        self.k += 1

    def settle(self):
        """Take in what is in flight behind the last step, where the mean lacks it; collective."""
        if self._late is not None and self._late.closing:
            run_delayed(self.exchange, self.block, self._late.closing, None)
            self._late = None

    def drain(self):
        """Finish a round that is under way without mixing it, so that the exchange can be closed."""
        if self._started is not None or self._late is not None:
            self.exchange.finish()
            self.exchange.release()
            self._started = self._late = None

    def uncompressed(self, steps, sent):
        """Return (m,) bytes that `steps` steps would have sent without compression; sent: (m,) those that they did."""
        return sent

    def mean_gradients(self, gradients, rate=None):
        """Replace each of the m rows of `gradients` by the average over all vertices; collective. rate: of learning, unused here."""
        start = time.perf_counter()
        mean = self.reduction.mean(list(gradients))
        for row in gradients:
            row.copy_(mean)
        self._count_mean(self.block.p)
        self.wait_s += time.perf_counter() - start

    def mean_row(self):
        """Return the average of all vertices' rows, (d,); overwritten by the next call; collective."""
        return self.reduction.mean([self.block.x(i) for i in range(self.block.m)])

    def _overlaps(self):
        # Buffers in the rows are written by the forward pass: then a round starts behind it. A mean is a reduction.
        # Watching the mean is a reduction of its own ahead of the round.
        return bool(self._rounds) and self._rounds[0] is not MEAN and not self.block.layout.buffers and not self._watch

    def _run(self):
        rounds = self._rounds
        if self.algorithm.delayed:
            rounds = (self._late,) if self._late else ()
        if not rounds and not self._rounds:
            self._watch = False
            return
        watched = self._watch
        if not self._started:
            self._push()
        if watched:
            before = self.mean_row()[: self.block.p].clone()
        if self.algorithm.delayed:
            self._mix_late()
        else:
            for round_ in rounds:
                self._mean() if round_ is MEAN else self._mix(round_)
        if watched:
            self.drift = float((self.mean_row()[: self.block.p] - before).double().norm())
            self._watch = False
        mixed = [i for i, v in enumerate(self.placement.hosted) if any(r is MEAN or v in r.rows for r in rounds)]
        for i in mixed:
            if self.momentum_policy == "mixed":
                self.optimizers.pull(i)
            elif self.momentum_policy == "reset":
                self.optimizers.reset(i)
            if self.on_mixed:
                self.on_mixed(i)

    def _push(self):
        if self.momentum_policy == "mixed":
            for i in range(self.block.m):
                self.optimizers.push(i)

    def _mix(self, round_):
        started, self._started = self._started is not None, None
        self._count(run_round(self.exchange, self.block, round_, started), round_)

    def _mix_late(self):
        """Mix with the round that was started a step ago, and start the one of this step."""
        next_ = self._rounds[0] if self._rounds else None
        times = run_delayed(self.exchange, self.block, self._late, next_)
        self._late = next_
        self._count(times, next_)

    def _count(self, times, round_):
        self.wait_s += times.wait_s
        self.mix_s += times.mix_s
        self.hidden_s += times.hidden_s
        if round_:
            self.bytes_sent += round_.out_degree[self.placement.hosted] * self.row_bytes

    def _mean(self):
        start = time.perf_counter()
        mean = self.mean_row()
        for i in range(self.block.m):
            self.block.x(i).copy_(mean)
        self._count_mean(self.block.d)
        self.wait_s += time.perf_counter() - start

    def _count_mean(self, elements):
        n = self.placement.n
        self.bytes_sent += 2 * (n - 1) * elements * self.block.layout.dtype.itemsize // n

    def wire_bytes(self):
        """Return the bytes that this rank has sent to other ranks so far."""
        return self.exchange.rows_sent * self.row_bytes + self.reduction.wire_elements * self.block.layout.dtype.itemsize

    def state_dict(self):
        """Return {"step"} and, of a round under way, {"late": {vertex: the row that it was started with}}."""
        state = {"step": self.k}
        if self._late:
            sides = self.exchange.sides
            state["late"] = {v: self.block.storage[sides[v]][i].clone() for i, v in enumerate(self.placement.hosted)}
        return state

    def load_state_dict(self, state):
        """Continue at the step of a state; the rows of the block are loaded before; collective where a round was under way."""
        self.k = int(state["step"])
        if "late" in state:
            self._resume(state["late"])

    def _resume(self, late):
        """Start the round of the step before anew, from the rows that it was started with."""
        rows = [self.block.x(i).clone() for i in range(self.block.m)]
        for i, vertex in enumerate(self.placement.hosted):
            self.block.x(i).copy_(late[vertex])
        self._late = self.algorithm.rounds(self.k - 1)[0]
        run_delayed(self.exchange, self.block, None, self._late)
        for i, row in enumerate(rows):
            self.block.x(i).copy_(row)
