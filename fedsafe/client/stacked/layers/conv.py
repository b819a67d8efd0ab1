"""``nn.Conv1d``, ``nn.Conv2d`` and ``nn.Conv3d``, stacked: a matrix product over patches.

Library convolutions choose their algorithm, and so their rounding, by the number of images. In a stack the patches of
each image are written out instead, and each client's are multiplied by its own kernel. A client that is always alone
takes the library's convolution, which is faster (``conv_alone.py``). Groups of channels are as further clients.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.alignment import aligned_copy
from fedsafe.client.stacked.layers.arrangements import Arranged, Grouped
from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import instantiates, joined, matrix_product
from fedsafe.client.stacked.layers.conv_alone import Convolution, Library
from fedsafe.client.stacked.layers.conv_window import Patches, innermost, padded, window_of
from fedsafe.client.stacked.layers.intervals import absolute, signed
from fedsafe.client.stacked.layers.linear import product

# What the layers call their way of padding, and what the library calls it.
_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}

AnyConv = nn.Conv1d | nn.Conv2d | nn.Conv3d


class StackedConv(StackedLayer):
    """A convolution of one, two or three dimensions with its own kernels for each client."""

    def __init__(self, template: AnyConv, slots: Slots) -> None:
        super().__init__(template, slots)
        # A sequence is an image one row high.
        self._raised = 1 if isinstance(template, nn.Conv1d) else 0
        self._window = window_of(template)
        self._groups = template.groups
        self._mode = _MODES[template.padding_mode]
        outputs, channels = template.weight.shape[:2]
        self._kernel = slots.view("weight", outputs, channels, *self._window.size)
        self._bias = (
            slots.view("bias", self._groups, 1, outputs // self._groups) if slots.has("bias") else None
        )
        before, after = self._padding(template)
        # The library pads with zeros, both sides alike; anything else is padded before.
        inside = before if self._mode == "constant" and before == after else (0,) * len(before)
        self._convolution = Convolution(window=self._window, padding=inside, groups=self._groups)
        self._before, self._after = before, after

    def _padding(self, template: AnyConv) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if template.padding == "same":
            before = tuple((reach - 1) // 2 for reach in self._window.reach)
            return before, tuple(r - 1 - b for r, b in zip(self._window.reach, before, strict=True))
        own = (0,) * len(template.kernel_size) if template.padding == "valid" else template.padding
        before = (*(0,) * self._raised, *cast("tuple[int, ...]", own))
        return before, before

    @staticmethod
    def unsupported(template: AnyConv) -> str | None:
        """Nothing."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, inputs, *lengths)`` to ``(clients * batch, outputs, *places)``."""
        images = x.unsqueeze(2) if self._raised else x
        images = self._alone(images) if self.slots.clients == 1 else self._together(images)
        if not self.slots.channels_last:
            images = images.contiguous()
        return images.squeeze(2) if self._raised else images

    def _together(self, x: Tensor) -> Tensor:
        clients, groups = self.slots.clients, self._groups
        x = padded(x, self._before, self._after, self._mode)
        inputs: Tensor = Patches.apply(x, self._window, clients, groups)  # type: ignore[no-untyped-call]
        by_group = torch.unflatten(self._kernel, 1, (groups, -1)).movedim(3, -1)
        weight = aligned_copy(by_group.flatten(0, 1)).flatten(2)
        bias = None if self._bias is None else self._bias.reshape(clients * groups, 1, -1)
        output = product(inputs, weight, bias)
        if groups == 1:
            output = self.slots.tap(self, inputs, output)
        else:
            output = self.slots.tap(self, inputs, output.view(clients, -1, output.shape[2]))
            output = torch.unflatten(output, 1, (groups, -1)).transpose(1, 2).flatten(2)
        places = self._window.places(x.shape[2:])
        return output.reshape(len(x), *places, -1).movedim(-1, 1)

    def _alone(self, x: Tensor) -> Tensor:
        convolution = self._convolution
        if not any(convolution.padding):
            x = padded(x, self._before, self._after, self._mode)
        x = innermost(x)
        kernel = innermost(self._kernel[0])
        rows = len(x) * math.prod(convolution.places(x))
        handle = self.slots.handle(x, rows, len(kernel))
        bias = None if self._bias is None else self._bias[0].flatten()
        images: Tensor = Library.apply(x, kernel, bias, handle, convolution)  # type: ignore[no-untyped-call]
        if handle is not None:
            self.slots.note(self, x, handle)
        return images

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        return signed(self._contribution(calls, batch, norms), self)

    def magnitude(self, x: Tensor) -> Tensor:
        """``|W| x``, shaped as in :meth:`forward`."""
        outputs: Tensor = absolute(self, "_kernel", "_bias")(x)
        return outputs

    def _contribution(self, calls: Sequence[Call], batch: int, norms: bool) -> Contribution:
        bias = self._bias is not None
        if self.slots.clients == 1:
            if not norms:
                return self._convolution.summed_only(self._kernel[0], calls, bias)
            positions = sum(call.gradients.shape[1] for call in calls) // batch
            outputs, width = len(self._kernel[0]) // self._groups, self._kernel[0, 0].numel()
            if instantiates(positions, width, outputs):
                return self._convolution.written_out(calls, bias)
            calls = [self._by_patch(call) for call in calls]
        groups = self._groups
        by_group = [
            Call(call.inputs, call.gradients.reshape(len(call.inputs), -1, self._kernel.shape[1] // groups))
            for call in calls
        ]
        measured = matrix_product(*joined(by_group, batch), batch, biases=int(bias), norms=norms)
        return Arranged(Grouped(measured, groups) if groups > 1 else measured, self._arranged)

    def _by_patch(self, call: Call) -> Call:
        """A call of a client that is alone, as those of a stack are: by group, in patches."""
        edges, groups = self._convolution.padding, self._groups
        images = padded(call.inputs, edges, edges)
        patches = self._window.patches(images, self._window.places(images.shape[2:]), 1, groups)
        rows = torch.unflatten(call.gradients[0], 1, (groups, -1)).transpose(0, 1)
        return Call(patches, rows)

    def _arranged(self, summed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        weight, *bias = summed
        return (torch.unflatten(weight, 2, (*self._window.size, -1)).movedim(-1, 2), *bias)
