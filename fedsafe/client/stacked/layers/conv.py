"""``nn.Conv2d``, stacked: a matrix product over patches.

Library convolutions choose their algorithm, and so their rounding, by the number of images. In a stack the patches of
each image are written out instead (channels innermost, so that whole rows of a patch are copied at once), and each
client's are multiplied by its own kernel. A client that is always alone has no neighbours to depend on: it takes the
library's convolution, which is faster, and patches only for its gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.client.stacked.alignment import aligned_copy
from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import (
    Instantiated,
    bias_gradients,
    instantiates,
    joined,
    matrix_product,
)
from fedsafe.client.stacked.layers.linear import product

# Values of patches that are multiplied at once: what stays in the cache is twice as fast.
_PATCH_VALUES = 2**19


@dataclass(frozen=True, kw_only=True)
class _Window:
    """How a kernel moves over an image; every pair is (down, across)."""

    size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]

    def pad(self, images: Tensor) -> Tensor:
        """Images with zeros around them."""
        if not any(self.before + self.after):
            return images
        return F.pad(images, (self.before[1], self.after[1], self.before[0], self.after[0]))

    def places(self, height: int, width: int) -> tuple[int, int]:
        """How many places the kernel has on an image that is padded already."""
        down, across = (
            (length - dilation * (size - 1) - 1) // stride + 1
            for length, size, stride, dilation in zip(
                (height, width), self.size, self.stride, self.dilation, strict=True
            )
        )
        return down, across

    def patches(self, padded: Tensor) -> Tensor:
        """``(n, channels, height, width)`` padded images to ``(n, places, size * size * channels)``."""
        rows = padded.permute(0, 2, 3, 1).contiguous()
        count, height, width, channels = rows.shape
        n, y, x, c = rows.stride()
        (down, across), (s, t), (d, e) = self.places(height, width), self.stride, self.dilation
        patches = rows.as_strided(
            (count, down, across, *self.size, channels), (n, y * s, x * t, y * d, x * e, c)
        )
        return patches.reshape(count, down * across, -1)


def _window(template: nn.Conv2d) -> _Window:
    size, dilation = _pair(template.kernel_size), _pair(template.dilation)
    if template.padding == "same":
        reach = [d * (s - 1) for d, s in zip(dilation, size, strict=True)]
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
        symmetric = self._window.before == self._window.after
        # The library pads both sides alike; anything else is padded before.
        self._own = self._window if symmetric else replace(self._window, before=(0, 0), after=(0, 0))
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
        images = self._alone(x) if self.slots.clients == 1 else self._together(x)
        return images if self.slots.channels_last else images.contiguous()

    def _together(self, x: Tensor) -> Tensor:
        padded = self._window.pad(x)
        patches: Tensor = _Patches.apply(padded, self._window)  # type: ignore[no-untyped-call]
        inputs = patches.view(self.slots.clients, -1, patches.shape[2])
        weight = aligned_copy(self._kernel.permute(0, 1, 3, 4, 2)).flatten(2)
        output = self.slots.tap(self, inputs, product(inputs, weight, self._bias))
        places = self._window.places(*padded.shape[2:])
        return output.view(len(x), *places, -1).permute(0, 3, 1, 2)

    def _alone(self, x: Tensor) -> Tensor:
        if self._own is not self._window:
            x = self._window.pad(x)
        x = x.contiguous(memory_format=torch.channels_last)
        down, across = self._own.places(
            *(length + 2 * edge for length, edge in zip(x.shape[2:], self._own.before, strict=True))
        )
        handle = self.slots.handle(x, len(x) * down * across, self._kernel.shape[1])
        bias = None if self._bias is None else self._bias[0, 0]
        images: Tensor = _Library.apply(x, self._kernel[0], bias, handle, self._own)  # type: ignore[no-untyped-call]
        if handle is not None:
            self.slots.note(self, x, handle)
        return images

    def contribution(self, calls: Sequence[Call], batch: int) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        biases = 0 if self._bias is None else 1
        if self.slots.clients > 1:
            return matrix_product(*joined(calls, batch), batch, biases=biases)
        positions = sum(call.gradients.shape[1] for call in calls) // batch
        outputs, width = self._kernel.shape[1], self._kernel[0, 0].numel()
        if not instantiates(positions, width, outputs):
            inputs, gradients = self._rows(calls, batch, slice(batch))
            return matrix_product(
                inputs.flatten(0, 1).unsqueeze(0), gradients.flatten(0, 1).unsqueeze(0), batch, biases=biases
            )
        most = max(1, _PATCH_VALUES // (positions * width))
        weight = self._kernel.new_empty(batch, outputs, width)
        bias = self._kernel.new_empty(batch, outputs)
        for first in range(0, batch, most):
            some = slice(first, first + most)
            inputs, gradients = self._rows(calls, batch, some)
            torch.bmm(gradients.transpose(1, 2), inputs, out=weight[some])
            if biases:
                bias[some] = bias_gradients(gradients)
        return Instantiated(*[part.unsqueeze(0) for part in (weight, bias)[: 1 + biases]])

    def _rows(self, calls: Sequence[Call], batch: int, some: slice) -> tuple[Tensor, Tensor]:
        """Patches and gradients ``(examples, positions, values)`` of some examples of a client that is alone."""
        pairs = [
            (
                self._own.patches(self._own.pad(call.inputs[some])),
                call.gradients[0].view(batch, -1, call.gradients.shape[2])[some],
            )
            for call in calls
        ]
        if len(pairs) == 1:
            return pairs[0]
        inputs, gradients = (torch.cat(side, 1) for side in zip(*pairs, strict=True))
        return inputs, gradients

    def write(self, summed: Sequence[Tensor], sums: Tensor) -> None:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        by_patch = summed[0].view(*summed[0].shape[:2], *self._window.size, -1)
        kernel = by_patch.permute(0, 1, 4, 2, 3)
        self.slots.write("weight", kernel, sums)
        if self._bias is not None:
            self.slots.write("bias", summed[1], sums)


class _Patches(torch.autograd.Function):
    """Padded images to the patches of a window."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, window: _Window) -> Tensor:
        ctx.window, ctx.shape = window, padded.shape
        return window.patches(padded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        window = ctx.window
        count, channels, height, width = ctx.shape
        (down, across), (s, t), (d, e) = window.places(height, width), window.stride, window.dilation
        parts = gradient.reshape(count, down, across, *window.size, channels)
        image = gradient.new_zeros(count, height, width, channels)
        for i in range(window.size[0]):
            for j in range(window.size[1]):
                y, x = i * d, j * e
                image[:, y : y + s * down : s, x : x + t * across : t].add_(parts[:, :, :, i, j])
        return image.permute(0, 3, 1, 2), None


class _Library(torch.autograd.Function):
    """The library's convolution; the handle gets the gradient by place, channels innermost."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, kernel: Tensor, bias: Tensor | None, handle: Tensor | None, window: _Window
    ) -> Tensor:
        ctx.window = window
        # To change the images in place is an error from here on, not a wrong gradient.
        ctx.save_for_backward(images, kernel)
        outputs = torch.conv2d(images, kernel, bias, window.stride, window.before, window.dilation)
        return outputs.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, None]:
        images, kernel = ctx.saved_tensors
        window, by_images = ctx.window, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[0]:
            settings = (window.stride, window.before, window.dilation, False, (0, 0), 1)
            by_images, _, _ = torch.ops.aten.convolution_backward(
                gradient, images, kernel, None, *settings, (True, False, False)
            )
        rows = gradient.permute(0, 2, 3, 1).reshape(1, -1, gradient.shape[1])
        return by_images, None, None, rows, None
