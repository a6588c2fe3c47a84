"""The CNN of the thesis for Fashion-MNIST.

conv 3x3 (C->32), padding 1 - BN - ReLU - max pool 2
conv 3x3 (32->64), no padding - BN - ReLU - max pool 2
fc 600 - dropout 0.25 - fc 120 - fc classes

No nonlinearity stands between the fully connected layers: dropout and the gradient's path, not the set of functions,
are what the three have over a single one.
Parameters: 1,475,338 for 1x28x28 and 10 classes, where 64 x 6 x 6 = 2304 numbers enter the first fc layer.
"""

from torch import nn


class FashionCNN(nn.Sequential):
    """Map images (B, C, H, W) of at least 8 pixels a side to logits (B, classes)."""

    def __init__(self, shape, classes):
        channels, height, width = shape
        rows, columns = ((side // 2 - 2) // 2 for side in (height, width))
        super().__init__(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * rows * columns, 600),
            nn.Dropout(0.25),
            nn.Linear(600, 120),
            nn.Linear(120, classes),
        )
