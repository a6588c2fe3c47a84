"""A CUDA stream a vertex: the passes of Serial, launched so that a GPU may run them side by side.

The arithmetic of a vertex is that of Serial. Batches are drawn on the stream of the caller, which the others wait for
and which waits for them, so that whatever comes before or behind need not know of streams.
"""

import time

import torch

from mpiconsensus.concurrency.serial import Way
from mpiconsensus.errors import UserError


class Streams(Way):
    """The passes of all vertices are under way before the first loss is waited for."""

    name, words = "streams", "a CUDA stream a vertex"

    def __init__(self, trainer):
        super().__init__(trainer)
        if trainer.device.type != "cuda":
            raise UserError(
                f"training.concurrency = streams needs a CUDA device, this run computes on {trainer.device}; "
                "take serial, batched or auto."
            )
        self.streams = [torch.cuda.Stream(trainer.device) for _ in trainer.hosted]

    def gradients(self, indices, k):
        """Write the gradients of step k, one of each vertex where k is a list; return (loss, io_s, compute_s) of each of `indices`:
        equal shares of the time."""
        if not indices:
            return []
        steps = k if isinstance(k, list) else [k] * len(indices)
        trainer, main = self.trainer, torch.cuda.current_stream(self.trainer.device)
        # Kept until `main` has waited: their memory is main's, and used by another stream.
        batches, io_s = self.draw(indices)
        start, losses = time.perf_counter(), []
        for i, step, (x, y) in zip(indices, steps, batches, strict=True):
            self.streams[i].wait_stream(main)
            with torch.cuda.stream(self.streams[i]):
                losses.append(trainer.backward(i, x, y, step))
        for i in indices:
            main.wait_stream(self.streams[i])
        values = torch.stack(losses).tolist()
        for i, step, value in zip(indices, steps, values, strict=True):
            trainer.check_loss(i, value, step)
        share = (time.perf_counter() - start) / len(indices)
        return [(value, io, share) for value, io in zip(values, io_s, strict=True)]
