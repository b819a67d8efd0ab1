"""Convolutions of a client that is always alone: the library's.

The library chooses its algorithm, and so its rounding, by the number of images: a client that is alone has no
neighbours that this could let in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedsafe.client.stacked.layers.arrangements import Arranged, Unmeasured
from fedsafe.client.stacked.layers.base import Call, Contribution
from fedsafe.client.stacked.layers.contributions import Instantiated
from fedsafe.client.stacked.layers.conv_window import Window, innermost
from fedsafe.client.stacked.layers.conv_written import way_to_write


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """What the library needs to know, besides the numbers.

    Args:
        window: The kernel's.
        padding: Zeros on both sides of each dimension.
        groups: Of channels.
    """

    window: Window
    padding: tuple[int, ...]
    groups: int

    @property
    def settings(self) -> tuple[Any, ...]:
        """In the library's order: a convolution that is not transposed, without padding of its output."""
        w = self.window
        return (w.stride, self.padding, w.dilation, False, (0,) * len(self.padding), self.groups)

    def places(self, images: Tensor) -> tuple[int, ...]:
        """How many places the kernel has on images ``(n, groups * channels, *lengths)``."""
        return self.window.places(images.shape[2:], self.padding)

    def written_out(self, calls: Sequence[Call], bias: bool) -> Contribution:
        """Gradients for each example.

        Args:
            calls: Inputs ``(n, groups * channels, *lengths)``, gradients ``(1, n * places, outputs)``.
            bias: Whether there is one.

        Returns:
            One whose sums are those of the kernel ``(1, outputs, channels, *size)``, then of the bias
            ``(1, outputs)`` if there is one.
        """
        written: list[Tensor] = []
        for call in calls:
            channels, lengths = call.inputs.shape[1] // self.groups, tuple(call.inputs.shape[2:])
            shape = (self.padding, lengths, channels, self.groups)
            way = way_to_write(self.window, *shape, bias, len(calls) > 1)
            by_output = call.gradients.view(len(call.inputs), -1, call.gradients.shape[2])
            written.append(way.gradients(call.inputs, by_output))
        for part in written[1:]:
            written[0].add_(part)
        return Arranged(Instantiated(written[0].unsqueeze(0)), way.arranged)

    def summed_only(self, kernel: Tensor, calls: Sequence[Call], bias: bool) -> Contribution:
        """As :meth:`written_out`, by the library and without norms.

        Args:
            kernel: ``(outputs, channels, *size)``.
            calls: As there.
            bias: As there.
        """

        def sums(factors: Tensor) -> tuple[Tensor, ...]:
            parts = [self._summed(kernel, call, bias, factors[0]) for call in calls]
            return tuple(torch.stack(part).sum(0).unsqueeze(0) for part in zip(*parts, strict=True))

        return Unmeasured(sums)

    def _summed(self, kernel: Tensor, call: Call, bias: bool, factors: Tensor) -> list[Tensor]:
        inputs, gradients = call.inputs, call.gradients.view(len(call.inputs), -1, call.gradients.shape[2])
        used = factors != 0.0
        if not bool(used.any()):
            return [torch.zeros_like(kernel), *[kernel.new_zeros(len(kernel))] * bias]
        if not bool(used.all()):
            inputs, gradients, factors = inputs[used], gradients[used], factors[used]
        if not bool((factors == 1.0).all()):
            gradients = gradients * factors.view(-1, 1, 1)
        images = gradients.view(len(inputs), *self.places(inputs), -1).movedim(-1, 1)
        _, by_kernel, by_bias = torch.ops.aten.convolution_backward(
            images, innermost(inputs), innermost(kernel), [len(kernel)], *self.settings, (False, True, bias)
        )
        return [by_kernel, by_bias] if bias else [by_kernel]


class Library(torch.autograd.Function):
    """The library's convolution; the handle gets the gradient by place, channels innermost."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        handle: Tensor | None,
        convolution: Convolution,
    ) -> Tensor:
        """``(n, outputs, *places)``, channels innermost."""
        ctx.settings = convolution.settings
        # To change the images in place is an error from here on, not a wrong gradient.
        ctx.save_for_backward(images, kernel)
        return innermost(torch.convolution(images, kernel, bias, *ctx.settings))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, None]:
        """By the images, if anything needs that, and by the handle, if there is one."""
        images, kernel = ctx.saved_tensors
        gradient, by_images = innermost(gradient), None
        if ctx.needs_input_grad[0]:
            by_images, _, _ = torch.ops.aten.convolution_backward(
                gradient, images, kernel, None, *ctx.settings, (True, False, False)
            )
        rows = None
        if ctx.needs_input_grad[3]:
            rows = gradient.movedim(1, -1).reshape(1, -1, gradient.shape[1])
        return by_images, None, None, rows, None
