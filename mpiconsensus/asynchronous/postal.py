"""What an asynchronous algorithm exchanges through, under the clock of the machine: opened for a trainer, and its engine."""

import torch

from mpiconsensus.asynchronous.engine import Engine
from mpiconsensus.transport.mailbox import open_mailbox, open_pairs


class Real:
    """Mailboxes or pairs of rows between the ranks of a run. Opening, starting and closing are collective.

    An algorithm says with `needs` what it exchanges through; where its rows are those of the block, the block lies there.
    """

    virtual = False

    def open(self, trainer, d, dtype):
        """Open the transport and return the storage of the block."""
        needs = trainer.algorithm.needs(d, dtype)
        make = open_mailbox if needs.kind == "mailbox" else open_pairs
        self.transport = trainer.world.agree(
            make, trainer.job.transport.name, trainer.world, trainer.placement, needs.d, needs.dtype, trainer.device, trainer.algorithm.readers
        )  # fmt: skip
        self.in_block = needs.in_block
        if needs.in_block:
            return self.transport.storage()
        return [torch.zeros((len(trainer.hosted), d), dtype=dtype, device=trainer.device)]

    def start(self, trainer, states):
        """Publish the first rows, or those of `states` {index: state of the algorithm}, where a run is gone on with."""
        if self.in_block:
            self.transport.bind(trainer.block)
        trainer.algorithm.open(self.transport, trainer.block, trainer.placement)
        for i, state in states.items():
            trainer.algorithm.load_state_dict(i, state)
        trainer.world.barrier()

    def engine(self, *words):
        return Engine(*words)

    @property
    def title(self):
        return self.transport.title

    @property
    def bytes_sent(self):
        return self.transport.bytes_sent

    def now(self):
        return self.transport.now()

    def wait(self, wanted, seconds):
        return self.transport.wait(wanted, seconds)

    def raise_flag(self, bits):
        self.transport.raise_flag(bits)

    def lower_flags(self, bits):
        self.transport.lower_flags(bits)

    def flags(self):
        return self.transport.flags()

    def everyone(self, trainer):
        """Return the newest parameters of all vertices as rank 0 reads them, without asking; None where they cannot be read so."""
        if not self.in_block:
            return None
        rows = []
        for vertex in range(trainer.placement.n):
            letter = self.transport.peek(vertex, trainer.hosted[0])
            if letter is None:
                return None
            rows.append(letter.row[: trainer.block.p].clone())
            if not self.transport.intact([letter]):  # lapped while it was copied: a measurement, not a promise
                rows[-1] = self.transport.peek(vertex, trainer.hosted[0]).row[: trainer.block.p].clone()
        return rows

    def close(self):
        self.transport.close()
