"""One vertex after the other: the numbers that every placement shares."""

import time


class Way:
    """A way to compute the gradients of hosted vertices. reason: why `auto` took it, "" where the job names it."""

    name = words = reason = ""

    def __init__(self, trainer):
        self.trainer = trainer

    def describe(self):
        """Return the way in one line, for the head of a run."""
        return f"{self.name}, {self.words}" + (f" ({self.reason})" if self.reason else "")

    def draw(self, indices):
        """Return the next batches (x, y) of the hosted vertices, and the seconds that each took."""
        batches, io_s = [], []
        for i in indices:
            start = time.perf_counter()
            batches.append(self.trainer.draw(i))
            io_s.append(time.perf_counter() - start)
        return batches, io_s


class Serial(Way):
    """A forward and a backward pass a vertex, in ascending order."""

    name, words = "serial", "one vertex after the other"

    def gradients(self, indices, k):
        """Write the gradients of step k, one of each vertex where k is a list; return (loss, io_s, compute_s) of each of `indices`."""
        steps = k if isinstance(k, list) else [k] * len(indices)
        return [self._one(i, step) for i, step in zip(indices, steps, strict=True)]

    def _one(self, i, k):
        (batch,), (io_s,) = self.draw([i])
        start = time.perf_counter()
        value = self.trainer.backward(i, *batch, k).item()
        self.trainer.check_loss(i, value, k)
        return value, io_s, time.perf_counter() - start
