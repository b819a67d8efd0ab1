"""``nn.Linear``, stacked; positions between the batch and the features are shared."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import joined, matrix_product


class StackedLinear(StackedLayer):
    """``nn.Linear`` with its own weights for each client."""

    def __init__(self, template: nn.Linear, slots: Slots) -> None:
        super().__init__(template, slots)
        self._weight = slots.view("weight", template.out_features, template.in_features)
        self._bias = slots.view("bias", 1, template.out_features) if "bias" in slots.columns else None

    @staticmethod
    def unsupported(template: nn.Linear) -> str | None:
        """Nothing."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, ..., inputs)`` to ``(clients * batch, ..., outputs)``."""
        inputs = x.reshape(self.slots.clients, -1, x.shape[-1])
        output = product(inputs, self._weight, self._bias)
        return self.slots.tap(self, inputs, output).view(*x.shape[:-1], -1)

    def contribution(self, calls: Sequence[Call], batch: int) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        return matrix_product(*joined(calls, batch), batch, biases=0 if self._bias is None else 1)

    def write(self, summed: Sequence[Tensor], sums: Tensor) -> None:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        for name, values in zip(("weight", "bias"), summed, strict=False):
            self.slots.write(name, values, sums)


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``(clients, rows, outputs)``: each client's rows by its own weight.

    Args:
        inputs: ``(clients, rows, inputs)``.
        weight: ``(clients, outputs, inputs)``.
        bias: ``(clients, 1, outputs)``, or None.
    """
    transposed = weight.transpose(1, 2)
    return torch.bmm(inputs, transposed) if bias is None else torch.baddbmm(bias, inputs, transposed)
