"""A small CNN for the 8x8 digits.

conv 3x3 (C->16) - BN - ReLU - conv 3x3 (16->32) - BN - ReLU - max pool 2 - conv 3x3 (32->32) - BN - ReLU
dropout 0.25 - fc classes

The convolutions keep the image's size (padding 1) and have no bias, which batch normalisation would remove.
Parameters: 19,258 for 1x8x8 and 10 classes. Small on purpose, yet with batch statistics and dropout: what holds for
it bit by bit holds for larger models.
"""

from torch import nn


class DigitsCNN(nn.Sequential):
    """Map images (B, C, H, W) of at least 2 pixels a side to logits (B, classes)."""

    def __init__(self, shape, classes):
        channels, height, width = shape
        super().__init__(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(32 * (height // 2) * (width // 2), classes),
        )
