"""Residual networks for CIFAR, of depth 6 m + 2.

y = ReLU(F(x) + s(x)),  F = conv 3x3 - BN - ReLU - conv 3x3 - BN

A 3x3 convolution to 16 channels, then three stages of m blocks with 16, 32 and 64 channels; the first block of the
second and third stage halves the image. Global average pooling and one fc layer end it.
The shortcut s is the paper's option A and has no parameters: the identity, and where a block changes the shape, every
second pixel with zero channels appended. Convolutions start from N(0, 2 / (9 * output channels)) and have no bias.

Parameters for 3x32x32 and 10 classes: 269,722 (20), 464,154 (32), 658,586 (44), 853,018 (56), 1,727,962 (110).
Reference: He, Zhang, Ren, Sun, Deep residual learning for image recognition, CVPR 2016 (arXiv 1512.03385),
section 4.2 and table 6.
"""

from torch import nn
from torch.nn.functional import pad

# Depth -> millions of parameters, as in table 6 of the paper.
DEPTHS = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7"}


class OptionA(nn.Module):
    """Shortcut without parameters: (B, C, H, W) to (B, C + extra, ceil(H/2), ceil(W/2))."""

    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def forward(self, x):
        return pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.extra))


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; more channels out than in halve the image."""

    def __init__(self, channels, wider):
        super().__init__()
        extra = wider - channels
        self.conv1 = nn.Conv2d(channels, wider, 3, stride=2 if extra else 1, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wider)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = OptionA(extra) if extra else nn.Identity()

    def forward(self, x):
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu(y + self.shortcut(x))


class CifarResNet(nn.Sequential):
    """Map images (B, C, H, W) to logits (B, classes); `depth` is 6 m + 2."""

    def __init__(self, shape, classes, depth):
        blocks = (depth - 2) // 6
        layers = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
        channels = 16
        for wider in (16, 32, 64):
            for _ in range(blocks):
                layers.append(Block(channels, wider))
                channels = wider
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
