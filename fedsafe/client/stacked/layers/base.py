"""What a stacked layer is: one set of weights per client, and the per-example gradients that they allow.

A layer sees activations of all clients at once, client-major: ``(clients * batch, ...)``. In its forward pass it
leaves a *tap*: its input, and a handle on its pre-activation. One backward pass to the handles gives the gradients
of the pre-activations, and from these follow the squared norm of each example's gradient and the clipped sum of
gradients (Goodfellow 2015; Bu et al. 2023, "book-keeping").
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tap:
    """What one call of a layer leaves behind.

    Args:
        layer: The layer.
        inputs: What its gradient is made of, besides that of its output: ``(clients, batch * positions, values)``,
            or what the layer makes that of.
        handle: ``(clients, batch * positions, outputs)``: the gradient by it is the one by the pre-activation.
    """

    layer: "Tapped"
    inputs: Tensor
    handle: Tensor


@dataclass(frozen=True)
class Call:
    """One call of a layer, after the backward pass.

    Args:
        inputs: As in its tap.
        gradients: ``(clients, batch * positions, outputs)``, of the loss by the pre-activation.
    """

    inputs: Tensor
    gradients: Tensor


class Taps(list[Tap]):
    """What the calls of one forward pass left behind, in their order.

    While ``open`` is false nothing is left: outputs and gradients by the inputs need no taps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.open = True
        # Names of parameters that the model's code asked a layer for, whether or not it minds that there is none.
        self.read: set[str] = set()


