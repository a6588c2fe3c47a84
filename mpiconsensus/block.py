"""The replicas of a rank: one contiguous (hosted vertices, d) array, whose rows the modules are views of.

Rows have two buffers or more: a round reads every row where it lies and writes the mixed row into the next buffer, then
the modules are pointed at it; nothing is copied back. Array legend: m hosted vertices, d length of a row.
"""

from typing import NamedTuple

import torch

from mpiconsensus.errors import UserError
from mpiconsensus.pieces import pieces

# Tensors start at multiples of 64 bytes, so that a replica's arithmetic does not depend on where its row lies;
# rows are multiples of 256 elements, so that vector loops have no tail and sums are the same in every placement.
TENSOR_BYTES = 64
ROW_ELEMENTS = 256


class Entry(NamedTuple):
    """One tensor of a replica: where it lies in the row."""

    name: str
    offset: int
    shape: torch.Size
    channels_last: bool

    def view(self, row):
        """Return the tensor as a view of `row`, a 1-d tensor."""
        flat = row[self.offset : self.offset + self.shape.numel()]
        if self.channels_last:
            o, i, h, w = self.shape
            return flat.view(o, h, w, i).permute(0, 3, 1, 2)
        return flat.view(self.shape)


class Layout:
    """The row of a replica: trained parameters first, then (buffers = True) the floating-point buffers.

    parameters, buffers: lists of Entry. p: length of the parameter part. d: length of the row before optimizer state.
    count: trained scalars, without padding. Frozen parameters are left out: they never change.
    """

    def __init__(self, module, buffers=False):
        trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        floating = [(name, b) for name, b in module.named_buffers() if b is not None and b.is_floating_point()]
        if not trained:
            raise UserError("the model has no trainable parameter; give one with requires_grad = True.")
        self.dtype, self.device = trained[0][1].dtype, trained[0][1].device
        for name, tensor in trained + (floating if buffers else []):
            if tensor.dtype != self.dtype or tensor.device != self.device:
                raise UserError(
                    f"the model's tensor {name!r} is {tensor.dtype} on {tensor.device}, the others are {self.dtype} on "
                    f"{self.device}; a replica is one flat row of one type: convert the model with .to(...)."
                )
        self.parameters, self.p = self._place(trained, 0)
        self.buffers, self.d = self._place(floating, self.p) if buffers else ([], self.p)
        self.count = sum(p.numel() for _, p in trained)

    def _place(self, tensors, start):
        align = TENSOR_BYTES // self.dtype.itemsize
        entries = []
        for name, tensor in tensors:
            last = tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
            entries.append(Entry(name, start, tensor.shape, last))
            start += -(-tensor.numel() // align) * align
        return entries, -(-start // ROW_ELEMENTS) * ROW_ELEMENTS


class Rows:
    """m rows with two or more buffers each. storage: the (m, d) arrays of the buffers, made by a transport.

    x(i): the current row of hosted vertex i. other(i): the row that a round may write. flip(i) goes on to that one.
    """

    def __init__(self, storage):
        self.storage = storage
        self.m, self.d = storage[0].shape
        self.current = [0] * self.m
        # Views are made once: to take one costs as much as a pass over a short row.
        self._x = [rows.unbind(0) for rows in storage]
        self._pieces = {}

    def x(self, i):
        """Return the current row of hosted vertex i, (d,)."""
        return self._x[self.current[i]][i]

    def other(self, i):
        """Return the row that the next round writes for hosted vertex i, (d,)."""
        return self._x[self._next(i)][i]

    def next_pieces(self, i):
        """Return other(i) in the pieces that sums go by."""
        key = self._next(i), i
        if key not in self._pieces:
            self._pieces[key] = pieces(self.other(i))
        return self._pieces[key]

    def flip(self, i):
        """Make the other row of hosted vertex i the current one."""
        self.current[i] = self._next(i)

    def _next(self, i):
        return (self.current[i] + 1) % len(self.storage)


class Block(Rows):
    """m replicas as rows. Rows may go on, past the layout, with optimizer state that is mixed with the parameters.

    gradients: (m, p), which the modules' gradients are views of; None without flat_gradients.
    """

    def __init__(self, layout, modules, storage, flat_gradients=True):
        super().__init__(storage)
        self.layout, self.modules, self.p = layout, modules, layout.p
        self._views = [[_views(layout, rows[i]) for rows in storage] for i in range(self.m)]
        self._trained = [rows[:, : self.p].unbind(0) for rows in storage]
        self._tensors = []
        self.gradients = None
        if flat_gradients:
            self.gradients = torch.zeros((self.m, self.p), dtype=layout.dtype, device=layout.device)
            self._gradients = self.gradients.unbind(0)
        for i, module in enumerate(modules):
            tensors = _tensors(layout, module)
            self._tensors.append(tensors)
            with torch.no_grad():
                for tensor, view in zip(tensors, self._views[i][0]):
                    view.copy_(tensor)
            if flat_gradients:
                for tensor, entry in zip(tensors, layout.parameters):
                    tensor.grad = entry.view(self.gradients[i])
            self._point(i)

    def parameters(self, i):
        """Return the trained parameters of hosted vertex i, (p,)."""
        return self._trained[self.current[i]][i]

    def gradient(self, i):
        """Return the row of gradients of hosted vertex i, (p,)."""
        return self._gradients[i]

    def gather_gradients(self, i, row):
        """Copy the gradients of hosted vertex i into row, (p,); a missing one counts as zero."""
        row.zero_()
        for tensor, entry in zip(self._tensors[i], self.layout.parameters):
            if tensor.grad is not None:
                entry.view(row).copy_(tensor.grad)

    def scatter_gradients(self, i, row):
        """Copy row, (p,), into the gradients of hosted vertex i."""
        for tensor, entry in zip(self._tensors[i], self.layout.parameters):
            if tensor.grad is None:
                tensor.grad = torch.empty_like(tensor)
            tensor.grad.copy_(entry.view(row))

    def state(self, i, number):
        """Return the mixed optimizer state `number` of hosted vertex i, (p,)."""
        start = self.layout.d + number * self.p
        return self.x(i)[start : start + self.p]

    def flip(self, i):
        super().flip(i)
        self._point(i)

    def _point(self, i):
        # set_ through .data keeps the Parameter objects, which optimizers and hooks hold.
        for tensor, view in zip(self._tensors[i], self._views[i][self.current[i]]):
            tensor.data = view

    def release(self):
        """Give the modules tensors of their own, so that the storage can go."""
        for tensors in self._tensors:
            for tensor in tensors:
                tensor.data = tensor.data.clone()


def row_length(layout, extra=0):
    """Return d: the layout's row and `extra` optimizer states of the parameters' length."""
    return layout.d + extra * layout.p


def _views(layout, row):
    return [entry.view(row) for entry in layout.parameters + layout.buffers]


def _tensors(layout, module):
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    return [parameters[e.name] for e in layout.parameters] + [buffers[e.name] for e in layout.buffers]
