"""Histograms of oriented gradients: public features of images, and a linear model on them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.errors import ConfigError
from fedsafe.models.fixed import FixedFeatures
from fedsafe.models.options import image, whole

# Keeps the contrast of an empty neighbourhood from being blown up; for images with values in [0, 1].
_FLOOR = 0.02


class HistogramOfGradients(nn.Module):
    """Histograms of oriented gradients (Dalal and Triggs 2005), from public constants alone.

    Central differences, in the channel where they are largest; their parts along each of several directions of the
    full circle, those against it set to zero; means over overlapping cells; each divided by the contrast of the 3 x 3
    cells around it; less their mean over the image, which tells nothing; the whole scaled to one length. That length
    bounds the gradient of a linear layer on it, which is what clipping needs (Tramer and Boneh 2021).

    Args:
        orientations: How many directions.
        cell: Side of a cell in pixels; cells are half a side apart, and overlap the border by a quarter.
        scale: Length of the vector of features.
    """

    directions: Tensor

    def __init__(self, *, orientations: int = 8, cell: int = 8, scale: float = 1.0) -> None:
        super().__init__()
        angles = torch.arange(orientations) * (2.0 * math.pi / orientations)
        self.register_buffer("directions", torch.stack([angles.sin(), angles.cos()], 1), persistent=False)
        self._cell, self._scale = cell, scale

    def features(self, height: int, width: int) -> int:
        """How many features an image of this size has."""
        down, across = (
            (side + 2 * (self._cell // 4) - self._cell) // (self._cell // 2) + 1 for side in (height, width)
        )
        return len(self.directions) * down * across

    def forward(self, x: Tensor) -> Tensor:
        """``(n, channels, height, width)`` to ``(n, features)``, each row ``scale`` long (an even image: zero)."""
        around = F.pad(x, (1, 1, 1, 1), mode="replicate")
        slopes = torch.stack(
            [
                around[:, :, 2:, 1:-1] - around[:, :, :-2, 1:-1],
                around[:, :, 1:-1, 2:] - around[:, :, 1:-1, :-2],
            ],
            2,
        )
        if slopes.shape[1] > 1:
            steepest = slopes.square().sum(2, keepdim=True).argmax(1, keepdim=True)
            slopes = slopes.gather(1, steepest.expand(-1, 1, 2, -1, -1))
        parts = torch.einsum("od,ndhw->nohw", self.directions, slopes[:, 0]).relu()
        cells = F.avg_pool2d(parts, self._cell, self._cell // 2, self._cell // 4)
        energy = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1, count_include_pad=False)
        # The floor is under the root, so that an even image has a gradient, for attacks.
        contrast = (cells / (energy + _FLOOR**2).sqrt()).flatten(1)
        return self._scale * F.normalize(contrast - contrast.mean(1, keepdim=True), dim=1)


def hog_linear(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    vocabulary: int | None = None,
    orientations: int = 8,
    cell: int = 8,
    scale: float = 1.0,
    bias: bool = False,
) -> nn.Module:
    """One linear layer on histograms of oriented gradients: 392 public features at ``(1, 28, 28)``.

    Args:
        inputs: ``(channels, height, width)``.
        outputs: Logits.
        vocabulary: Must be None.
        orientations: How many directions.
        cell: Side of a cell in pixels.
        scale: Length of the vector of features.
        bias: Whether the layer has one. Where classes are about as frequent it learns nothing, and takes half of
            each clipped gradient.

    Raises:
        ConfigError: If the inputs are no images or smaller than a cell, or an option is out of its range.
    """
    whole("orientations", orientations, least=2)
    if whole("cell", cell, least=4) % 4:
        raise ConfigError(f"model.cell = {cell} pixels cannot be quartered: use a multiple of 4.")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0.0 < scale < math.inf:
        raise ConfigError(f"model.scale = {scale!r} is not a positive number.")
    if not isinstance(bias, bool):
        raise ConfigError(f"model.bias = {bias!r} is neither true nor false.")
    _, height, width = image("hog_linear", inputs, vocabulary, least=cell // 2)
    fixed = HistogramOfGradients(orientations=orientations, cell=cell, scale=float(scale))
    return FixedFeatures(fixed, nn.Linear(fixed.features(height, width), outputs, bias=bias))
