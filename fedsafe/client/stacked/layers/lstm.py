"""``nn.LSTM``, stacked: one product for the inputs of all steps, and one for each step's hidden state."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Slots
from fedsafe.client.stacked.layers.linear import product
from fedsafe.client.stacked.layers.recurrence import StackedRecurrent, StepWeight, steps_outside


class StackedLSTM(StackedRecurrent):
    """``nn.LSTM`` with its own weights for each client."""

    states = 2

    def _direction(self, template: nn.LSTM, slots: Slots, suffix: str, inputs: int) -> "_Direction":
        return _Direction(slots, suffix, inputs, template.hidden_size)


class _Direction:
    """One layer and direction (Hochreiter and Schmidhuber 1997; gates as PyTorch orders them: i, f, g, o)."""

    def __init__(self, slots: Slots, suffix: str, inputs: int, hidden: int) -> None:
        self._slots = slots
        self._inputs = StepWeight(slots, f"weight_ih{suffix}", f"bias_ih{suffix}", 4 * hidden, inputs)
        self._hidden = StepWeight(slots, f"weight_hh{suffix}", f"bias_hh{suffix}", 4 * hidden, hidden)

    def __call__(self, x: Tensor, start: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See :class:`~fedsafe.client.stacked.layers.recurrence.Direction`."""
        one, two = self._inputs, self._hidden
        bias = None if one.bias is None or two.bias is None else one.bias + two.bias
        handle = self._slots.handle(x, len(x) * x.shape[1], x.shape[2], one.weight.shape[1])
        outputs, cell, before = _Steps.apply(x, handle, one.weight, two.weight, bias, *start)  # type: ignore[no-untyped-call]
        # Both weights and both biases have the same gradient of the gates.
        one.note(x, handle)
        two.note(before, handle)
        return outputs, (outputs[:, :, -1], cell)


class _Steps(torch.autograd.Function):
    """The recurrence, with the gradient written by hand: what does not depend on later steps is taken at once.

    Weights and bias are data here: their gradients come from the taps, whose handle ``(clients, batch, steps,
    4 * hidden)`` gets the gradient of the gates. Inside, steps come before examples, so that each has its own piece of
    memory.
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
        cell: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        clients, batch, steps, _ = x.shape
        size = hidden.shape[2]
        gates = product(steps_outside(x), inputs_weight, bias).view(clients, steps, batch, 4 * size)
        # Written over, into place, by views that are made at once: operations cost more than what they compute.
        active = gates.transpose(0, 1).contiguous()
        hiddens, cells = (active.new_empty(steps + 1, *hidden.shape) for _ in range(2))
        bent = torch.empty_like(cells[1:])
        hiddens[0], cells[0] = hidden, cell
        transposed = weight.transpose(1, 2)
        pieces = (active, active[..., : 2 * size], *active.chunk(4, 3))
        places = zip(*(part.unbind(0) for part in (*pieces, cells[1:], bent, hiddens[1:])), strict=True)
        hidden, cell = hiddens[0], cells[0]
        for all_four, both, i, f, g, o, next_cell, curved, next_hidden in places:
            all_four.baddbmm_(hidden, transposed)
            both.sigmoid_()
            cell = torch.mul(f, cell, out=next_cell).add_(i * g.tanh_())
            hidden = torch.mul(o.sigmoid_(), torch.tanh(cell, out=curved), out=next_hidden)
        ctx.save_for_backward(active, cells, bent, inputs_weight, weight)
        by_example = hiddens.permute(1, 2, 0, 3)
        outputs, before = by_example[:, :, 1:].contiguous(), by_example[:, :, :-1]
        ctx.mark_non_differentiable(before)
        return outputs, cell.clone(), before

    @staticmethod
    def backward(
        ctx: Any, by_outputs: Tensor, by_cell: Tensor, _: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, Tensor, Tensor]:
        active, cells, bent, inputs_weight, weight = ctx.saved_tensors
        steps, clients, batch, size = bent.shape
        i, f, g, o = active.chunk(4, 3)
        # The slope of each gate, but for the gradient by the cell (i, f, g) or by the output (o).
        slopes = bent.new_empty(steps, clients, batch, 4, size)
        torch.ops.aten.sigmoid_backward(g, i, grad_input=slopes[:, :, :, 0])
        torch.ops.aten.sigmoid_backward(cells[:-1], f, grad_input=slopes[:, :, :, 1])
        torch.ops.aten.tanh_backward(i, g, grad_input=slopes[:, :, :, 2])
        torch.ops.aten.sigmoid_backward(bent, o, grad_input=slopes[:, :, :, 3])
        to_cell = torch.ops.aten.tanh_backward(o, bent)
        by_gates = bent.new_empty(clients, steps, batch, 4, size)
        by_hidden, by_cell = torch.zeros_like(by_cell), by_cell.clone()
        flat = by_gates.flatten(3)
        places = [
            *(part.unbind(0) for part in (to_cell, slopes[:, :, :, :3], slopes[:, :, :, 3], f)),
            *(part.unbind(1) for part in (by_gates[:, :, :, :3], by_gates[:, :, :, 3], flat)),
            by_outputs.unbind(2),
        ]
        for bend, from_cell, from_output, kept, three, last, four, by_output in zip(
            *map(reversed, places), strict=True
        ):
            by_hidden.add_(by_output)
            by_cell.add_(by_hidden * bend)
            torch.mul(by_cell.unsqueeze(2), from_cell, out=three)
            torch.mul(by_hidden, from_output, out=last)
            torch.bmm(four, weight, out=by_hidden)
            by_cell.mul_(kept)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = torch.bmm(flat.flatten(1, 2), inputs_weight).view(clients, steps, batch, -1)
            by_x = by_x.transpose(1, 2).contiguous()
        by_handle = flat.transpose(1, 2) if ctx.needs_input_grad[1] else None
        return by_x, by_handle, None, None, None, by_hidden, by_cell
