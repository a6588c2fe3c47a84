"""Whether a model's replicas can be computed at once: tried on copies of two of them before a run trains.

vmap refuses what it cannot take; what it takes and computes otherwise (a forward that replaces a buffer, a tensor that is
no parameter and no buffer, a rule that forgets an update) shows beside passes of one replica alone.
"""

import contextlib
import copy

import torch
import torch.nn.functional as F

from mpiconsensus.block import Block, Layout
from mpiconsensus.concurrency.draws import Draws
from mpiconsensus.concurrency.stacked import Stacked
from mpiconsensus.errors import UserError
from mpiconsensus.randomness import torch_seed

SAMPLES = 4


class Alone(Exception):
    """The model fails for one replica alone: the run itself will say so."""


def require_batchable(trainer):
    """Raise UserError unless the gradients of two vertices come out together as they come out alone.

    Returns at once where no two hosted vertices have one batch size, so that nothing is ever batched.
    """
    pair = _pair([loader.batch_size for loader in trainer.loaders])
    if pair is None:
        return
    # As the job computes, where rounding may be coarse and another result is far off; then to float64 rounding.
    settings = [
        (trainer.dtype, trainer.device, trainer.autocast, 0.5, 1e-2),
        (torch.float64, torch.device("cpu"), contextlib.nullcontext, 1e-6, 1e-9),
    ]
    for dtype, device, autocast, relative, absolute in settings:
        try:
            alone, together, drew = _passes(trainer, pair, dtype, device, autocast)
        except Alone:
            return
        for words, expected in alone.items():
            distance = (together[words] - expected).norm()
            # Where random numbers other than dropout's were drawn, the two cannot agree.
            if not drew and not distance <= relative * expected.norm() + absolute:
                raise UserError(
                    f"{_refused(trainer)}: {words} not what one replica alone gives. What a forward changes must be a buffer, "
                    "changed in place, and what replicas differ in a parameter or a buffer; or take --set training.concurrency=serial."
                )


def _pair(sizes):
    """Return the first two hosted vertices of one batch size, or None."""
    for i, size in enumerate(sizes):
        if size in sizes[:i]:
            return [sizes.index(size), i]
    return None


def _passes(trainer, pair, dtype, device, autocast):
    """Return {words: float64 tensor} of the two replicas alone and together, and whether they drew other than dropout does."""
    batches = [_batch(trainer, i, dtype, device) for i in pair]
    seeds = [torch_seed(trainer.job.training.seed, "dropout", trainer.hosted[i], 0) for i in pair]
    alone, together = (_copies(trainer, pair, dtype, device) for _ in range(2))
    start, before = _buffers(alone), _random_state(device)
    losses = []
    for module, (x, y), generator in zip(alone.modules, batches, _generators(seeds, device), strict=True):
        try:
            with Draws([generator]), autocast():
                loss = F.cross_entropy(module(x), y)
            loss.backward()
        except Exception as error:
            raise Alone from error
        losses.append(loss.detach())
    drew = not all(map(torch.equal, before, _random_state(device)))
    losses = torch.stack(losses)
    if not losses.isfinite().all():
        raise Alone
    x, y = (torch.stack(tensors) for tensors in zip(*batches, strict=True))
    try:
        stacked = Stacked(together)
        found = stacked.losses([0, 1], x, y, stacked.counts()[0], _generators(seeds, device), autocast())
    except Exception as error:  # noqa: BLE001 - vmap and a user's forward may raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{_refused(trainer)}: {type(error).__name__}: {reason} What depends on the values in the data cannot be computed for "
            "several vertices at once; take --set training.concurrency=serial."
        ) from None
    return _results(alone, losses, start), _results(together, found, start), drew


def _generators(seeds, device):
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def _batch(trainer, i, dtype, device):
    """Return the first samples of the first batch of hosted vertex i; nothing is drawn for good."""
    images, labels = trainer.loaders[i].batch(0)
    x = trainer.augment.train(images[:SAMPLES], trainer.hosted[i], 0, trainer.loaders[i])
    return x.to(device=device, dtype=dtype), torch.tensor(labels[:SAMPLES], device=device)


def _copies(trainer, pair, dtype, device):
    """Return a Block of copies of the two replicas."""
    modules = [copy.deepcopy(trainer.block.modules[i]).to(device=device, dtype=dtype) for i in pair]
    layout = Layout(modules[0], buffers=trainer.job.model.buffers == "mixed")
    return Block(layout, modules, [torch.zeros(2, layout.d, dtype=dtype, device=device) for _ in range(2)])


def _random_state(device):
    return [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])


def _buffers(block):
    """Return name -> float64 (2, *shape) of the buffers of both replicas."""
    buffers = [dict(module.named_buffers()) for module in block.modules]
    return {name: torch.stack([named[name] for named in buffers]).double() for name in buffers[0]}


def _results(block, losses, start):
    changes = {f"the buffer {name} is": now - start[name] for name, now in _buffers(block).items()}
    return {"the losses are": losses.double(), "the gradients are": block.gradients.double(), **changes}


def _refused(trainer):
    return f"training.concurrency = batched does not work for model.name = {trainer.job.model.name!r}"
