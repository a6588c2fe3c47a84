"""A compressor of a replica's row: of all tensors as one vector, tensor by tensor, or of pieces of N elements.

A row has padding between its tensors and behind them (block.Layout), which is neither counted nor sent: `gather` takes the
elements of the tensors out of a row, `scatter` puts them back. A message is those of the sections one after the other;
where lengths depend on the data and there are several sections, their lengths stand before, 4 bytes each.
"""

import re

import numpy as np

from mpiconsensus.compress import LOW_RANK, make, parse
from mpiconsensus.compress.identity import Identity
from mpiconsensus.errors import UserError, did_you_mean

SCOPES = ("vector", "tensor", "bucket:N")
LENGTH = np.dtype("<u4")


class Codec:
    """The compressor `spec` on the sections of `scope` of a row that `layout` describes. One a vertex: it may hold state.

    count: elements of the vector (count,). sections: (slice of the vector, Compressor). bits: of a message by formula.
    fixed: every message has `longest` bytes; else at most so many. shared: supports are drawn alike by all, decoding needs
    the generator that `encode` was given. summable: messages are floats that add up, `payload`. draws: it uses random numbers.
    unbiased, constant, scale, alpha: of the worst section; constant and alpha are None where a section has none.
    Raises UserError for a wrong spec, scope or dtype.
    """

    def __init__(self, spec, layout, scope="vector", dtype=None):
        self.spec, self.scope, self.count = spec, scope, layout.count
        self.dtype = _floating(dtype or layout.dtype)
        shapes = [tuple(entry.shape) for entry in layout.parameters]
        sizes = [int(np.prod(shape)) for shape in shapes]
        self._runs = _runs([entry.offset for entry in layout.parameters], sizes)
        self.sections = []
        for start, stop, shape in _sections(scope, sizes, shapes):
            part = slice(start, stop)
            self.sections.append((part, _compressor(spec, scope, stop - start, shape, self.dtype)))
        kinds = [compressor for _, compressor in self.sections]
        self.fixed = all(c.fixed for c in kinds)
        self._head = 0 if self.fixed or len(kinds) == 1 else LENGTH.itemsize * sum(not c.fixed for c in kinds)
        self.longest = self._head + sum(c.longest for c in kinds)
        self.bits = sum(c.bits for c in kinds)
        self.shared, self.summable = all(c.shared for c in kinds), all(c.summable for c in kinds)
        self.unbiased, self.draws = all(c.unbiased for c in kinds), any(c.draws for c in kinds)
        self._seeded = self.draws and any(c.shared for c in kinds) and len(kinds) > 1

    @property
    def constant(self):
        if not self.unbiased:
            return self.alpha
        return max(c.constant for _, c in self.sections)

    @property
    def alpha(self):
        alphas = [c.alpha for _, c in self.sections]
        return None if None in alphas else min(alphas)

    @property
    def scale(self):
        """The factor that makes C contractive."""
        return 1.0 / self.constant if self.unbiased else 1.0

    def gather(self, row, out=None):
        """Return the elements of a row, torch or numpy, as a vector (count,); without `out` a view where they lie together."""
        row = _array(row)
        if out is None:
            if len(self._runs) == 1:
                start, stop, at = self._runs[0]
                return row[at : at + stop - start]
            out = np.empty(self.count, self.dtype)
        for start, stop, at in self._runs:
            out[start:stop] = row[at : at + stop - start]
        return out

    def scatter(self, vector, row):
        """Write a vector (count,) into a row, torch or numpy; what is padding stays."""
        target = _array(row)
        for start, stop, at in self._runs:
            target[at : at + stop - start] = vector[start:stop]
        if getattr(row, "is_cuda", False):
            row.copy_(row.new_tensor(target))

    def encode(self, vector, random):
        """Return the message of a vector (count,), uint8; random: a numpy Generator, the shared one where supports are shared."""
        parts = [c.encode(vector[part], r) for (part, c), r in zip(self.sections, self._generators(random))]
        if len(parts) == 1:
            return parts[0]
        if self._head:
            lengths = [len(message) for message, (_, c) in zip(parts, self.sections) if not c.fixed]
            parts.insert(0, np.array(lengths, LENGTH).view(np.uint8))
        return np.concatenate(parts)

    def decode(self, message, out, random):
        """Write C(x) into out (count,); random: a Generator in the state that `encode` was given, used where supports are shared."""
        for (part, c), piece, r in zip(self.sections, self._pieces(message), self._generators(random)):
            c.decode(piece, out[part], r)

    def add_to(self, message, targets, random):
        """Add C(x) times a factor to each of `targets`, a list of ((count,), factor); random as in `decode`."""
        for (part, c), piece, r in zip(self.sections, self._pieces(message), self._generators(random)):
            c.add_to(piece, [(target[part], factor) for target, factor in targets], r)

    def payload(self, message):
        """Return the floats of a message where `summable`: a view, and a mean of such views is a message again."""
        return message.view(self.dtype)

    def reweigh(self, weights):
        """Give the operators that choose by importance their weights, (count,); the others have none."""
        for part, c in self.sections:
            if hasattr(c, "weights"):
                c.weights = np.asarray(weights[part], self.dtype)

    def state_dict(self):
        """Return the arrays that the compressors keep from message to message, by section and name."""
        states = {f"{i}.{name}": value for i, (_, c) in enumerate(self.sections) for name, value in c.state_dict().items()}
        return {key: value.copy() for key, value in states.items() if value is not None}

    def load_state_dict(self, state):
        """Take over what `state_dict` returned."""
        for i, (_, c) in enumerate(self.sections):
            c.load_state_dict({name: state[f"{i}.{name}"].copy() if f"{i}.{name}" in state else None for name in c.state_dict()})

    def _generators(self, random):
        """Return a Generator a section. Shared supports have one each: decoding draws less than encoding from the first on."""
        if not self._seeded:
            return [random] * len(self.sections)
        return [np.random.Generator(np.random.PCG64(seed)) for seed in random.integers(1 << 63, size=len(self.sections)).tolist()]

    def _pieces(self, message):
        """Yield the message of each section."""
        if len(self.sections) == 1:
            yield message
            return
        lengths = iter(message[: self._head].copy().view(LENGTH).tolist())
        start = self._head
        for _, c in self.sections:
            length = c.longest if c.fixed else next(lengths)
            yield message[start : start + length]
            start += length


