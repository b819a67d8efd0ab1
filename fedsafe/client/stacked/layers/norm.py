"""``nn.LayerNorm`` and ``nn.GroupNorm``, stacked: the normalisation is per example, the affine map per client."""

from collections.abc import Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import Instantiated, joined


class _Affine(StackedLayer):
    """``normal * weight + bias``, with a weight and a bias for each of the last dimension's values."""

    def __init__(self, template: nn.LayerNorm | nn.GroupNorm, slots: Slots) -> None:
        super().__init__(template, slots)
        width = template.weight.numel()
        self._weight = slots.view("weight", 1, width)
        self._bias = slots.view("bias", 1, width) if "bias" in slots.columns else None

    @staticmethod
    def unsupported(template: nn.Module) -> str | None:
        """Nothing."""
        return None

    def _map(self, normal: Tensor) -> Tensor:
        """``(clients, batch * positions, width)`` to the same."""
        output = normal * self._weight
        # Two operations: a fused one rounds differently at the end of a vector register.
        output = output if self._bias is None else output + self._bias
        return self.slots.tap(self, normal, output)

    def contribution(self, calls: Sequence[Call], batch: int) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        inputs, gradients = joined(calls, batch)
        shape = (len(inputs), batch, -1, inputs.shape[2])
        weight = (inputs * gradients).reshape(shape).sum(2)
        if self._bias is None:
            return Instantiated(weight)
        return Instantiated(weight, gradients.reshape(shape).sum(2))

    def write(self, summed: Sequence[Tensor], sums: Tensor) -> None:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        for name, values in zip(("weight", "bias"), summed, strict=False):
            self.slots.write(name, values, sums)


class StackedLayerNorm(_Affine):
    """``nn.LayerNorm`` with its own weight and bias for each client."""

    def __init__(self, template: nn.LayerNorm, slots: Slots) -> None:
        super().__init__(template, slots)
        self._shape, self._eps = template.normalized_shape, template.eps

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, ..., *normalized_shape)`` to the same."""
        normal = F.layer_norm(x, self._shape, eps=self._eps)
        return self._map(normal.reshape(self.slots.clients, -1, prod(self._shape))).view(x.shape)


class StackedGroupNorm(_Affine):
    """``nn.GroupNorm`` with its own weight and bias for each client."""

    def __init__(self, template: nn.GroupNorm, slots: Slots) -> None:
        super().__init__(template, slots)
        self._groups, self._eps = template.num_groups, template.eps

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, channels, ...)`` to the same."""
        normal = F.group_norm(x, self._groups, eps=self._eps).movedim(1, -1)
        output = self._map(normal.reshape(self.slots.clients, -1, x.shape[1]))
        images = output.view(normal.shape).movedim(-1, 1)
        return images if self.slots.channels_last else images.contiguous()
