"""Mean and population deviation per channel or feature, from blocks x uint8 (b, C, H, W) or float32 (b, p).

Images are summed in whole numbers, exactly; features in float64, block by block (Chan, Golub, LeVeque, Updating
formulae and a pairwise algorithm for computing sample variances, 1979, equation 2.1).
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpiconsensus.limits import usable_cores

BLOCK = 1024  # samples
CACHE = 4 << 20  # bytes that are summed at a time: with fewer, threads wait for the interpreter more than they sum
RUN = 1024  # numbers from -128 to 127 whose squares sum up to 2^24 at most


class Moments:
    """What blocks have summed up to; `add` them in one order to get the same bits."""

    def __init__(self):
        self._sums = None

    def add(self, x):
        """Take a block in."""
        self.merge(sums(x))

    def merge(self, other):
        """Take in the sums of a block, as `sums` returns them, or other Moments."""
        other = other._sums if isinstance(other, Moments) else other
        if self._sums is None:
            self._sums = other
        elif other[1].dtype == object:
            self._sums = tuple(mine + its for mine, its in zip(self._sums, other))
        else:
            (n, mean, m2), (count, other_mean, other_m2) = self._sums, other
            delta, total = other_mean - mean, n + count
            self._sums = total, mean + delta * (count / total), m2 + other_m2 + np.square(delta) * (n * count / total)

    def result(self, scale):
        """Return (mean, std) of x * scale, float64; a std of 0 becomes 1, so that it divides."""
        n, first, second = self._sums
        if first.dtype == object:
            mean = np.array([s / n for s in first])
            variance = np.array([(n * q - s * s) / (n * n) for s, q in zip(first, second)])
        else:
            mean, variance = first, second / n
        mean, std = mean * scale, np.sqrt(variance) * scale
        # Of a constant feature the deviation is 0 exactly: sums of one float32 have room in float64.
        return mean, np.where(std > 0, std, 1.0)


def sums(x):
    """Return what a block adds: (values a channel, sums, sums of squares), whole numbers, or (b, mean, sum (x - mean)^2)."""
    return _of_images(x) if x.dtype == np.uint8 else _of_features(x)


def _of_images(x):
    pixels, channels = x[0, 0].size, x.shape[1]
    first, second = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    step = max(1, CACHE // (4 * channels * pixels))
    centred = np.empty((min(step, len(x)), *x.shape[1:]), np.uint8)
    values = np.empty(centred.shape, np.float32)
    for start in range(0, len(x), step):
        block = x[start : start + step]
        some = values[: len(block)]
        # With the highest bit turned over, 8 bits as a signed number are the value less 128.
        np.bitwise_xor(block, 128, out=centred[: len(block)])
        np.copyto(some, centred[: len(block)].view(np.int8))
        # Whole numbers up to 2^24 in a run: exact in float32, whatever their order.
        if pixels % RUN:
            flat = some.reshape(-1, pixels)
            runs = [flat[:, at : at + RUN] for at in range(0, pixels, RUN)]
        else:
            runs = [some.reshape(-1, RUN)]
        for run in runs:
            # Of all ways to sum products, numpy gives to BLAS a row times a column.
            for total, of_runs in ((first, np.einsum("ij->i", run)), (second, run[:, None, :] @ run[:, :, None])):
                total += of_runs.reshape(len(some), channels, -1).sum(axis=(0, 2), dtype=np.int64)
    count, first, second = x[:, 0].size, first.astype(object), second.astype(object)
    return count, first + 128 * count, second + 256 * first + 128**2 * count


def _of_features(x):
    values = x.astype(np.float64)
    mean = values.mean(axis=0)
    return len(x), mean, np.square(values - mean).sum(axis=0)


def moments(x, scale):
    """Return (mean, std) of x * scale per channel or feature, float64; a std of 0 becomes 1, so that it divides."""
    together = Moments()
    with ThreadPoolExecutor(usable_cores()) as pool:
        # In the order of the blocks, whichever thread is first: the same bits on every machine.
        for block in pool.map(lambda start: sums(x[start : start + BLOCK]), range(0, len(x), BLOCK)):
            together.merge(block)
    return together.result(scale)
