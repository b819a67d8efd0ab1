"""``nn.ConvTranspose1d``, ``2d`` and ``3d``, stacked: a matrix product by position, whose patches are folded.

The gradient of the kernel is that of the product, and so is its tap; the bias, which is added to the folded images, has
another.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.alignment import aligned_copy
from fedsafe.client.stacked.layers.arrangements import Arranged, Grouped, Several
from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import (
    Instantiated,
    bias_gradients,
    joined,
    matrix_product,
)
from fedsafe.client.stacked.layers.conv_window import Folded, window_of
from fedsafe.client.stacked.layers.linear import product

AnyConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


class StackedConvTranspose(StackedLayer):
    """A transposed convolution of one, two or three dimensions with its own kernels for each client."""

    def __init__(self, template: AnyConvTranspose, slots: Slots) -> None:
        super().__init__(template, slots)
        # A sequence is an image one row high.
        self._raised = isinstance(template, nn.ConvTranspose1d)
        none = (0,) * self._raised
        self._window = window_of(template)
        self._padding = (*none, *cast("tuple[int, ...]", template.padding))
        self._beyond = (*none, *template.output_padding)
        self._groups, (inputs, outputs) = template.groups, template.weight.shape[:2]
        self._kernel = slots.view("weight", self._groups, inputs // self._groups, outputs, *self._window.size)
        self._bias = slots.view("bias", 1, template.out_channels) if slots.has("bias") else None

    @staticmethod
    def unsupported(template: AnyConvTranspose) -> str | None:
        """Nothing."""
        return None

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """``(clients * batch, inputs, *places)`` to ``(clients * batch, outputs, *lengths)``."""
        clients, groups, window = self.slots.clients, self._groups, self._window
        images = x.unsqueeze(2) if self._raised else x
        places = tuple(images.shape[2:])
        smallest = [
            (p - 1) * s + reach - 2 * edge
            for p, s, reach, edge in zip(places, window.stride, window.reach, self._padding, strict=True)
        ]
        lengths = [n + more for n, more in zip(smallest, self._beyond, strict=True)]
        if output_size is not None:
            lengths[self._raised :] = self._wanted(output_size, smallest[self._raised :])
        rows = (
            torch.unflatten(torch.unflatten(images, 0, (clients, -1)), 2, (groups, -1))
            .transpose(1, 2)
            .movedim(3, -1)
        )
        inputs = rows.reshape(clients * groups, -1, rows.shape[-1])
        by_group = self._kernel.movedim(3, -1).movedim(2, -1).flatten(0, 1)
        weight = aligned_copy(by_group).flatten(1, -2)
        patches = product(inputs, weight, None)
        if groups > 1:
            patches = patches.view(clients, -1, patches.shape[2])
        patches = self.slots.tap(self, inputs, patches).view(clients * groups, -1, patches.shape[2])
        shape = (len(x), groups * self._kernel.shape[3], *lengths)
        folded: Tensor = Folded.apply(patches, window, clients, shape, places, self._padding)  # type: ignore[no-untyped-call]
        if self._bias is not None:
            summed = folded.movedim(1, -1).reshape(clients, -1, shape[1]) + self._bias
            summed = self.slots.tap(self, summed.detach()[:, :, :0], summed)
            folded = summed.view(len(x), *lengths, shape[1]).movedim(-1, 1)
        if not self.slots.channels_last:
            folded = folded.contiguous()
        return folded.squeeze(2) if self._raised else folded

    def _wanted(self, output_size: Sequence[int], smallest: Sequence[int]) -> Sequence[int]:
        lengths = list(output_size)[-len(smallest) :]
        strides = self._window.stride[self._raised :]
        if not all(n <= wanted < n + s for wanted, n, s in zip(lengths, smallest, strides, strict=True)):
            raise ValueError(
                f"output_size {lengths} of {type(self).__name__}: give at least {list(smallest)}, "
                f"and in each dimension less than its stride {list(strides)} more"
            )
        return lengths

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        step = 1 if self._bias is None else 2
        products = [
            Call(call.inputs, call.gradients.reshape(len(call.inputs), -1, call.gradients.shape[2]))
            for call in calls[::step]
        ]
        measured = matrix_product(*joined(products, batch), batch, biases=0, norms=norms)
        kernel = Arranged(Grouped(measured, self._groups) if self._groups > 1 else measured, self._arranged)
        if self._bias is None:
            return kernel
        _, by_output = joined(calls[1::step], batch)
        by_example = by_output.reshape(self.slots.clients * batch, -1, by_output.shape[2])
        bias = bias_gradients(by_example).reshape(self.slots.clients, batch, -1)
        return Several(kernel, Instantiated(bias))

    def _arranged(self, summed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        size, groups = self._window.size, self._groups
        # (rows, groups * size * outputs, inputs)
        by_group = torch.unflatten(summed[0], 1, (groups, math.prod(size), -1))
        return (torch.unflatten(by_group.permute(0, 1, 4, 3, 2), 4, size),)
