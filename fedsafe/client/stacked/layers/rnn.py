"""``nn.RNN``, stacked: one product for the inputs of all steps, and one for each step's hidden state."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Slots
from fedsafe.client.stacked.layers.linear import product
from fedsafe.client.stacked.layers.recurrence import StackedRecurrent, StepWeight, steps_outside


class StackedRNN(StackedRecurrent):
    """``nn.RNN`` with its own weights for each client; ``tanh`` or ``relu``."""

    def _direction(self, template: nn.RNN, slots: Slots, suffix: str, inputs: int) -> "_Direction":
        return _Direction(slots, suffix, inputs, template.hidden_size, template.nonlinearity == "relu")


class _Direction:
    """One layer and direction (Elman 1990)."""

    def __init__(self, slots: Slots, suffix: str, inputs: int, hidden: int, relu: bool) -> None:
        self._slots, self._relu = slots, relu
        self._inputs = StepWeight(slots, f"weight_ih{suffix}", f"bias_ih{suffix}", hidden, inputs)
        self._hidden = StepWeight(slots, f"weight_hh{suffix}", f"bias_hh{suffix}", hidden, hidden)

    def __call__(self, x: Tensor, start: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`~fedsafe.client.stacked.layers.recurrence.Direction`."""
        one, two = self._inputs, self._hidden
        bias = None if one.bias is None or two.bias is None else one.bias + two.bias
        handle = self._slots.handle(x, len(x) * x.shape[1], x.shape[2], one.weight.shape[1])
        outputs, before = _Steps.apply(x, handle, one.weight, two.weight, bias, *start, self._relu)  # type: ignore[no-untyped-call]
        one.note(x, handle)
        two.note(before, handle)
        return outputs, (outputs[:, :, -1],)


class _Steps(torch.autograd.Function):
    """The recurrence, with the gradient written by hand; weights and bias are data, as in ``lstm.py``.

    The handle ``(clients, batch, steps, hidden)`` gets the gradient of what the nonlinearity is applied to.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        handle: Tensor | None,
        inputs_weight: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        hidden: Tensor,
        relu: bool,
    ) -> tuple[Tensor, Tensor]:
        clients, batch, steps, _ = x.shape
        sums = product(steps_outside(x), inputs_weight, bias).view(clients, steps, batch, -1)
        hiddens = torch.cat([hidden.unsqueeze(0), sums.transpose(0, 1)])
        hidden = hiddens[0]
        for value in hiddens[1:].unbind(0):
            value.baddbmm_(hidden, weight.transpose(1, 2))
            hidden = value.relu_() if relu else value.tanh_()
        ctx.save_for_backward(hiddens, inputs_weight, weight)
        ctx.relu = relu
        by_example = hiddens.permute(1, 2, 0, 3)
        outputs, before = by_example[:, :, 1:].contiguous(), by_example[:, :, :-1]
        ctx.mark_non_differentiable(before)
        return outputs, before

    @staticmethod
    def backward(ctx: Any, by_outputs: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hiddens, inputs_weight, weight = ctx.saved_tensors
        clients, batch, steps, size = by_outputs.shape
        values = hiddens[1:]
        slopes = (values > 0.0).to(values.dtype) if ctx.relu else 1.0 - values.square()
        by_sums = values.new_empty(clients, steps, batch, size)
        by_hidden = torch.zeros_like(hiddens[0])
        places = [slopes.unbind(0), by_sums.unbind(1), by_outputs.unbind(2)]
        for slope, by_sum, by_output in zip(*map(reversed, places), strict=True):
            torch.mul(by_hidden.add_(by_output), slope, out=by_sum)
            torch.bmm(by_sum, weight, out=by_hidden)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = torch.bmm(by_sums.flatten(1, 2), inputs_weight).view(clients, steps, batch, -1)
            by_x = by_x.transpose(1, 2).contiguous()
        by_handle = by_sums.transpose(1, 2) if ctx.needs_input_grad[1] else None
        return by_x, by_handle, None, None, None, by_hidden, None
