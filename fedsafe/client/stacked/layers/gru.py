"""``nn.GRU``, stacked: its two weights have different gradients, for the reset gate is between them."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Slots
from fedsafe.client.stacked.layers.linear import product
from fedsafe.client.stacked.layers.recurrence import StackedRecurrent, StepWeight, steps_outside


class StackedGRU(StackedRecurrent):
    """``nn.GRU`` with its own weights for each client."""

    def _direction(self, template: nn.GRU, slots: Slots, suffix: str, inputs: int) -> "_Direction":
        return _Direction(slots, suffix, inputs, template.hidden_size)


class _Direction:
    """One layer and direction (Cho et al. 2014, as PyTorch has it: gates r, z, n, the reset after the product)."""

    def __init__(self, slots: Slots, suffix: str, inputs: int, hidden: int) -> None:
        self._slots = slots
        self._inputs = _NewFirst(slots, f"weight_ih{suffix}", f"bias_ih{suffix}", 3 * hidden, inputs)
        self._hidden = StepWeight(slots, f"weight_hh{suffix}", f"bias_hh{suffix}", 3 * hidden, hidden)

    def __call__(self, x: Tensor, start: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`~fedsafe.client.stacked.layers.recurrence.Direction`."""
        one, two = self._inputs, self._hidden
        shape = (x, len(x) * x.shape[1], x.shape[2], one.weight.shape[1])
        handles = self._slots.handle(*shape), self._slots.handle(*shape)
        outputs, before = _Steps.apply(x, *handles, one.weight, two.weight, one.bias, two.bias, *start)  # type: ignore[no-untyped-call]
        one.note(x, handles[0])
        two.note(before, handles[1])
        return outputs, (outputs[:, :, -1],)


class _NewFirst(StepWeight):
    """The weight by the inputs, whose handle has the gates in the order n, r, z."""

    def named(self, summed: Sequence[Tensor]) -> Iterable[tuple[str, Tensor]]:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        return super().named([_new_last(part) for part in summed])


def _new_last(gates: Tensor) -> Tensor:
    return gates.roll(-gates.shape[1] // 3, 1)


class _Steps(torch.autograd.Function):
    """The recurrence, with the gradient written by hand: every slope is taken at once, for all steps.

    Of the new state n, the part by the inputs and the part by the hidden state have their own gradients. Weights and
    biases are data here: their gradients come from the taps. The handles ``(clients, batch, steps, 3 * hidden)`` get
    the gradients of the inputs' part, in the order n, r, z, and of the hidden state's, in the order r, z, n: so both
    are pieces of one tensor.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        by_inputs: Tensor | None,
        by_hidden: Tensor | None,
        inputs_weight: Tensor,
        weight: Tensor,
        inputs_bias: Tensor | None,
        bias: Tensor | None,
        hidden: Tensor,
    ) -> tuple[Tensor, Tensor]:
        clients, batch, steps, _ = x.shape
        size = hidden.shape[2]
        gates = product(steps_outside(x), inputs_weight, inputs_bias).view(clients, steps, batch, 3 * size)
        # Written over, into place, by views that are made at once: operations cost more than what they compute.
        active = gates.transpose(0, 1).contiguous()
        recurrent = torch.empty_like(active)
        hiddens = active.new_empty(steps + 1, *hidden.shape)
        change = torch.empty_like(hiddens[1:])
        hiddens[0] = hidden
        pieces = (active[..., : 2 * size], *active.chunk(3, 3))
        pieces += (recurrent, recurrent[..., : 2 * size], recurrent[..., 2 * size :])
        places = zip(*(part.unbind(0) for part in (*pieces, change, hiddens[1:])), strict=True)
        hidden = hiddens[0]
        for both, r, z, n, all_three, two, third, moved, next_hidden in places:
            if bias is None:
                torch.bmm(hidden, weight.transpose(1, 2), out=all_three)
            else:
                torch.baddbmm(bias, hidden, weight.transpose(1, 2), out=all_three)
            both.add_(two).sigmoid_()
            n.add_(r * third).tanh_()
            torch.sub(hidden, n, out=moved)
            hidden = torch.mul(z, moved, out=next_hidden).add_(n)
        ctx.save_for_backward(active, recurrent, change, inputs_weight, weight)
        by_example = hiddens.permute(1, 2, 0, 3)
        outputs, before = by_example[:, :, 1:].contiguous(), by_example[:, :, :-1]
        ctx.mark_non_differentiable(before)
        return outputs, before

    @staticmethod
    def backward(ctx: Any, by_outputs: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        active, recurrent, change, inputs_weight, weight = ctx.saved_tensors
        steps, clients, batch, size = change.shape
        r, z, n = active.chunk(3, 3)
        # The slope of each part, but for the gradient by the hidden state: n by the inputs, r, z, n by the state.
        slopes = change.new_empty(steps, clients, batch, 4, size)
        new, reset, update, inner = slopes.unbind(3)
        torch.ops.aten.tanh_backward(1.0 - z, n, grad_input=new)
        torch.ops.aten.sigmoid_backward(recurrent[..., 2 * size :], r, grad_input=reset).mul_(new)
        torch.ops.aten.sigmoid_backward(change, z, grad_input=update)
        torch.mul(new, r, out=inner)
        by_parts = change.new_empty(clients, steps, batch, 4, size)
        by_hidden = torch.zeros_like(change[0])
        by_state = by_parts.flatten(3)[..., size:]
        places = [
            *(part.unbind(0) for part in (slopes, z)),
            *(part.unbind(1) for part in (by_parts, by_state)),
            by_outputs.unbind(2),
        ]
        for slope, kept, four, three, by_output in zip(*map(reversed, places), strict=True):
            by_hidden.add_(by_output)
            torch.mul(by_hidden.unsqueeze(2), slope, out=four)
            by_hidden.mul_(kept).baddbmm_(three, weight)
        by_inputs = by_parts.flatten(3)[..., : 3 * size]
        by_x = None
        if ctx.needs_input_grad[0]:
            ordered = inputs_weight.roll(size, 1)
            by_x = torch.bmm(by_inputs.flatten(1, 2), ordered).view(clients, steps, batch, -1)
            by_x = by_x.transpose(1, 2).contiguous()
        by_handles = (part.transpose(1, 2) for part in (by_inputs, by_state))
        return (
            by_x,
            *(
                by if wanted else None
                for by, wanted in zip(by_handles, ctx.needs_input_grad[1:3], strict=True)
            ),
            *[None] * 4,
            by_hidden,
        )
