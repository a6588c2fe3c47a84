"""The gradients of all hosted vertices in one call: a small model leaves a GPU idle, thirty-six of them do not.

Vertices whose batches have one shape are computed together; whoever does not train at a step is left out. Sums are
taken in another order than one vertex alone takes them, so the bits are not those of Serial: the numbers agree to rounding.
"""

import time

import numpy as np
import torch

from mpiconsensus.concurrency.serial import Way
from mpiconsensus.concurrency.stacked import Stacked
from mpiconsensus.concurrency.trial import require_batchable
from mpiconsensus.randomness import torch_seed


class Batched(Way):
    """One forward and one backward pass a group of vertices. UserError for a model that vmap cannot take."""

    name, words = "batched", "the vertices of a rank in one call; equal to serial up to rounding, not bit for bit"

    def __init__(self, trainer):
        super().__init__(trainer)
        require_batchable(trainer)
        self.stacked = Stacked(trainer.block)
        self.generators = [torch.Generator(trainer.device) for _ in trainer.hosted] if trainer.stochastic else []

    def gradients(self, indices, k):
        """Write the gradients of step k, one of each vertex where k is a list; return (loss, io_s, compute_s) of each of `indices`:
        equal shares of a group's time."""
        steps = dict(zip(indices, k if isinstance(k, list) else [k] * len(indices), strict=True))
        counts, groups, found = self.stacked.counts(), {}, {}
        for i in indices:
            groups.setdefault((self.trainer.loaders[i].batch_size, counts[i]), []).append(i)
        for (_, count), group in groups.items():
            start = time.perf_counter()
            x, y = draw_alike(self.trainer, group)
            drawn = time.perf_counter()
            values = self._group(group, x, y, count, steps)
            io_s, compute_s = (drawn - start) / len(group), (time.perf_counter() - drawn) / len(group)
            found.update((i, (value, io_s, compute_s)) for i, value in zip(group, values, strict=True))
        for i in indices:
            self.trainer.check_loss(i, found[i][0], steps[i])
        return [found[i] for i in indices]

    def _group(self, group, x, y, count, steps):
        """Return the losses of vertices on batches x (g, B, ...) and y (g, B)."""
        trainer = self.trainer
        if len(group) == 1:
            return [trainer.backward(group[0], x[0], y[0], steps[group[0]]).item()]
        self._seed(group, steps)
        generators = [self.generators[i] for i in group] if self.generators else ()
        try:
            losses = self.stacked.losses(group, x, y, count, generators, trainer.autocast())
            if trainer.job.training.nonconvex:
                losses = torch.stack([trainer.regularise(i, loss) for i, loss in zip(group, losses, strict=True)])
            return losses.tolist()
        except (RuntimeError, ValueError) as error:
            raise trainer.model_failed(error, group, steps[group[0]], x.shape) from error

    def _seed(self, group, steps):
        """Key dropout to (seed, vertex, step), and what else the model draws to (seed, first vertex of the group, step)."""
        trainer = self.trainer
        if not trainer.stochastic:
            return
        seed = trainer.job.training.seed
        for i in group:
            self.generators[i].manual_seed(torch_seed(seed, "dropout", trainer.hosted[i], steps[i]))
        torch.manual_seed(torch_seed(seed, "batched", trainer.hosted[group[0]], steps[group[0]]))


def draw_alike(trainer, indices):
    """Return the next batches (x, y), (g, B, ...) each, of g hosted vertices with one batch size, as trainer.draw would one by one."""
    if len(indices) == 1:  # as it lies in memory
        return tuple(tensor[None] for tensor in trainer.draw(indices[0]))
    if not trainer.augment.is_fixed or len(trainer.source.shape) > 1:
        return tuple(map(torch.stack, zip(*map(trainer.draw, indices), strict=True)))
    raw = [trainer.loaders[i].batch(trainer.batches_drawn[i]) for i in indices]
    features, labels = (np.stack(arrays) for arrays in zip(*raw, strict=True))
    x = trainer.augment.evaluate(features.reshape(-1, features.shape[-1])).view(features.shape)
    y = torch.from_numpy(labels).to(trainer.device)
    for i, *batch in zip(indices, x.unbind(0), y.unbind(0)):
        trainer.batches_drawn[i] += 1
        trainer.last_batch[i] = tuple(batch)
    return x, y
