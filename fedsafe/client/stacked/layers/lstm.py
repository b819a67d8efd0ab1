"""``nn.LSTM``, stacked: one product for the inputs of all steps, and one for each step's hidden state."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import joined, matrix_product
from fedsafe.client.stacked.layers.linear import product


class StackedLSTM(StackedLayer):
    """``nn.LSTM`` in one direction, with its own weights for each client."""

    def __init__(self, template: nn.LSTM, slots: Slots) -> None:
        super().__init__(template, slots)
        self._batch_first = template.batch_first
        widths = [template.input_size] + [template.hidden_size] * (template.num_layers - 1)
        self._layers = [_Recurrence(slots, n, width, template.hidden_size) for n, width in enumerate(widths)]

    @staticmethod
    def unsupported(template: nn.LSTM) -> str | None:
        """A second direction, projections, and dropout between layers."""
        if template.bidirectional:
            return "bidirectional"
        if template.proj_size:
            return f"proj_size = {template.proj_size}"
        return f"dropout = {template.dropout}" if template.dropout else None

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What ``nn.LSTM`` gives, for ``clients * batch`` sequences."""
        x = x if self._batch_first else x.transpose(0, 1)
        finals = []
        for number, layer in enumerate(self._layers):
            start = None if state is None else (state[0][number], state[1][number])
            x, final = layer(x, start)
            finals.append(final)
        hidden, cell = (torch.stack(parts) for parts in zip(*finals, strict=True))
        return (x if self._batch_first else x.transpose(0, 1)), (hidden, cell)


class _Recurrence:
    """One layer of a stacked LSTM (Hochreiter and Schmidhuber 1997; gates as PyTorch orders them: i, f, g, o)."""

    def __init__(self, slots: Slots, number: int, inputs: int, hidden: int) -> None:
        self._slots = slots
        self._hidden = hidden
        self._names = [f"{name}_l{number}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        self._inputs_weight = slots.view(self._names[0], 4 * hidden, inputs)
        self._hidden_weight = slots.view(self._names[1], 4 * hidden, hidden)
        self._biases = [slots.view(n, 1, 4 * hidden) for n in self._names[2:] if n in slots.columns]

    def __call__(
        self, x: Tensor, start: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Outputs ``(clients * batch, steps, hidden)``, and the final hidden and cell states."""
        clients, (examples, steps) = self._slots.clients, x.shape[:2]
        if start is None:
            start = (x.new_zeros(examples, self._hidden),) * 2
        first, cell = (part.reshape(clients, -1, self._hidden) for part in start)
        inputs = x.reshape(clients, -1, x.shape[2])
        bias = self._biases[0] + self._biases[1] if self._biases else None
        gates, handle = self._slots.attach(product(inputs, self._inputs_weight, bias))
        gates = gates.view(clients, -1, steps, 4 * self._hidden)
        outputs, cell = _Steps.apply(gates, self._hidden_weight, first, cell)  # type: ignore[no-untyped-call]
        if handle is not None:
            before = torch.cat([first.detach().unsqueeze(2), outputs.detach()[:, :, :-1]], 2).flatten(1, 2)
            self._slots.note(self, torch.cat([inputs, before], 2), handle)
        outputs = outputs.view(examples, steps, self._hidden)
        return outputs, (outputs[:, -1], cell.reshape(examples, self._hidden))

    def contribution(self, calls: Sequence[Call], batch: int) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`: both weights are one matrix side by side."""
        return matrix_product(*joined(calls, batch), batch, biases=len(self._biases))

    def write(self, summed: Sequence[Tensor], sums: Tensor) -> None:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        weight, *biases = summed
        width = weight.shape[2] - self._hidden
        values = (weight[:, :, :width], weight[:, :, width:], *biases)
        for name, part in zip(self._names, values, strict=False):
            self._slots.write(name, part, sums)


class _Steps(torch.autograd.Function):
    """The recurrence, with the gradient written by hand: what does not depend on later steps is taken at once.

    ``gates (clients, batch, steps, 4 * hidden)`` hold the inputs' part. The weight is data here: its gradient comes
    from the taps. Inside, steps come first, so that each has its own piece of memory.
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        transposed, size = weight.transpose(1, 2), hidden.shape[2]
        # A copy even where the order is right already: it is written over.
        active = gates.permute(2, 0, 1, 3).clone(memory_format=torch.contiguous_format)
        outputs, bent = (active.new_empty(len(active), *hidden.shape) for _ in range(2))
        cells = torch.cat([cell.unsqueeze(0), torch.empty_like(outputs)])
        # Written into place, by views that are made at once: operations cost more than what they compute.
        places = zip(
            *(part.unbind(0) for part in (active, active[:, :, :, : 2 * size], *active.chunk(4, 3))),
            *(part.unbind(0) for part in (cells[1:], bent, outputs)),
            strict=True,
        )
        for all_four, both, i, f, g, o, next_cell, curved, next_hidden in places:
            all_four.baddbmm_(hidden, transposed)
            both.sigmoid_()
            cell = torch.mul(f, cell, out=next_cell).add_(i * g.tanh_())
            hidden = torch.mul(o.sigmoid_(), torch.tanh(cell, out=curved), out=next_hidden)
        ctx.save_for_backward(active, cells, bent, weight)
        return outputs.permute(1, 2, 0, 3).contiguous(), cell.clone()

    @staticmethod
    def backward(ctx: Any, by_outputs: Tensor, by_cell: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        active, cells, bent, weight = ctx.saved_tensors
        by_outputs = by_outputs.permute(2, 0, 1, 3).contiguous()
        i, f, g, o = active.chunk(4, 3)
        to_cell = o * (1.0 - bent * bent)
        # The slope of each gate, but for the gradient by the cell (i, f, g) or by the output (o).
        slopes = torch.stack(
            [g * i * (1.0 - i), cells[:-1] * f * (1.0 - f), i * (1.0 - g * g), bent * o * (1.0 - o)], 3
        )
        by_gates = torch.empty_like(slopes)
        by_hidden, by_cell = torch.zeros_like(by_cell), by_cell.clone()
        flat = by_gates.flatten(3)
        places = [
            part.unbind(0)
            for part in (
                by_outputs,
                to_cell,
                slopes[:, :, :, :3],
                slopes[:, :, :, 3],
                f,
                by_gates[:, :, :, :3],
                by_gates[:, :, :, 3],
                flat,
            )
        ]
        for by_output, bend, from_cell, from_output, kept, three, last, four in zip(
            *map(reversed, places), strict=True
        ):
            by_hidden.add_(by_output)
            by_cell.add_(by_hidden * bend)
            torch.mul(by_cell.unsqueeze(2), from_cell, out=three)
            torch.mul(by_hidden, from_output, out=last)
            torch.bmm(four, weight, out=by_hidden)
            by_cell.mul_(kept)
        return flat.permute(1, 2, 0, 3).contiguous(), None, by_hidden, by_cell
