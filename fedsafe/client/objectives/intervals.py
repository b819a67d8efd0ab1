"""Training on what intervals prove (IBP, Gowal et al. 2018): the loss of the worst logits that the bounds allow.

The steps of the model are read once, as the bounds of a finished model are (``models/bounds``). At each batch an
interval is pushed through them: layers with weights are asked for their centre and half-width, so that a stacked
layer answers with each client's own weights and leaves what its gradients are made of. The last layer bounds the
*difference* of the true logit and each other as one linear function ("elision of the last layer", section 3 there).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.client.batches import Batch
from fedsafe.client.objectives.inputs import InputBounds
from fedsafe.client.objectives.perturbing import Differentiable, Law, Moment
from fedsafe.client.objectives.plain import Objective
from fedsafe.errors import ModelError
from fedsafe.models.bounds import Operation, trace

Bounds = tuple[Tensor, Tensor]


class Bounded(Protocol):
    """A layer with weights of its own for each client, as far as intervals need it."""

    def __call__(self, x: Tensor) -> Tensor:
        """``W x + b``."""
        ...

    def magnitude(self, x: Tensor) -> Tensor:
        """``|W| x``."""
        ...

    def differences(self, centre: Tensor, reach: Tensor, y: Tensor) -> Tensor:
        """See :func:`least_differences`."""
        ...


@dataclass(frozen=True, kw_only=True)
class IntervalStep:
    """One step of the model.

    Args:
        inputs: Value numbers: 0 is the input, i the output of step i - 1.
        operation: What it does, for steps without trained weights; else None.
        layer: Path of the module that has the weights.
    """

    inputs: tuple[int, ...]
    operation: Operation | None = None
    layer: str = ""


@dataclass(frozen=True, kw_only=True)
class IntervalTraining:
    """``kappa * natural + (1 - kappa) * worst``, with the worst logits over a box around each record.

    Radius and kappa are scheduled by how much of the run's local steps is done: after ``warmup`` of it with the
    natural loss alone, they go linearly from 0 and 1 to their values during ``ramp``, and stay. Radii are in the
    largest norm: an interval knows no other.

    Args:
        natural: The loss of the record as it is.
        bounds: Of the inputs.
        radius: At the end of the schedule, in encoded units.
        kappa: Weight of the natural loss at the end, in [0, 1].
        warmup: Part of the run before the schedule, in [0, 1).
        ramp: Part of the run that the schedule takes; 0 for none, which asks everything from the first step on.
        steps: Of the model, from :meth:`bound_to`; without them only the natural loss is known.
    """

    natural: Objective
    bounds: InputBounds
    radius: float
    kappa: float = 0.5
    warmup: float = 0.0
    ramp: float = 0.5
    steps: tuple[IntervalStep, ...] = ()
    law: Law = "uniform"

    def bound_to(self, module: nn.Module) -> "IntervalTraining":
        """The same for one model.

        Args:
            module: The model, or a copy; stacked ones of it can be trained too.

        Raises:
            ModelError: A step of it has no bounds, or uses weights outside of their layer.
        """
        return replace(self, steps=steps_of(module, tuple(self.bounds.low.shape)))

    def width(self, batch: Batch) -> int:
        """Nothing is drawn."""
        return 0

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses of ``(inputs, targets)``, or of ``(inputs, targets, radius, kappa)``."""
        if len(batch) == 2:
            return self.natural(model, batch)
        x, y, radius, kappa = batch
        worst = worst_logits(model, self.steps, self.bounds.box(x, radius), y)
        proven = (
            F.softplus(worst[:, 0]) if worst.shape[1] == 1 else F.cross_entropy(worst, y, reduction="none")
        )
        losses: Tensor = kappa * self.natural(model, (x, y)) + (1.0 - kappa) * proven
        return losses

    def perturbed(self, batch: Batch, moment: Moment, model: Differentiable) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`: radius and kappa join each record."""
        x, y = batch
        late = moment.progress.to(x) - self.warmup
        done = (late / self.ramp).clamp(0.0, 1.0) if self.ramp else (late >= 0.0).to(x.dtype)
        return x, y, done * self.radius, 1.0 - done * (1.0 - self.kappa)

    def stand_in(self, batch: Batch) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        x, y = batch
        return x, y, x.new_full((len(x),), self.radius), x.new_full((len(x),), 0.5)


def bound_to(objective: Objective, module: nn.Module) -> Objective:
    """The objective for one model: itself, unless it needs to know the model's steps.

    Raises:
        ModelError: A step has no bounds.
    """
    return objective.bound_to(module) if isinstance(objective, IntervalTraining) else objective


def steps_of(module: nn.Module, shape: tuple[int, ...]) -> tuple[IntervalStep, ...]:
    """A model's steps: layers with weights by their path, and all else as it is.

    Args:
        module: The model.
        shape: Of one example.

    Raises:
        ModelError: A step has no bounds, or weights are used outside of a linear layer or convolution.
    """
    try:
        network = trace(module, shape)
    except ModelError as error:
        raise ModelError(f'client.objective = "ibp" cannot train this model: {error}') from error
    paths = {
        id(layer.weight): path
        for path, layer in module.named_modules()
        if type(layer) in (nn.Linear, nn.Conv2d)
    }
    trained = {id(p) for p in module.parameters()}
    found = []
    for step in network.steps:
        path = paths.get(id(getattr(step.operation, "weight", None)))
        tensors = [getattr(step.operation, field.name) for field in fields(step.operation)]
        if path is not None and _is_layer(module.get_submodule(path), step.operation):
            found.append(IntervalStep(inputs=step.inputs, layer=path or "."))
        elif any(isinstance(t, Tensor) and (id(t) in trained or t.requires_grad) for t in tensors):
            raise ModelError(
                f'client.objective = "ibp" cannot train this model: the step {step.name} has weights that belong to no '
                "nn.Linear or nn.Conv2d of its own"
            )
        else:
            found.append(IntervalStep(inputs=step.inputs, operation=step.operation))
    return tuple(found)


def _is_layer(layer: Any, operation: Any) -> bool:
    own = layer.bias is operation.bias if layer.bias is not None else not operation.bias.requires_grad
    return bool(own)


def worst_logits(model: nn.Module, steps: Sequence[IntervalStep], box: Bounds, y: Tensor) -> Tensor:
    """Logits that no input of a box makes worse for the true class, all relative to it.

    Args:
        model: What the steps were read from, or a stack of it.
        steps: Of the model.
        box: ``(n, *inputs)`` lowest and highest inputs.
        y: ``(n,)`` true classes.

    Returns:
        ``(n, classes)``: 0 for the true class, and for each other the most by which it can be ahead. For a binary
        task ``(n, 1)``, how far ahead the other class can be.
    """
    values: list[Bounds] = [box]
    for number, step in enumerate(steps, start=1):
        inputs = [values[i] for i in step.inputs]
        if step.operation is not None:
            values.append(_on(step.operation, inputs[0][0]).interval(*inputs))
            continue
        ((low, high),) = inputs
        layer = model.get_submodule("" if step.layer == "." else step.layer)
        centre, reach = (low + high) / 2.0, (high - low) / 2.0
        if number == len(steps) and low.ndim == 2:
            return -_differences(layer, centre, reach, y)
        middle, half = layer(centre), _magnitude(layer, reach)
        values.append((middle - half, middle + half))
    low, high = values[-1]
    if low.shape[1] == 1:
        return torch.where(y[:, None] > 0, -low, high)
    ahead = high - low.gather(1, y[:, None])
    return torch.where(_own(y, low.shape[1]), 0.0, ahead)


def _own(y: Tensor, classes: int) -> Tensor:
    """``(n, classes)``, True at the true class."""
    return y[:, None] == torch.arange(classes, device=y.device)


def _on(operation: Operation, like: Tensor) -> Operation:
    """The operation with its constants where the values are, and of their type."""
    tensors = {field.name: getattr(operation, field.name) for field in fields(operation)}
    moved = {
        name: value.to(like)
        for name, value in tensors.items()
        if isinstance(value, Tensor) and (value.dtype != like.dtype or value.device != like.device)
    }
    return replace(operation, **moved) if moved else operation


def _magnitude(layer: nn.Module, x: Tensor) -> Tensor:
    if type(layer) is nn.Linear:
        return F.linear(x, layer.weight.abs())
    if type(layer) is nn.Conv2d:
        # As the layer itself does it, with other weights.
        convolved: Tensor = layer._conv_forward(x, layer.weight.abs(), None)
        return convolved
    return cast("Bounded", layer).magnitude(x)


def _differences(layer: nn.Module, centre: Tensor, reach: Tensor, y: Tensor) -> Tensor:
    if type(layer) is not nn.Linear:
        return cast("Bounded", layer).differences(centre, reach, y)
    weight = layer.weight.unsqueeze(0).expand(len(y), *layer.weight.shape)
    bias = None if layer.bias is None else layer.bias.unsqueeze(0).expand(len(y), -1)
    return least_differences(weight, bias, centre, reach, y)


def least_differences(
    weight: Tensor, bias: Tensor | None, centre: Tensor, reach: Tensor, y: Tensor
) -> Tensor:
    """Lower bounds on the true logit less each logit, over a box of what the last layer reads.

    Args:
        weight: ``(n, outputs, values)``, of each example.
        bias: ``(n, outputs)``, or None.
        centre: ``(n, values)`` middle of the box.
        reach: ``(n, values)`` half of its width.
        y: ``(n,)`` true classes.

    Returns:
        ``(n, outputs)``, 0 for the true class; ``(n, 1)`` on the signed logit where there is one.
    """
    if weight.shape[1] == 1:
        sign = (2.0 * y - 1.0).to(weight.dtype)[:, None]
        rows = weight * sign[:, :, None]
        offset = None if bias is None else bias * sign
    else:
        own = _own(y, weight.shape[1]).to(weight.dtype)[:, :, None]
        rows = (weight * own).sum(1, keepdim=True) - weight
        offset = None if bias is None else (bias * own[:, :, 0]).sum(1, keepdim=True) - bias
    found = (torch.bmm(rows, centre[:, :, None]) - torch.bmm(rows.abs(), reach[:, :, None]))[:, :, 0]
    return found if offset is None else found + offset
