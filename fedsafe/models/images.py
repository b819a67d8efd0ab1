"""Convolutional networks, without batch statistics and without operations in place."""

import torch
from torch import Tensor, nn

from fedsafe.errors import ConfigError
from fedsafe.models.options import image, whole

# Smaller images leave the second pooling of the small network nothing.
_LEAST = 14


def cnn(*, inputs: tuple[int, ...], outputs: int, vocabulary: int | None = None) -> nn.Module:
    """The small network of DP-SGD's usual benchmark (Papernot et al. 2021; the MNIST example of Opacus).

    At ``(1, 28, 28)`` and ten classes it has 26,010 parameters.

    Args:
        inputs: ``(channels, height, width)``.
        outputs: Logits.
        vocabulary: Must be None.

    Raises:
        ConfigError: If the inputs are no images, or smaller than 14 x 14 pixels.
    """
    channels, *sides = image("cnn", inputs, vocabulary, least=_LEAST)
    down, across = (((side // 2 - 1) - 4) // 2 for side in sides)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 8, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(32 * down * across, 32),
        nn.ReLU(),
        nn.Linear(32, outputs),
    )


def resnet(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    vocabulary: int | None = None,
    width: int = 16,
    blocks: int = 2,
    groups: int = 4,
) -> nn.Module:
    """A small residual network (He et al. 2016) with group normalisation (Wu and He 2018).

    Args:
        inputs: ``(channels, height, width)``.
        outputs: Logits.
        vocabulary: Must be None.
        width: Channels of the first block.
        blocks: Residual blocks; each but the first halves the image and doubles the channels.
        groups: Of the normalisation; they divide the width.

    Raises:
        ConfigError: If the inputs are no images, or an option is no positive whole number or does not divide.
    """
    channels, *_ = image("resnet", inputs, vocabulary)
    width, blocks, groups = whole("width", width), whole("blocks", blocks), whole("groups", groups)
    if width % groups:
        raise ConfigError(f"model.groups = {groups} does not divide model.width = {width}: use a divisor.")
    widths = [width * 2**number for number in range(blocks)]
    body = [
        ResidualBlock(before, after, stride=1 if number == 0 else 2, groups=groups)
        for number, (before, after) in enumerate(zip([width, *widths], widths, strict=False))
    ]
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.GroupNorm(groups, width),
        nn.ReLU(),
        *body,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], outputs),
    )


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Of the first convolution and the shortcut.
        groups: Of the normalisations.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(groups, outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.GroupNorm(groups, outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs, height, width)`` to ``(n, outputs, down, across)``."""
        return torch.relu(self.body(x) + self.shortcut(x))
