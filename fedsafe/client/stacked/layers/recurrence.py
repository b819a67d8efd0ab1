"""What ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` share, stacked: layers and directions, and weights that all steps use."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import Instantiated, instantiates, matrix_product
from fedsafe.errors import ModelError


class StepWeight:
    """A weight matrix of a recurrence, with its bias: each step of a sequence is a position.

    Args:
        slots: Where the layer's parameters lie.
        weight: Name of the weight.
        bias: Name of its bias, which the layer may not have.
        outputs: Rows of the weight.
        inputs: Columns of the weight.
    """

    def __init__(self, slots: Slots, weight: str, bias: str, outputs: int, inputs: int) -> None:
        self.slots = slots.only(weight, bias)
        self._names = (weight, bias)
        self.weight = slots.view(weight, outputs, inputs)
        self.bias = slots.view(bias, 1, outputs) if slots.has(bias) else None

    def note(self, inputs: Tensor, handle: Tensor | None) -> None:
        """Leave a tap.

        Args:
            inputs: ``(clients, batch, steps, inputs)``.
            handle: ``(clients, batch, steps, outputs)``, or None if no gradient is wanted.
        """
        if handle is not None and self.slots.columns:
            self.slots.note(self, inputs, handle)

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        inputs, gradients = calls[0].inputs, calls[0].gradients
        if len(calls) > 1:
            inputs = torch.cat([call.inputs for call in calls], 2)
            gradients = torch.cat([call.gradients for call in calls], 2)
        clients, _, steps, width = inputs.shape
        outputs = gradients.shape[3]
        if not norms or not instantiates(steps, width, outputs):
            biases = 0 if self.bias is None else 1
            inputs, gradients = inputs.flatten(1, 2), gradients.flatten(1, 2)
            return matrix_product(inputs, gradients, batch, biases=biases, norms=norms)
        # For a client that is alone these are views, whose steps lie apart: products take them as they are.
        by_example = gradients.flatten(0, 1).transpose(1, 2)
        weight = torch.bmm(by_example, inputs.flatten(0, 1)).view(clients, batch, outputs, width)
        return Instantiated(weight) if self.bias is None else Instantiated(weight, gradients.sum(2))

    def named(self, summed: Sequence[Tensor]) -> Iterable[tuple[str, Tensor]]:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        return zip(self._names, summed, strict=False)


class Direction(Protocol):
    """One layer of a recurrent network, read in one direction."""

    def __call__(self, x: Tensor, start: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs of all steps, and the final states.

        Args:
            x: ``(clients, batch, steps, inputs)``.
            start: Each state before the first step, ``(clients, batch, hidden)``.

        Returns:
            ``(clients, batch, steps, hidden)``, and each state after the last step.
        """
        ...


class StackedRecurrent(StackedLayer):
    """A recurrent network of several layers, in one direction or two, with its own weights for each client."""

    states = 1

    def __init__(self, template: nn.RNNBase, slots: Slots) -> None:
        super().__init__(template, slots)
        self._hidden, self._batch_first = template.hidden_size, template.batch_first
        # States have layers and directions first.
        self.examples_in = self.examples_out = (0, 1) if template.batch_first else (1,)
        suffixes = ("", "_reverse") if template.bidirectional else ("",)
        widths = [template.input_size] + [template.hidden_size * len(suffixes)] * (template.num_layers - 1)
        self._layers = [
            [self._direction(template, slots, f"_l{number}{suffix}", width) for suffix in suffixes]
            for number, width in enumerate(widths)
        ]

    @staticmethod
    def unsupported(template: Any) -> str | None:
        """Projections, and dropout between layers."""
        if template.proj_size:
            return f"proj_size = {template.proj_size}"
        return f"dropout = {template.dropout}" if template.dropout else None

    @abstractmethod
    def _direction(self, template: Any, slots: Slots, suffix: str, inputs: int) -> Direction:
        """The layer and direction whose parameters' names end so."""

    def forward(self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None = None) -> tuple[Tensor, Any]:
        """What the ordinary layer gives, for ``clients * batch`` sequences.

        Raises:
            ModelError: The input is a packed sequence, or one without a batch.
        """
        if not isinstance(x, Tensor) or x.ndim != 3:
            found = f"of shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ModelError(
                f"a recurrent layer's input is {found}: give it one tensor of (examples, steps, inputs)"
            )
        x = x if self._batch_first else x.transpose(0, 1)
        x = x.reshape(self.slots.clients, -1, *x.shape[1:])
        number = len(self._layers) * len(self._layers[0])
        starts = self._starts(x, state, number)
        finals: list[tuple[Tensor, ...]] = []
        for layer in self._layers:
            outputs = []
            for backwards, direction in enumerate(layer):
                read, final = direction(x.flip(2) if backwards else x, starts[len(finals)])
                outputs.append(read.flip(2) if backwards else read)
                finals.append(final)
            x = torch.cat(outputs, 3) if len(outputs) > 1 else outputs[0]
        ends = tuple(torch.stack(parts).flatten(1, 2) for parts in zip(*finals, strict=True))
        x = x.flatten(0, 1)
        return (x if self._batch_first else x.transpose(0, 1)), ends if self.states > 1 else ends[0]

    def _starts(
        self, x: Tensor, state: Tensor | tuple[Tensor, ...] | None, number: int
    ) -> list[tuple[Tensor, ...]]:
        shape = (*x.shape[:2], self._hidden)
        if state is None:
            return [(x.new_zeros(shape),) * self.states] * number
        parts = (state,) if isinstance(state, Tensor) else state
        return [tuple(part[place].reshape(shape) for part in parts) for place in range(number)]


def steps_outside(x: Tensor) -> Tensor:
    """``(clients, batch, steps, values)`` to ``(clients, steps * batch, values)``, so that a step is one piece."""
    return x.transpose(1, 2).flatten(1, 2)
