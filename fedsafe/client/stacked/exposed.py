"""Parameters that a model's own ``forward`` reads: positions, scales, class tokens, a layer's weight used elsewhere.

Such a parameter cannot have a dimension of clients without changing what the model's code means. So that the code need
not know, it is run under ``torch.vmap``, one example at a time as it seems, and each example has a copy of its own
client's parameter: the gradient by the copy is the example's gradient. The stacked layers inside still see all
examples of all clients at once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fedsafe.client.batches import Batch, mapped
from fedsafe.client.objectives import Objective
from fedsafe.client.stacked.layers import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import Instantiated


class ExposedParameter:
    """A parameter that is read by code outside of a stacked layer.

    Args:
        name: Of the parameter, as in the layout.
        shape: Of the parameter.
        slots: Where it lies.
        owners: The modules that have it, and under which name each.
    """

    def __init__(
        self, name: str, shape: Sequence[int], slots: Slots, owners: Sequence[tuple[nn.Module, str]]
    ) -> None:
        self.name, self.slots = name, slots
        self._shape, self._owners = tuple(shape), owners

    def copies(self, batch: int) -> Tensor:
        """``(clients * batch, *shape)``: each example's own copy, to get a gradient by."""
        own = self.slots.view(self.name, *self._shape).detach().unsqueeze(1)
        copies = own.expand(-1, batch, *self._shape).reshape(-1, *self._shape)
        wanted = torch.is_grad_enabled() and self.slots.taps.open
        return copies.requires_grad_() if wanted else copies

    def place(self, value: Tensor) -> None:
        """Let the owners' code read a value."""
        for module, name in self._owners:
            module.__dict__[name] = value

    def remove(self) -> None:
        """Let nobody read it any more."""
        for module, name in self._owners:
            module.__dict__.pop(name, None)

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        (call,) = calls
        return Instantiated(call.gradients.reshape(self.slots.clients, batch, -1))

    def named(self, summed: Sequence[Tensor]) -> Sequence[tuple[str, Tensor]]:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        return [(self.name, summed[0])]


def losses_example_by_example(
    module: nn.Module,
    objective: Objective,
    batch: Batch,
    exposed: Sequence[ExposedParameter],
    copies: Sequence[Tensor],
) -> Tensor:
    """``(examples, ...)`` losses, as if the objective were called for each example with its own parameters.

    Args:
        module: With its stacked layers inside of :class:`Inside`.
        objective: Gives one loss per example, or one row of outputs.
        batch: Of ``clients * batch`` examples.
        exposed: The parameters that the module's own code reads.
        copies: Of each, one for each example.
    """

    def one(example: Batch, values: Sequence[Tensor]) -> Tensor:
        try:
            for parameter, value in zip(exposed, values, strict=True):
                parameter.place(value)
            Inside.marker = values[0]
            losses = objective(module, mapped(lambda part: part.unsqueeze(0), example))
            if losses.shape[:1] != (1,):
                raise ValueError(f"the objective gave losses of shape {tuple(losses.shape)} for one example")
            return losses[0]
        finally:
            Inside.marker = None
            for parameter in exposed:
                parameter.remove()

    losses: Tensor = torch.vmap(one, randomness="different")(batch, tuple(copies))
    return losses


class Inside(nn.Module):
    """A stacked layer inside code that sees one example: it is called once, with all examples of all clients.

    Args:
        layer: The stacked layer.
    """

    # Something that differs between examples, so that a layer whose own input does not is called with all of them too.
    marker: Tensor | None = None

    def __init__(self, layer: StackedLayer) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        """What the model's code reads of a layer, such as its sizes, is read of the layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The layer's output for this example."""
        given, form = pytree.tree_flatten((arguments, named))
        places = [place for place, value in enumerate(given) if isinstance(value, Tensor)]
        returned: list[Any] = []

        def call(*tensors: Tensor) -> tuple[Tensor, ...]:
            values = list(given)
            for place, tensor in zip(places, tensors, strict=True):
                values[place] = tensor
            own, own_named = pytree.tree_unflatten(values, form)
            outputs, output_form = pytree.tree_flatten(self.layer(*own, **own_named))
            returned[:] = [output_form]
            return tuple(outputs)

        tensors = [given[place] for place in places]
        outputs = _AllAtOnce.apply(call, self.layer, Inside.marker, *tensors)  # type: ignore[no-untyped-call]
        return pytree.tree_unflatten(outputs, returned[0])


class _AllAtOnce(torch.autograd.Function):
    """Leaves ``vmap``: calls a function with all examples at once, and hands its outputs back in."""

    @staticmethod
    def forward(*_: Any) -> Any:
        raise RuntimeError("a stacked layer was called outside of the model's forward pass")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: what is called records its own gradients."""

    @staticmethod
    def vmap(
        info: Any,
        dimensions: Sequence[int | None],
        call: Callable[..., tuple[Any, ...]],
        layer: StackedLayer,
        marker: Tensor,
        *tensors: Tensor,
    ) -> tuple[tuple[Any, ...], tuple[int | None, ...]]:
        inputs, count = [], 1
        for number, (tensor, dimension) in enumerate(zip(tensors, dimensions[3:], strict=True)):
            if dimension is None and number:
                inputs.append(tensor)  # a mask of positions, for one: the same for all examples
                continue
            # The first is what the layer is applied to.
            every = (
                tensor.expand(info.batch_size, *tensor.shape)
                if dimension is None
                else tensor.movedim(dimension, 0)
            )
            if layer.examples_in is not None:
                at = _at(layer.examples_in, number)
                every = every.movedim(at + 1, 1)
                count = every.shape[1] if number == 0 else count
                every = every.flatten(0, 1).movedim(0, at)
            inputs.append(every)
        outputs = call(*inputs)
        if layer.examples_in is not None:
            # What was one dimension of all examples is again each call's own, where the code expects it.
            outputs = tuple(
                out.movedim(at, 0)
                .reshape(info.batch_size, count, *out.movedim(at, 0).shape[1:])
                .movedim(1, at + 1)
                if isinstance(out, Tensor)
                else out
                for out, at in ((out, _at(layer.examples_out, number)) for number, out in enumerate(outputs))
            )
        return outputs, tuple(0 if isinstance(out, Tensor) else None for out in outputs)


def _at(places: tuple[int, ...], number: int) -> int:
    return places[min(number, len(places) - 1)]
