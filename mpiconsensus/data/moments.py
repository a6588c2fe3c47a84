"""Mean and population deviation per channel or feature, from blocks x uint8 (b, C, H, W) or float32 (b, p).

Images are summed in whole numbers, exactly; features in float64, block by block (Chan, Golub, LeVeque, Updating
formulae and a pairwise algorithm for computing sample variances, 1979, equation 2.1).
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpiconsensus.limits import usable_cores

BLOCK = 1024  # samples
RUN = 256  # pixels of 8 bits whose squares sum up to less than 2^24


class Moments:
    """What blocks have summed up to; `add` them in one order to get the same bits."""

    def __init__(self):
        self._sums = None

    def add(self, x):
        """Take a block in."""
        self.merge(sums(x))

    def merge(self, other):
        """Take in the sums of a block, as `sums` returns them."""
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
    pixels = x[0, 0].size
    first, second = np.zeros(x.shape[1], np.int64), np.zeros(x.shape[1], np.int64)
    for start in range(0, len(x), 64):
        values = x[start : start + 64].astype(np.float32).reshape(-1, pixels)
        for at in range(0, pixels, RUN) if pixels % RUN else [0]:
            run = values[:, at : at + RUN] if pixels % RUN else values.reshape(-1, RUN)
            ones = np.ones(run.shape[1], np.float32)
            # Whole numbers below 2^24: exact in float32, whatever their order.
            for total, sums_of_runs in ((first, run @ ones), (second, np.matmul(run[:, None, :], run[:, :, None]))):
                total += sums_of_runs.reshape(-1, x.shape[1], run.size // len(values) // run.shape[1]).sum(axis=(0, 2), dtype=np.int64)
    return x[:, 0].size, first.astype(object), second.astype(object)


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
