"""``nn.Linear``, stacked; positions between the batch and the features are shared."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import joined, matrix_product
from fedsafe.client.stacked.layers.intervals import absolute, differences, signed


class StackedLinear(StackedLayer):
    """``nn.Linear`` with its own weights for each client."""

    examples_in = None

    def __init__(self, template: nn.Linear, slots: Slots) -> None:
        super().__init__(template, slots)
        self._weight = slots.view("weight", template.out_features, template.in_features)
        self._bias = slots.view("bias", 1, template.out_features) if slots.has("bias") else None

    @staticmethod
    def unsupported(template: nn.Linear) -> str | None:
        """Nothing."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """``(clients * batch, ..., inputs)`` to ``(clients * batch, ..., outputs)``."""
        inputs = x.reshape(self.slots.clients, -1, x.shape[-1])
        output = product(inputs, self._weight, self._bias)
        return self.slots.tap(self, inputs, output).view(*x.shape[:-1], -1)

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        biases = 0 if self._bias is None else 1
        return signed(matrix_product(*joined(calls, batch), batch, biases=biases, norms=norms), self)

    def magnitude(self, x: Tensor) -> Tensor:
        """``|W| x``, shaped as in :meth:`forward`."""
        outputs: Tensor = absolute(self, "_weight", "_bias")(x)
        return outputs

    def differences(self, centre: Tensor, reach: Tensor, y: Tensor) -> Tensor:
        """See :func:`~fedsafe.client.stacked.layers.intervals.differences`."""
        return differences(self, self._weight, self._bias, centre, reach, y)


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``(clients, rows, outputs)``: each client's rows by its own weight.

    Args:
        inputs: ``(clients, rows, inputs)``.
        weight: ``(clients, outputs, inputs)``.
        bias: ``(clients, 1, outputs)``, or None.
    """
    transposed = weight.transpose(1, 2)
    return torch.bmm(inputs, transposed) if bias is None else torch.baddbmm(bias, inputs, transposed)
