"""``nn.Conv2d``, stacked: a matrix product over patches.

Library convolutions choose their algorithm, and so their rounding, by the number of images; the patches of each
image are written out instead (channels innermost, so that whole rows of a patch are copied at once), and each
client's are multiplied by its own kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.client.stacked.alignment import aligned_copy
from fedsafe.client.stacked.layers.base import Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import matrix_product
from fedsafe.client.stacked.layers.linear import product


@dataclass(frozen=True, kw_only=True)
class _Window:
    """How a kernel moves over an image; every pair is (down, across)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    def places(self, height: int, width: int) -> tuple[int, int]:
        """How many places the kernel has on an image that is padded already."""
        down, across = (
            (length - dilation * (size - 1) - 1) // stride + 1
            for length, size, stride, dilation in zip(
                (height, width), self.size, self.stride, self.dilation, strict=True
            )
        )
        return down, across


def _window(template: nn.Conv2d) -> _Window:
    size, dilation = _pair(template.kernel_size), _pair(template.dilation)
    reach = tuple(d * (s - 1) for d, s in zip(dilation, size, strict=True))
    if template.padding == "same":
        before = (reach[0] // 2, reach[1] // 2)
        after = (reach[0] - before[0], reach[1] - before[1])
    else:
        before = after = (0, 0) if template.padding == "valid" else _pair(template.padding)  # type: ignore[arg-type]
    return _Window(size=size, stride=_pair(template.stride), dilation=dilation, before=before, after=after)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    down, across = values
    return down, across


class StackedConv2d(StackedLayer):
    """``nn.Conv2d`` without groups, with its own kernels for each client."""

    def __init__(self, template: nn.Conv2d, slots: Slots) -> None:
        super().__init__(template, slots)
        self._window = _window(template)
        self._kernel = slots.view("weight", *template.weight.shape)
        self._bias = slots.view("bias", 1, template.out_channels) if "bias" in slots.columns else None

    @staticmethod
    def unsupported(template: nn.Conv2d) -> str | None:
        """Groups, and padding with something else than zeros."""
        if template.groups != 1:
            return f"groups = {template.groups}"
        return None if template.padding_mode == "zeros" else f"padding_mode = {template.padding_mode!r}"

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, inputs, height, width)`` to ``(clients * batch, outputs, down, across)``."""
        window = self._window
        padded = F.pad(x, (window.before[1], window.after[1], window.before[0], window.after[0]))
        places = window.places(*padded.shape[2:])
        patches: Tensor = _Patches.apply(padded, window)  # type: ignore[no-untyped-call]
        inputs = patches.view(self.slots.clients, -1, patches.shape[2])
        weight = aligned_copy(self._kernel.permute(0, 1, 3, 4, 2)).flatten(2)
        output = self.slots.tap(self, inputs, product(inputs, weight, self._bias))
        images = output.view(len(x), *places, -1).permute(0, 3, 1, 2)
        return images if self.slots.channels_last else images.contiguous()

    def contribution(self, inputs: Tensor, gradients: Tensor, batch: int) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        return matrix_product(inputs, gradients, batch, biases=0 if self._bias is None else 1)

    def write(self, summed: Sequence[Tensor], sums: Tensor) -> None:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        kernel = summed[0].unflatten(2, (*self._window.size, -1)).permute(0, 1, 4, 2, 3)
        self.slots.write("weight", kernel, sums)
        if self._bias is not None:
            self.slots.write("bias", summed[1], sums)


class _Patches(torch.autograd.Function):
    """Padded images ``(n, channels, height, width)`` to ``(n, places, size * size * channels)``."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, window: _Window) -> Tensor:
        rows = padded.permute(0, 2, 3, 1).contiguous()
        count, height, width, channels = rows.shape
        ctx.window, ctx.shape = window, rows.shape
        n, y, x, c = rows.stride()
        (down, across), (s, t), (d, e) = window.places(height, width), window.stride, window.dilation
        patches = rows.as_strided(
            (count, down, across, *window.size, channels), (n, y * s, x * t, y * d, x * e, c)
        )
        return patches.reshape(count, down * across, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        window = ctx.window
        count, height, width, channels = ctx.shape
        (down, across), (s, t), (d, e) = window.places(height, width), window.stride, window.dilation
        parts = gradient.reshape(count, down, across, *window.size, channels)
        image = gradient.new_zeros(ctx.shape)
        for i in range(window.size[0]):
            for j in range(window.size[1]):
                y, x = i * d, j * e
                image[:, y : y + s * down : s, x : x + t * across : t].add_(parts[:, :, :, i, j])
        return image.permute(0, 3, 1, 2), None
