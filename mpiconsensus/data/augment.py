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
        self._scales, self._kept = {}, {}

    @property
    def is_fixed(self):
        """Whether samples are seen alike each time, in training as in evaluation."""
        return not (self.crop or self.flip or self.alternate or self.cutout)

    def train(self, x, vertex, count, loader=None):
        """Return a fresh tensor of the batch x, numpy uint8 (B, C, H, W) or float32 (B, p), augmented.

        The numbers come from (seed, 'augment', vertex, count) in this order: B tops and B lefts of the crops
        in 0..8, within the image padded by 4 zero pixels; B flips in 0..1; B rows and B columns of the centres of the
        squares that cutout sets to the mean, H // 4 pixels up and left of the centre and as many from it on, cut at the
        border. flipalt draws nothing: it asks `loader`, whose last batch starts with x, for ids and pass (see `sides`).
        """
        # A generator takes longer to make than a batch of features to normalise.
        random = generator(self.seed, "augment", vertex, count) if self.crop or self.flip or self.cutout else None
        pixels = self._laid_out(x, PAD if self.crop else 0)
        if self.crop:
            pixels = self._cropped(pixels, x, *random.integers(0, 2 * PAD + 1, (2, len(x))))
        if self.flip or self.alternate:
            if self.flip:
                flips = random.integers(0, 2, len(x)) == 1
            else:
                ids, number = loader.shown()
                flips = sides(self.seed, ids[: len(x)], number)
            which, order = np.flatnonzero(flips), np.arange(len(x))
            order[which] = len(x) + np.arange(len(which))
            which, order = (torch.from_numpy(rows).to(self.device) for rows in (which, order))
            # The turned ones are put behind, and whole images picked: a choice pixel by pixel takes ten times as long.
            turned = pixels.index_select(0, which).flip(2 if self._last(x) else 3)
            pixels = torch.cat([pixels, turned]).index_select(0, order)
        values = self._normalised(pixels, self._last(x))
        if self.cutout:
            height, width = x.shape[2:]
            rows, columns = (self._near(random.integers(0, size, len(x)), size) for size in (height, width))
            # The mean is 0 once it is subtracted.
            values.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)
        return values

    def evaluate(self, x):
        """Return a fresh tensor of the batch x, numpy uint8 (B, C, H, W) or float32 (B, p), not augmented."""
        return self._normalised(self._laid_out(x, 0), self._last(x))

    def _near(self, centre, size):
        """Return (B, size) bool: whether a row or column belongs to the square around `centre`."""
        distance = torch.arange(size, device=self.device) - torch.from_numpy(centre).to(self.device)[:, None]
        half = max(1, size // 4)
        return (distance >= -half) & (distance < half)

    def _last(self, x):
        """Return whether images are worked on with their channels last, (B, H, W, C): as long as they are bytes, moving them costs least."""
        return self.memory_format is torch.channels_last and x.ndim == 4 and x.shape[1] > 1

    def _laid_out(self, x, margin):
        """Return the batch on the device, images in the order that they are worked on and with `margin` zeros around them.

        Where that takes a copy, it is a buffer that is kept from batch to batch.
        """
        pixels = torch.from_numpy(x).to(self.device)
        last = self._last(x)
        if not (last or margin):
            return pixels
        batch, channels, height, width = pixels.shape
        tall, wide = height + 2 * margin, width + 2 * margin
        shape = (batch, tall, wide, channels) if last else (batch, channels, tall, wide)
        if shape not in self._kept:
            self._kept = {shape: torch.zeros(shape, dtype=pixels.dtype, device=self.device)}
        kept = self._kept[shape]
        images = (kept.permute(0, 3, 1, 2) if last else kept)[:, :, margin : margin + height, margin : margin + width]
        # A channel at a time: one copy of all has the channels in its inner loop, which takes twice as long.
        for target, source in zip(images.unbind(1), pixels.unbind(1)) if last else [(images, pixels)]:
            target.copy_(source)
        return kept

    def _cropped(self, padded, x, top, left):
        """Return what is seen of the padded images of the batch x, from row `top` and column `left` on."""
        batch, channels, height, width = x.shape
        planes, numbers = (1, channels) if self._last(x) else (channels, 1)
        # A cropped row is a run of numbers of the padded images laid out flat: whole rows are copied.
        first_row = np.arange(batch * planes).reshape(batch, planes, 1) * (height + 2 * PAD) + np.arange(height)
        starts = ((first_row + top[:, None, None]) * (width + 2 * PAD) + left[:, None, None]) * numbers
        windows = padded.view(-1).unfold(0, width * numbers, 1)
        rows = torch.index_select(windows, 0, torch.from_numpy(starts.reshape(-1)).to(self.device))
        return rows.view((batch, height, width, channels) if self._last(x) else x.shape)

    def _normalised(self, pixels, last):
        if self._plain and pixels.dim() == 2:
            return pixels.to(self.dtype, copy=True)
        factor, offset = self._spread(pixels.shape[1:], last)
        # A copy first, in place then: `pixels` may share the memory of the shard.
        values = pixels.to(self.dtype, copy=True).mul_(factor).add_(offset)
        if values.dim() == 4:
            return (values.permute(0, 3, 1, 2) if last else values).contiguous(memory_format=self.memory_format)
        return values

    def _spread(self, shape, last):
        """Return factor and offset as they are broadcast over a batch of samples of `shape`."""
        if not last:
            return [number.view((-1, 1, 1) if len(shape) == 3 else (-1,)) for number in (self._factor, self._offset)]
        if shape not in self._scales:
            # A number a pixel and channel, so that the inner loop does not end after one pixel.
            self._scales[shape] = [number.repeat(shape[0] * shape[1]).view(shape) for number in (self._factor, self._offset)]
        return self._scales[shape]


def sides(seed, ids, number):
    """Return which of the samples `ids`, int64 (B,), are mirrored in pass `number`: in every other pass the other ones.

    In pass 0 it is a bit of (seed, id), by the finaliser of SplitMix64 (Steele, Lea, Flood, Fast splittable pseudorandom
    number generators, 2014), whichever vertex holds the sample.
    """
    z = ids.astype(np.uint64) + np.uint64(generator(seed, "sides").integers(0, 2**64, dtype=np.uint64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return ((z ^ (z >> np.uint64(31))) & np.uint64(1)) == np.uint64(number % 2)
