"""From stored samples to what a model sees: crop, flip, normalisation and cutout, batched, on the training device.

flipalt: Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, 2024, section 3.6. cutout: DeVries and Taylor, Improved
regularization of convolutional neural networks with cutout, 2017.

Array legend: B batch, C channels, H and W height and width, p features.
"""

import numpy as np
import torch

from mpiconsensus.errors import require_choice
from mpiconsensus.randomness import generator

KINDS = (
    "none", "crop", "flip", "flipalt", "cutout", "crop-flip", "crop-flipalt", "crop-cutout", "flip-cutout", "flipalt-cutout",
    "crop-flip-cutout", "crop-flipalt-cutout",
)  # fmt: skip
PAD = 4


class Augment:
    """Turn batches of one data set into tensors of `dtype`: (x * scale - mean) / std, augmented for training.

    `kind` is one of KINDS; all but none need images. `mean` and `std` hold one number a channel or feature,
    in units of x * scale. `memory_format` is torch.contiguous_format or torch.channels_last (images only).
    Raise UserError for another kind.
    """

    def __init__(self, kind, mean, std, scale, dtype, memory_format=torch.contiguous_format, seed=0, device="cpu"):
        require_choice("data.augment", kind, KINDS)
        steps = kind.split("-")
        self.crop, self.flip, self.alternate, self.cutout = (word in steps for word in ("crop", "flip", "flipalt", "cutout"))
        self.dtype, self.memory_format = dtype, memory_format
        self.seed, self.device = seed, torch.device(device)
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        # One multiplication and one addition: x * (scale / std) - mean / std.
        self._factor = torch.as_tensor(scale / std, dtype=dtype, device=self.device)
        self._offset = torch.as_tensor(-mean / std, dtype=dtype, device=self.device)
        self._plain = bool((self._factor == 1).all() and (self._offset == 0).all())
        self._padded = None

    def train(self, x, vertex, count, loader=None):
        """Return a fresh tensor of the batch x, numpy uint8 (B, C, H, W) or float32 (B, p), augmented.

        The numbers come from (seed, 'augment', vertex, count) in this order: B tops and B lefts of the crops
        in 0..8, within the image padded by 4 zero pixels; B flips in 0..1; B rows and B columns of the centres of the
        squares that cutout sets to the mean, H // 4 pixels up and left of the centre and as many from it on, cut at the
        border. flipalt draws nothing: it asks `loader`, whose last batch starts with x, for ids and pass (see `sides`).
        """
        pixels = torch.from_numpy(x)
        # A generator takes longer to make than a batch of features to normalise.
        random = generator(self.seed, "augment", vertex, count) if self.crop or self.flip or self.cutout else None
        if self.crop:
            top, left = random.integers(0, 2 * PAD + 1, (2, len(x)))
            pixels = self._cropped(pixels, top, left)
        pixels = pixels.to(self.device)
        if self.flip or self.alternate:
            if self.flip:
                flips = random.integers(0, 2, len(x)) == 1
            else:
                ids, number = loader.shown()
                flips = sides(self.seed, ids[: len(x)], number)
            flips = torch.from_numpy(flips).to(self.device)
            pixels = torch.where(flips[:, None, None, None], pixels.flip(3), pixels)
        values = self._normalised(pixels)
        if self.cutout:
            height, width = x.shape[2:]
            rows, columns = (self._near(random.integers(0, size, len(x)), size) for size in (height, width))
            # The mean is 0 once it is subtracted.
            values.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)
        return values

    def evaluate(self, x):
        """Return a fresh tensor of the batch x, numpy uint8 (B, C, H, W) or float32 (B, p), not augmented."""
        return self._normalised(torch.from_numpy(x).to(self.device))

    def _near(self, centre, size):
        """Return (B, size) bool: whether a row or column belongs to the square around `centre`."""
        distance = torch.arange(size, device=self.device) - torch.from_numpy(centre).to(self.device)[:, None]
        half = max(1, size // 4)
        return (distance >= -half) & (distance < half)

    def _cropped(self, pixels, top, left):
        """Return pixels (B, C, H, W) of the padded images, from row `top` and column `left` on, on the device."""
        batch, channels, height, width = pixels.shape
        padded = self._padding(pixels)
        tall, wide = padded.shape[2:]
        # A cropped row is W consecutive pixels of the padded images laid out flat: whole rows are copied.
        first_row = np.arange(batch * channels).reshape(batch, channels, 1) * tall + np.arange(height)
        starts = (first_row + top[:, None, None]) * wide + left[:, None, None]
        windows = padded.view(-1).unfold(0, width, 1)
        rows = torch.index_select(windows, 0, torch.from_numpy(starts.reshape(-1)).to(self.device))
        return rows.view(batch, channels, height, width)

    def _padding(self, pixels):
        """Return the images with PAD zeros around them, in a buffer that is kept from batch to batch."""
        batch, channels, height, width = pixels.shape
        shape = (batch, channels, height + 2 * PAD, width + 2 * PAD)
        if self._padded is None or self._padded.shape != shape:
            self._padded = torch.zeros(shape, dtype=pixels.dtype, device=self.device)
        self._padded[:, :, PAD:-PAD, PAD:-PAD].copy_(pixels)
        return self._padded

    def _normalised(self, pixels):
        if self._plain and pixels.dim() == 2:
            return pixels.to(self.dtype, copy=True)
        per_channel = (-1, 1, 1) if pixels.dim() == 4 else (-1,)
        values = pixels.to(self.dtype) if pixels.is_floating_point() else pixels
        # Out of place: `values` may share the memory of the shard.
        result = (values * self._factor.view(per_channel)).add_(self._offset.view(per_channel))
        return result.contiguous(memory_format=self.memory_format) if pixels.dim() == 4 else result


def sides(seed, ids, number):
    """Return which of the samples `ids`, int64 (B,), are mirrored in pass `number`: in every other pass the other ones.

    In pass 0 it is a bit of (seed, id), by the finaliser of SplitMix64 (Steele, Lea, Flood, Fast splittable pseudorandom
    number generators, 2014), whichever vertex holds the sample.
    """
    z = ids.astype(np.uint64) + np.uint64(generator(seed, "sides").integers(0, 2**64, dtype=np.uint64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return ((z ^ (z >> np.uint64(31))) & np.uint64(1)) == np.uint64(number % 2)
