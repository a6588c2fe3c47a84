"""How a rank computes the gradients of the vertices it hosts: training.concurrency.

Each way has gradients(indices, k): it draws the batches of the hosted vertices `indices`, ascending, writes their
gradients at step k (or k[0], k[1], ... of a list, one a vertex) into the rows of block.gradients, and returns (loss, io_s, compute_s) of
each. A loss that is not finite ends the run. None of them is collective.
"""

from mpiconsensus.concurrency.batched import Batched
from mpiconsensus.concurrency.serial import Serial
from mpiconsensus.concurrency.streams import Streams
from mpiconsensus.errors import UserError

__all__ = ["open_concurrency"]

BY_NAME = {cls.name: cls for cls in (Serial, Streams, Batched)}


def open_concurrency(trainer):
    """Return what training.concurrency names; collective. UserError where it cannot work here.

    auto takes batched where every rank has a GPU, several vertices of one batch size and a model that allows it;
    else serial. All ranks take the same.
    """
    name = trainer.job.training.concurrency
    if name != "auto":
        return trainer.world.agree(BY_NAME[name], trainer)
    found, reason = None, _unfit(trainer.device.type, [loader.batch_size for loader in trainer.loaders])
    if not reason:
        try:
            found = Batched(trainer)
        except UserError as error:
            reason = str(error)
    reasons = [text for text in trainer.world.allgather(reason) if text]
    chosen = Serial(trainer) if reasons else found
    chosen.reason = f"auto: {reasons[0] if reasons else 'a GPU, several vertices a rank'}"
    return chosen


def _unfit(device, batch_sizes):
    """Return why `auto` does not batch the vertices of a rank, or ""."""
    if device != "cuda":
        return "no GPU"
    if len(batch_sizes) < 2:
        return "a rank hosts one vertex"
    return "batch sizes differ" if len(set(batch_sizes)) > 1 else ""