def _floating(dtype):
    """Return numpy's dtype of a dtype of numpy or torch."""
    name = np.dtype(dtype).name if isinstance(dtype, type) else str(dtype).removeprefix("torch.")
    if name not in ("float32", "float64"):
        raise UserError(f"compression works on float32 and float64, the model has {name}; set training.precision to one of them.")
    return np.dtype(name)


def _array(row):
    """Return a row, torch or numpy, as a numpy array: a view of it where it lies in the memory of the CPU."""
    return row.detach().cpu().numpy() if hasattr(row, "detach") else row


def _runs(offsets, sizes):
    """Return (start, stop) in the vector and the start in the row of elements that lie together in both."""
    runs, start = [], 0
    for offset, size in zip(offsets, sizes):
        if runs and runs[-1][2] + start - runs[-1][0] == offset:
            runs[-1][1] = start + size
        else:
            runs.append([start, start + size, offset])
        start += size
    return runs


def _sections(scope, sizes, shapes):
    """Return (start, stop, shape of the tensor or None) of every section."""
    count = sum(sizes)
    if scope == "vector":
        return [(0, count, None)]
    if scope == "tensor":
        stops = np.cumsum(sizes).tolist()
        return [(stop - size, stop, shape) for stop, size, shape in zip(stops, sizes, shapes) if size]
    word, _, number = scope.partition(":")
    if word != "bucket" or not re.fullmatch(r"[1-9]\d*", number):
        raise UserError(
            f"compression of {scope!r} is not known; choose one of {', '.join(SCOPES)} (such as bucket:65536).{did_you_mean(word, SCOPES)}"
        )
    return [(start, min(start + int(number), count), None) for start in range(0, count, int(number))]


def _compressor(spec, scope, d, shape, dtype):
    """Return the Compressor of a section. Of tensors, low rank leaves those alone that have one dimension, or that factors lengthen."""
    if scope == "tensor" and parse(spec)[0] in LOW_RANK:
        compressor = make(spec, d, dtype, shape, clip=True)
        if len(shape) < 2 or compressor.values_sent >= d:
            return Identity(d, dtype, shape)
        return compressor
    return make(spec, d, dtype, shape, clip=scope != "vector")
