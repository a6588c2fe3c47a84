"""From stored samples to what a model sees: crop, flip and normalisation, batched, on the training device.

Array legend: B batch, C channels, H and W height and width, p features.
"""

import numpy as np
import torch

from mpiconsensus.errors import require_choice
from mpiconsensus.randomness import generator

KINDS = ("none", "crop", "flip", "crop-flip")
PAD = 4


class Augment:
    """Turn batches of one data set into tensors of `dtype`: (x * scale - mean) / std, augmented for training.

    `kind` is one of KINDS; crops and flips need images. `mean` and `std` hold one number a channel or feature,
    in units of x * scale. `memory_format` is torch.contiguous_format or torch.channels_last (images only).
    Raise UserError for another kind.
    """

    def __init__(self, kind, mean, std, scale, dtype, memory_format=torch.contiguous_format, seed=0, device="cpu"):
        require_choice("data.augment", kind, KINDS)
        self.crop, self.flip = "crop" in kind, "flip" in kind
        self.dtype, self.memory_format = dtype, memory_format
        self.seed, self.device = seed, torch.device(device)
        mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        # One multiplication and one addition: x * (scale / std) - mean / std.
        self._factor = torch.as_tensor(scale / std, dtype=dtype, device=self.device)
        self._offset = torch.as_tensor(-mean / std, dtype=dtype, device=self.device)
        self._padded = None

    def train(self, x, vertex, count):
        """Return a fresh tensor of the batch x, numpy uint8 (B, C, H, W) or float32 (B, p), augmented.

        The numbers come from (seed, 'augment', vertex, count) in this order: B tops and B lefts of the crops
        in 0..8, within the image padded by 4 zero pixels; B flips in 0..1.
        """
        pixels = torch.from_numpy(x)
        random = generator(self.seed, "augment", vertex, count)
        if self.crop:
            top, left = random.integers(0, 2 * PAD + 1, (2, len(x)))
            pixels = self._cropped(pixels, top, left)
        pixels = pixels.to(self.device)
        if self.flip:
            flips = torch.from_numpy(random.integers(0, 2, len(x)) == 1).to(self.device)
            pixels = torch.where(flips[:, None, None, None], pixels.flip(3), pixels)
        return self._normalised(pixels)

    def evaluate(self, x):
        """Return a fresh tensor of the batch x, numpy uint8 (B, C, H, W) or float32 (B, p), not augmented."""
        return self._normalised(torch.from_numpy(x).to(self.device))

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
        per_channel = (-1, 1, 1) if pixels.dim() == 4 else (-1,)
        values = pixels.to(self.dtype) if pixels.is_floating_point() else pixels
        # Out of place: `values` may share the memory of the shard.
        result = (values * self._factor.view(per_channel)).add_(self._offset.view(per_channel))
        return result.contiguous(memory_format=self.memory_format) if pixels.dim() == 4 else result
