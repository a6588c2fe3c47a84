"""The replicas of a rank as one model with a leading dimension: torch.func.vmap over what the block stores anyway.

A parameter of all vertices is a view of the block's storage, (m, *shape) with the rows as stride, and its gradient one of
block.gradients. The losses of the vertices are independent, so the gradient of their sum is, row by row, the gradient
of each. Array legend: m hosted vertices, g of them computed together, d length of a row, p of its parameters, B batch.
"""

import contextlib
import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.func import functional_call, vmap

from mpiconsensus.concurrency.draws import Draws


class Part(NamedTuple):
    """g replicas. pick: their rows of a stack; copied: whether rows (g, d) are a copy.

    leaves: the parameters, name -> (g, *shape), views of rows; slots: where in gradients (g, p) those of the leaves lie;
    others: buffers and frozen parameters, name -> (g, *shape).
    """

    pick: slice | list
    copied: bool
    rows: torch.Tensor
    gradients: torch.Tensor
    leaves: dict
    slots: list
    others: dict


class Stacked:
    """The replicas of a Block as stacks. Buffers and frozen parameters that are not in its rows move into stacks of their
    own, which the modules' are views of from here on."""

    def __init__(self, block):
        self.block, self.template = block, block.modules[0]
        in_rows = {entry.name for entry in block.layout.parameters + block.layout.buffers}
        tensors = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in block.modules]
        self.own = {name: _move([t[name] for t in tensors]) for name in tensors[0] if name not in in_rows}
        self._slots = _slots(self.template)
        # Batch normalisation without a momentum divides by its own count, a Python number: one for all that are together.
        self._cumulative = [
            (layer, f"{name}.num_batches_tracked".lstrip("."))
            for name, layer in self.template.named_modules()
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and layer.momentum is None and layer.track_running_stats
        ]
        self._parts = {}

    def counts(self):
        """Return for each hosted vertex the batches that its cumulative averages hold: a tuple, alike where g may be one."""
        if not self._cumulative:
            return [()] * self.block.m
        return [tuple(row) for row in torch.stack([self.own[name] for _, name in self._cumulative], dim=1).tolist()]

    def losses(self, indices, x, y, counts=(), generators=(), autocast=None):
        """Return the losses (g,) of the hosted vertices `indices` on x (g, B, ...) and y (g, B), and write their gradients.

        counts: of each of them, alike. generators: one each, of its dropout. autocast: the context of the forward passes.
        Raises what the model or vmap raises.
        """
        part = self._part(indices)
        # The rules of vmap update running statistics in place where these are contiguous only, and say nothing elsewhere.
        others = {name: tensor.contiguous() for name, tensor in part.others.items()}

        def loss(leaves, others, x, y, index):
            tensors = {**leaves, **others}
            with Draws(generators, index) if generators else contextlib.nullcontext():
                slots = {slot: tensors[name] for slot, name in self._slots.items()}
                logits = functional_call(self.template, slots, (x,), tie_weights=False)
            return F.cross_entropy(logits, y)

        numbers = torch.arange(len(indices), device=x.device)
        with self._counted(counts), autocast or contextlib.nullcontext():
            losses = vmap(loss, randomness="different")(part.leaves, others, x, y, numbers)
        gradients = torch.autograd.grad(losses.sum(), list(part.leaves.values()), materialize_grads=True)
        for slot, gradient in zip(part.slots, gradients, strict=True):
            slot.copy_(gradient)
        for name, tensor in part.others.items():
            if others[name] is not tensor:
                tensor.copy_(others[name])
        self._put_back(part, indices)
        return losses.detach()

    @contextlib.contextmanager
    def _counted(self, counts):
        for (layer, _), count in zip(self._cumulative, counts):
            layer.momentum = 1.0 / (count + 1)
        try:
            yield
        finally:
            for layer, _ in self._cumulative:
                layer.momentum = None

    def _part(self, indices):
        """Return the Part of `indices`: views where these lie evenly and stand on one side of the block, else copies."""
        block, d = self.block, self.block.layout.d
        sides = {block.current[i] for i in indices}
        pick = _evenly(indices)
        if not isinstance(pick, slice) or len(sides) > 1:
            return self._make(pick, torch.stack([block.x(i) for i in indices])[:, :d], copied=True)
        key = (*sides, pick.start, pick.stop, pick.step)
        if key not in self._parts:
            self._parts[key] = self._make(pick, block.storage[key[0]][pick, :d], copied=False)
        return self._parts[key]

    def _make(self, pick, rows, copied):
        gradients, layout = self.block.gradients[pick], self.block.layout
        leaves = {entry.name: _view(entry, rows).detach().requires_grad_() for entry in layout.parameters}
        slots = [_view(entry, gradients) for entry in layout.parameters]
        others = {name: stack[pick] for name, stack in self.own.items()}
        others.update((entry.name, _view(entry, rows)) for entry in layout.buffers)
        return Part(pick, copied, rows, gradients, leaves, slots, others)

    def _put_back(self, part, indices):
        """Write what was computed on copies to where it belongs."""
        block = self.block
        if not isinstance(part.pick, slice):
            block.gradients[part.pick] = part.gradients
            for name, stack in self.own.items():
                stack[part.pick] = part.others[name]
        if part.copied and block.layout.buffers:
            for i, row in zip(indices, part.rows, strict=True):
                block.x(i)[block.p : block.layout.d].copy_(row[block.p :])


def _move(tensors):
    """Return the stack of one tensor of all replicas and make each a view of its row."""
    stack = torch.stack([tensor.data for tensor in tensors])
    for i, tensor in enumerate(tensors):
        tensor.data = stack[i]
    return stack


def _slots(module):
    """Return every place in `module` that holds a tensor -> the name that parameters and buffers have it by.

    A module that is there twice counts once: functional_call would not restore what it exchanges twice.
    """
    slots, names = {}, {}
    for prefix, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                slot = f"{prefix}.{name}".lstrip(".")
                slots[slot] = names.setdefault(id(tensor), slot)
    return slots


def _view(entry, rows):
    """Return the tensor `entry` of all `rows` (g, d) as a view (g, *shape)."""
    flat = rows[:, entry.offset : entry.offset + entry.shape.numel()]
    if entry.channels_last:
        o, i, h, w = entry.shape
        return flat.view(-1, o, h, w, i).permute(0, 1, 4, 2, 3)
    return flat.view(-1, *entry.shape)


def _evenly(indices):
    """Return ascending `indices` as a slice where they lie evenly, else as they are."""
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    even = all(b - a == step for a, b in itertools.pairwise(indices))
    return slice(indices[0], indices[-1] + 1, step) if even else list(indices)
