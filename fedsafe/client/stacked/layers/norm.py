"""Layer, RMS and group norms, stacked: the normalisation is per example, the affine map per client."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
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
        rows = x.reshape(self.slots.clients, -1, self._weight.shape[2])
        handle = self.slots.handle(rows, rows.shape[0] * rows.shape[1], rows.shape[2])
        output, normal = _LayerNorm.apply(rows, self._weight, self._bias, handle, self._eps)  # type: ignore[no-untyped-call]
        if handle is not None:
            self.slots.note(self, normal, handle)
        mapped: Tensor = output.view(x.shape)
        return mapped


class _LayerNorm(torch.autograd.Function):
    """A layer norm and its affine map in one step, with what a tap needs: the normal values."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, handle: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        width = x.shape[2]
        if x.dtype in (torch.float32, torch.float64):
            # As exact as the library's own, which takes twice as long for rows this short.
            mean = x.mean(2, keepdim=True)
            normal = x - mean
            lengths = torch.linalg.vector_norm(normal, dim=2, keepdim=True)
            scale = lengths.square_().div_(width).add_(eps).rsqrt_()
            normal.mul_(scale)
        else:
            normal, mean, scale = torch.native_layer_norm(x, (width,), None, None, eps)
        output = normal * weight
        # Two operations: a fused one rounds differently at the end of a vector register.
        if bias is not None:
            output.add_(bias)
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.mark_non_differentiable(normal)
        return output, normal

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        by_x = None
        if ctx.needs_input_grad[0]:
            wanted = [True, False, False]
            by_x, _, _ = torch.ops.aten.native_layer_norm_backward(
                gradient * weight, x, (x.shape[2],), mean, scale, None, None, wanted
            )
        return by_x, None, None, gradient if ctx.needs_input_grad[3] else None, None


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