@dataclass(frozen=True)
class Slots:
    """Where a layer's parameters lie, and where its taps go.

    Args:
        parameters: ``(clients, parameters)``, every client's whole model.
        columns: Where this layer's trained parameters lie in it, by name.
        taps: The list that each call appends to.
        channels_last: Whether outputs of images may keep their channels innermost in memory, which is faster;
            a ``forward`` that calls ``view`` on them needs them contiguous.
        frozen: This layer's parameters that are not trained, which all clients share.
        names: What the layout calls this layer's trained parameters.
    """

    parameters: Tensor
    columns: dict[str, slice]
    taps: Taps
    channels_last: bool
    frozen: dict[str, Tensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def clients(self) -> int:
        """How many clients are stacked."""
        return self.parameters.shape[0]

    def has(self, name: str) -> bool:
        """Whether the layer has a parameter of that name, trained or not."""
        return name in self.columns or name in self.frozen

    def view(self, name: str, *shape: int) -> Tensor:
        """``(clients, *shape)`` view of a parameter of this layer, trained or not."""
        if name in self.frozen:
            return self.frozen[name].view(shape).expand(self.clients, *shape)
        return self.parameters[:, self.columns[name]].view(self.clients, *shape)

    def only(self, *names: str) -> "Slots":
        """The slots of some of the layer's parameters, for a part of it that has taps of its own."""
        columns = {name: self.columns[name] for name in names if name in self.columns}
        frozen = {name: self.frozen[name] for name in names if name in self.frozen}
        full = {name: self.names[name] for name in names if name in self.names}
        return replace(self, columns=columns, frozen=frozen, names=full)

    def handle(self, like: Tensor, rows: int, *outputs: int) -> Tensor | None:
        """Something of shape ``(clients, rows, *outputs)`` to get a gradient by, or None if none is wanted.

        Args:
            like: Has the type of the values.
            rows: ``batch * positions``, or ``clients`` times as many.
            outputs: Shape of a row.
        """
        if not (torch.is_grad_enabled() and self.taps.open and self.columns):
            return None
        return like.new_zeros(()).expand(self.clients, rows // self.clients, *outputs).requires_grad_()

    def attach(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output that the rest of the model shall use, and a handle on its gradient if one is wanted.

        Args:
            output: ``(clients, batch * positions, outputs)``, fresh from a layer's own computation.
        """
        handle = self.handle(output, output.shape[0] * output.shape[1], output.shape[2])
        if handle is None:
            return output, None
        return _Attached.apply(output, handle), handle  # type: ignore[no-untyped-call]

    def note(self, layer: "Tapped", inputs: Tensor, handle: Tensor) -> None:
        """Leave a tap."""
        self.taps.append(Tap(layer, inputs.detach(), handle))

    def tap(self, layer: "Tapped", inputs: Tensor, output: Tensor) -> Tensor:
        """Note a call, and return the output that the rest of the model shall use.

        Args:
            layer: The one that was called.
            inputs: ``(clients, batch * positions, values)``.
            output: ``(clients, batch * positions, outputs)``, fresh from the layer's own computation.
        """
        output, handle = self.attach(output)
        if handle is not None:
            self.note(layer, inputs, handle)
        return output


class _Attached(torch.autograd.Function):
    """Hands its input on, and gives the handle the gradient of what the input was at this place.

    Whatever the model does to the output afterwards, in place or not, is behind this node.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, handle: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient


class Contribution(Protocol):
    """What each example adds to the gradient of one layer.

    Guarantees:
        Scaled by a factor, an example adds a vector no longer than ``factor * (sqrt(squares) + slack)``, up to a
        relative error of a few units of rounding, which the clip's margin covers.
    """

    @property
    def squares(self) -> Tensor:
        """``(clients, batch)`` squared norms, in double precision."""

    def written_out(self) -> tuple[Tensor, ...]:
        """``(clients, batch, ...)`` gradients of each example, one tensor for each of the layer's parameters."""
        ...

    @property
    def slack(self) -> Tensor | float:
        """``(clients, batch)``: how much longer than its norm rounding can make what is summed."""

    @property
    def mass(self) -> Tensor | float:
        """``(clients, batch)``: length of what passes through the sum if terms of an example cancel there.

        The sum over its terms of their norms; zero where an example's gradient is written out before it is summed.
        """

    def summed(self, factors: Tensor, keep: Tensor, clean: bool) -> tuple[Tensor, ...]:
        """``(clients, ...)`` sum over examples, one tensor for each of the layer's parameters.

        Args:
            factors: ``(clients, batch)``, zero where an example is dropped.
            keep: ``(clients, batch)``, False where an example is dropped: its values may not be finite.
            clean: Whether every value is finite, so that zero factors are enough.
        """
        ...


class Tapped(Protocol):
    """What taps belong to: a layer, or one of several in a stack of recurrent ones."""

    @property
    def slots(self) -> Slots:
        """Where its parameters lie."""

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """What each example adds, in all calls together.

        The gradient of a weight that is used twice is the sum over its uses, and so must be its norm.

        Args:
            calls: All that the loss depends on, at least one.
            batch: Examples for each client.
            norms: Whether norms are wanted. Without them only ``summed`` is called, and may take a shorter way.
        """
        ...

    def named(self, summed: Sequence[Tensor]) -> Iterable[tuple[str, Tensor]]:
        """The layer's parameters, each with what a contribution gave for it.

        Args:
            summed: From ``Contribution.summed``, or from ``written_out`` with its first two dimensions made one.

        Returns:
            Names and values in the order of each parameter's own memory, whatever comes first kept. Names of
            parameters that are not trained may be among them.
        """
        ...


class UnreadableParameter(AttributeError):
    """The model's own code reads a parameter of a stacked layer, which has one for each client.

    Args:
        parameter: Its name in the layout.
    """

    def __init__(self, parameter: str) -> None:
        super().__init__(f"parameter {parameter} of a stacked layer is read by the model's own code")
        self.parameter = parameter


class StackedLayer(nn.Module, ABC):
    """A layer with its own weights for each client, made from an ordinary one.

    ``examples_in`` and ``examples_out`` say at which dimension the examples of each tensor that a layer takes and gives
    are, the last number for all that follow; None if whatever comes before the last dimension is an example or a
    position. A model whose code runs as if for one example needs to know (``exposed.py``).

    Args:
        template: The layer that is stacked.
        slots: Where its parameters lie.
    """

    examples_in: tuple[int, ...] | None = (0,)
    examples_out: tuple[int, ...] = (0,)

    def __init__(self, template: Any, slots: Slots) -> None:
        super().__init__()
        self.slots = slots
        # Sizes and options, for code that asks the layer for them.
        self._options = {
            name: value
            for name, value in vars(template).items()
            if value is None or isinstance(value, bool | int | float | str | tuple)
        }

    def __getattr__(self, name: str) -> Any:
        """What the ordinary layer would give, but for parameters that are trained."""
        own = self.__dict__
        if "slots" in own and name in own["slots"].names:
            own["slots"].taps.read.add(own["slots"].names[name])
            raise UnreadableParameter(own["slots"].names[name])
        if "slots" in own and name in own["slots"].frozen:
            return own["slots"].frozen[name]
        if name in own.get("_options", {}):
            return own["_options"][name]
        return super().__getattr__(name)

    def named(self, summed: Sequence[Tensor]) -> Iterable[tuple[str, Tensor]]:
        """See :class:`Tapped`; what most layers have."""
        return zip(("weight", "bias"), summed, strict=False)

    @staticmethod
    @abstractmethod
    def unsupported(template: Any) -> str | None:
        """What about an ordinary layer has no stacked rule, or None."""


def squared(rows: Tensor) -> Tensor:
    """Squared norms over the last dimension, in double precision."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64)
    return norms.square()
