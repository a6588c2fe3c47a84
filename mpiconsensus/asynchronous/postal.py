"""What an asynchronous algorithm exchanges through, opened for a trainer, and the engine that goes with it."""

import torch

from mpiconsensus.asynchronous.engine import Engine
from mpiconsensus.optim import FlatOptimizer
from mpiconsensus.transport.mailbox import open_mailbox
from mpiconsensus.transport.mailbox.held import Held
from mpiconsensus.transport.mailbox.pairs import Pairs

SHORT = 1 << 15  # elements of a row


class Real:
    """Mailboxes or pairs of rows between the ranks of a run. Opening, starting and closing are collective.

    An algorithm says with `needs` what it exchanges through; where its rows are those of the block, the block lies there.
    """

    virtual = False
    _rows = None

    def open(self, trainer, d, dtype):
        """Open the transport and return the storage of the block."""
        needs, world, placed = trainer.algorithm.needs(d, dtype), trainer.world, trainer.placement
        # clocks go to either end of an edge, whichever way it points
        name, readers = trainer.job.transport.name, dict(enumerate(trainer.algorithm.adjacent))
        self.pace = trainer.pace
        self.in_block = needs.in_block
        if needs.kind == "pairs":
            # flags and the clock are those of a mailbox of nothing else
            self.mailbox = world.agree(open_mailbox, name, world, placed, 1, torch.float64)
            self.transport = Pairs(world, placed, needs.d, needs.dtype, self.pace.delay)
        else:
            self.mailbox = world.agree(open_mailbox, name, world, placed, needs.d, needs.dtype, trainer.device, readers)
            if self.pace.has_links:
                self.mailbox = Held(self.mailbox, self.pace.delay)
            self.transport = self.mailbox
        return self.mailbox.storage() if self.in_block else _storage(trainer, d, dtype)

    def start(self, trainer, states):
        """Publish the first rows, or those of `states` {index: state of the algorithm}, where a run is gone on with."""
        if self.in_block:
            self.transport.bind(trainer.block)
        trainer.algorithm.open(self.transport, trainer.block, trainer.placement)
        for i, state in states.items():
            trainer.algorithm.load_state_dict(i, state)
        trainer.world.barrier()

    def engine(self, trainer, on_step, beat, through):
        """Return what takes the hosted vertices through their steps, see engine.Engine."""
        return Engine(trainer, self, self.pace, on_step, beat, through, trainer.job.hetero.least_step_s)

    @property
    def title(self):
        return self.mailbox.title

    @property
    def bytes_sent(self):
        return self.transport.bytes_sent

    def now(self):
        return self.mailbox.now()

    def there(self, wanted, reader):
        """Return whether each vertex of `wanted` {vertex: clock} has published that clock, without a wait or a spin."""
        return all(self.mailbox.clock(vertex, reader) >= clock for vertex, clock in wanted.items())

    def wait(self, wanted, seconds):
        return self.mailbox.wait(wanted, seconds)

    def spent(self):
        """Return the seconds that the rows of the last mix are under way."""
        return 0.0 if self.transport is self.mailbox else self.transport.spent()

    def raise_flag(self, bits):
        self.mailbox.raise_flag(bits)

    def lower_flags(self, bits):
        self.mailbox.lower_flags(bits)

    def flags(self):
        return self.mailbox.flags()

    def everyone(self, trainer):
        """Return the newest parameters of all vertices, (n, p), as this rank reads them without asking; None where some cannot be read so."""
        if self._rows is None:
            self._rows = torch.zeros((trainer.placement.n, trainer.block.p), dtype=trainer.block.layout.dtype)
            self._known = [False] * trainer.placement.n
        for vertex, row in enumerate(self._rows):
            # one that cannot be read any more counts with what was read last
            self._known[vertex] |= trainer.algorithm.look(vertex, row)
        return self._rows if all(self._known) else None

    def close(self):
        self.transport.close()
        if self.mailbox is not self.transport:
            self.mailbox.close()


class Virtual:
    """All vertices in this process, by modelled time; see virtual.VirtualEngine."""

    virtual = True
    title = "modelled (one process)"

    def open(self, trainer, d, dtype):
        from mpiconsensus.transport.mailbox.virtual import VirtualMailbox, VirtualPairs

        job, needs = trainer.job, trainer.algorithm.needs(d, dtype)
        self.pace = trainer.pace
        words = trainer.world, trainer.placement, needs.d, needs.dtype, trainer.device
        if needs.kind == "pairs":
            self.transport = VirtualPairs(*words, delay=self.pace.delay)
        else:
            readers = dict(enumerate(trainer.algorithm.adjacent))
            self.transport = VirtualMailbox(*words, readers=readers, delay=self.pace.delay, seed=job.training.seed)
        self.in_block = needs.in_block
        return self.transport.storage() if needs.in_block else _storage(trainer, d, dtype)

    def start(self, trainer, states):
        if self.in_block:
            self.transport.bind(trainer.block)
        trainer.algorithm.open(self.transport, trainer.block, trainer.placement)

    def engine(self, trainer, on_step, beat, through):
        from mpiconsensus.asynchronous.virtual import VirtualEngine

        def stepped(step):
            trainer.t[step.i] = step.t + 1
            on_step(step)
            beat()

        job = trainer.job
        engine = VirtualEngine(
            trainer.algorithm, self.transport, Learner(trainer), self.pace, trainer.total_steps, job.hetero.step_s, stepped, job.algorithm.ends
        )  # fmt: skip
        return ToTheEnd(engine, trainer)

    @property
    def bytes_sent(self):
        return self.transport.bytes_sent

    def now(self):
        return self.transport.virtual.now()

    def raise_flag(self, bits):
        pass

    def flags(self):
        return 0

    def everyone(self, trainer):
        return torch.stack([trainer.block.parameters(i) for i in range(trainer.block.m)])

    def close(self):
        pass


class ToTheEnd:
    """A virtual engine as the session runs one: it never stops in between."""

    def __init__(self, engine, trainer):
        self.engine, self.trainer = engine, trainer

    def run(self):
        self.engine.run()
        self.trainer.ended = [True] * len(self.trainer.hosted)


class Learner:
    """An AsyncTrainer as the virtual engine asks it: gradients of several vertices at once, updates one by one.

    A row stays as it is until its gradient is through, so what the update will make of it is known with the gradient: rows that
    are short enough for calls to cost more than sums are updated together, aside, and moved in when their time comes.
    """

    def __init__(self, trainer):
        self.trainer, block = trainer, trainer.block
        self._rows = None
        if isinstance(trainer.optimizers, FlatOptimizer) and block.p <= SHORT:
            self._rows = torch.empty((block.m, block.p), dtype=block.layout.dtype, device=block.layout.device).unbind(0)

    def gradients(self, pairs):
        """Return [(loss, io_s, compute_s)] of [(i, t)]."""
        trainer = self.trainer
        indices, steps = map(list, zip(*pairs, strict=True))
        found = trainer.concurrency.gradients(indices, steps)
        if self._rows:
            trainer.clip(indices)
            trainer.optimizers.ahead(indices, [trainer.rate_of(i, t) for i, t in pairs], [self._rows[i] for i in indices])
        return found

    def update(self, i, t):
        self.trainer.t[i] = t
        if self._rows:
            self.trainer.block.parameters(i).copy_(self._rows[i])
        else:
            self.trainer.update(i)


def _storage(trainer, d, dtype):
    """Return the storage of a block whose rows nobody else reads: one buffer."""
    return [torch.zeros((len(trainer.hosted), d), dtype=dtype, device=trainer.device)]
