"""A shard's file, read in runs of samples straight from where its datasets lie, nothing kept.

Array legend: N samples of the file, b samples of a run.
"""

import hashlib
import math
import os

import numpy as np

from mpiconsensus.data.shardfile import Shard, check_finite, check_labels, refuse
from mpiconsensus.errors import TrainingError

CHECKED = 1 << 20  # bytes that are read and hashed at a time: they stay in the cache
STAGED = 1 << 19  # bytes that are read ahead of being put in their places: of more, the first would have left the core's own cache


class BlockFile:
    """The samples of the file `path`: x, y and id lie at `offsets`, as `layout` (frame.layout) says.

    A read that fails is a UserError up to the end of `check`, and a TrainingError behind it: a run is under way.
    """

    def __init__(self, path, layout, offsets):
        self.path, self._layout, self._offsets = path, layout, offsets
        self.count = layout[0][1][0]
        self._bytes = [math.prod(shape) * np.dtype(dtype).itemsize for _, (_, *shape), dtype in layout]  # of a sample
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._was, self._checked = self._stamp(), False

    def close(self):
        self._file.close()

    def empty(self, rows, empty=np.empty):
        """Return uninitialised (x, y, id) for `rows` samples, made by `empty(shape, dtype)`."""
        return [empty((rows, *shape[1:]), np.dtype(dtype)) for _, shape, dtype in self._layout]

    def scatter(self, runs, places, parts):
        """Put the samples of `runs`, (first row, count) each, at the rows `places` of parts, arrays x (N, ...), y (N,) and id (N,)."""
        for field, out in enumerate(parts):
            rows, size = _whole(out), self._bytes[field]
            staged = np.empty((min(max(1, STAGED // size), len(places)), *out.shape[1:]), out.dtype)
            values, view = _whole(staged), memoryview(staged.reshape(-1).view(np.uint8))
            at = filled = 0
            for first, count in runs:
                while count:
                    taken = min(count, len(staged) - filled)
                    self._fill(field, first, view[filled * size : (filled + taken) * size])
                    first, count, filled = first + taken, count - taken, filled + taken
                    if filled == len(staged):
                        rows[places[at : at + filled]] = values
                        at, filled = at + filled, 0
            rows[places[at:]] = values[:filled]
        self._require_unchanged()

    def check(self, facts, digest, held=()):
        """Read everything once; return the samples of the rows `held`, ascending, as a Shard.

        Raise UserError unless labels, ids and features are what `facts` say, and the sha256 of x, y and id is `digest`.
        """
        kept = self.empty(len(held))
        held, found = np.asarray(held, np.int64), hashlib.sha256()
        before = None
        for field, out in enumerate(kept):
            for first, values in self._runs(field, CHECKED):
                found.update(values)
                if field == 0:
                    check_finite(self.path, values)
                elif field == 1:
                    check_labels(self.path, values, values[:0], facts)
                elif np.any(np.diff(values, prepend=values[:0] if before is None else before) <= 0):
                    refuse(self.path, "id does not ascend")
                else:
                    before = values[-1]
                low, high = np.searchsorted(held, (first, first + len(values)))
                out[low:high] = values[held[low:high] - first]
        if found.hexdigest() != digest:
            refuse(self.path, "the samples do not have the sha256 that was recorded when they were written")
        self._checked = True
        return Shard(*kept)

    def frame_sha256(self):
        """Return the sha256 of the bytes before and behind x, without those of x."""
        start, (_, shape, dtype) = self._offsets[0], self._layout[0]
        self._file.seek(0)
        found = hashlib.sha256()
        found.update(self._file.read(start))
        self._file.seek(start + math.prod(shape) * np.dtype(dtype).itemsize)
        found.update(self._file.read())
        return found.hexdigest()

    def _runs(self, field, most):
        """Yield (first row, values) of runs of samples, of at most `most` bytes, in memory that the next run takes again."""
        _, (_, *shape), dtype = self._layout[field]
        each = max(1, most // self._bytes[field])
        buffer = np.empty((min(each, self.count), *shape), dtype)
        for first in range(0, self.count, each):
            values = buffer[: self.count - first]
            self._fill(field, first, memoryview(values.reshape(-1).view(np.uint8)))
            self._require_unchanged()
            yield first, values

    def _fill(self, field, first, view):
        """Fill `view`, bytes of whole samples, from row `first` on."""
        name, size = self._layout[field][0], self._bytes[field]
        at, last = self._offsets[field] + first * size, first + len(view) // size - 1
        try:
            while view:
                done = os.preadv(self._file.fileno(), [view], at)
                if not done:
                    self._refuse(f"the file ends within {name} of samples {first} to {last} of {self.count}")
                at, view = at + done, view[done:]
        except OSError as error:
            self._refuse(f"{name} of samples {first} to {last} cannot be read ({error.strerror})")

    def _require_unchanged(self):
        """Refuse what has been read where the file is not the one that was opened."""
        try:
            changed = self._stamp() != self._was
        except OSError as error:
            self._refuse(f"it cannot be read ({error.strerror})")
        if changed:
            self._refuse("the file was changed while it was in use")

    def _stamp(self):
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _refuse(self, fact):
        if self._checked:
            raise TrainingError(f"{self.path}: {fact}; put the file back as it was, then go on with --resume.")
        refuse(self.path, fact)


def _whole(values):
    """Return samples (b, ...) as b values of as many bytes: numpy copies such a value at once."""
    size = math.prod(values.shape[1:]) * values.itemsize
    return values.reshape(len(values), -1).view(np.dtype((np.void, size)))[:, 0] if len(values) else values
