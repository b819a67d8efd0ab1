"""Layer, RMS and group norms, stacked: the normalisation is per example, the affine map per client."""

from collections.abc import Sequence
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import Instantiated, joined


class _Affine(StackedLayer):
    """``normal * weight + bias``, with a weight and a bias for each of the last dimension's values."""

    def __init__(self, template: nn.LayerNorm | nn.RMSNorm | nn.GroupNorm, slots: Slots) -> None:
        super().__init__(template, slots)
        width = template.weight.numel()
        self._weight = slots.view("weight", 1, width)
        self._bias = slots.view("bias", 1, width) if slots.has("bias") else None

    @staticmethod
    def unsupported(template: nn.Module) -> str | None:
        """Nothing."""
        return None

    def _map(self, normal: Tensor) -> Tensor:
        """``(clients, batch * positions, width)`` to the same."""
        output = normal * self._weight
        # Two operations: a fused one rounds differently at the end of a vector register.
        output = output if self._bias is None else output.add_(self._bias)
        return self.slots.tap(self, normal, output)

    def _over_last(self, normal: Tensor, dimensions: int) -> Tensor:
        """The map over so many last dimensions together."""
        width = prod(normal.shape[normal.ndim - dimensions :])
        return self._map(normal.reshape(self.slots.clients, -1, width)).view(normal.shape)

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        inputs, gradients = joined(calls, batch)
        shape = (len(inputs), batch, -1, inputs.shape[2])
        weight = (inputs * gradients).reshape(shape).sum(2)
        if self._bias is None:
            return Instantiated(weight)
        return Instantiated(weight, gradients.reshape(shape).sum(2))


class StackedLayerNorm(_Affine):
    """``nn.LayerNorm`` with its own weight and bias for each client."""

    examples_in = None

    def __init__(self, template: nn.LayerNorm, slots: Slots) -> None:
        super().__init__(template, slots)
        self._shape, self._eps = template.normalized_shape, template.eps

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, ..., *normalized_shape)`` to the same."""
        return self._over_last(F.layer_norm(x, self._shape, eps=self._eps), len(self._shape))


class StackedRMSNorm(_Affine):
    """``nn.RMSNorm`` (Zhang and Sennrich 2019) with its own weight for each client."""

    examples_in = None

    def __init__(self, template: nn.RMSNorm, slots: Slots) -> None:
        super().__init__(template, slots)
        self._shape, self._eps = template.normalized_shape, template.eps

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, ..., *normalized_shape)`` to the same."""
        return self._over_last(F.rms_norm(x, self._shape, eps=self._eps), len(self._shape))


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
