"""What interval training needs of a stacked layer: half-widths through ``|W|``, and differences of last-layer outputs.

Both are further uses of the layer's own weights. Each leaves taps of its own at the weights' place, so that an
example's gradient is the sum over all uses, which is what is measured and clipped (``joining.py``).
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from fedsafe.client.objectives.intervals import least_differences
from fedsafe.client.stacked.alignment import aligned_copy
from fedsafe.client.stacked.layers.arrangements import Arranged
from fedsafe.client.stacked.layers.base import Call, Contribution, Slots, StackedLayer
from fedsafe.client.stacked.layers.contributions import Instantiated

Layer = TypeVar("Layer", bound=StackedLayer)


def absolute(layer: Layer, kernel: str, bias: str) -> Layer:
    """The same layer with the absolute values of its present weights, and without bias.

    Its contributions are to be given to :func:`signed`, with the layer's weights as they were.

    Args:
        layer: One that multiplies by a weight.
        kernel: Attribute that has the weights ``(clients, ...)``.
        bias: Attribute that has the bias.
    """
    twin: Layer | None = layer.__dict__.get("absolute_twin")
    weight: Tensor = getattr(layer, kernel)
    if twin is None:
        twin = copy.copy(layer)
        twin.__dict__.update({"slots": layer.slots.only("weight"), bias: None, "signs_of": weight})
        # Not a child: the model has one layer here, used twice.
        layer.__dict__["absolute_twin"] = twin
    # Fresh memory at each call: the backward pass of an earlier one may still read its own.
    twin.__dict__[kernel] = aligned_copy(weight.abs())
    return twin


def signed(contribution: Contribution, layer: StackedLayer) -> Contribution:
    """The contribution by ``W`` of what may have used ``|W|``: times the signs of the weights.

    Args:
        contribution: By the weights that the layer used, whose sums are in the order of the weight's own memory.
        layer: An ordinary one, which is left as it is, or one from :func:`absolute`.
    """
    weight: Tensor | None = layer.__dict__.get("signs_of")
    if weight is None:
        return contribution

    def ordered(summed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        values = summed[0]
        signs = weight.reshape(len(weight), *values.shape[1:]).sign()
        return (values * signs.repeat_interleave(len(values) // len(weight), 0),)

    return Arranged(contribution, ordered)


def differences(
    layer: StackedLayer, weight: Tensor, bias: Tensor | None, centre: Tensor, reach: Tensor, y: Tensor
) -> Tensor:
    """See :func:`~fedsafe.client.objectives.intervals.least_differences`, by each client's own weights.

    Which rows are subtracted depends on the example, so each has a copy of the weights to get its gradient by: the last
    layer of a classifier is small.

    Args:
        layer: The last layer.
        weight: ``(clients, outputs, values)``.
        bias: ``(clients, 1, outputs)``, or None.
        centre: ``(clients * batch, values)``.
        reach: ``(clients * batch, values)``.
        y: ``(clients * batch,)``.
    """
    use: LastLayer = layer.__dict__.setdefault("last_layer", LastLayer(layer.slots, weight.shape[1:]))
    parts = [weight.flatten(1)] if bias is None else [weight.flatten(1), bias.flatten(1)]
    copies = torch.cat(parts, 1).unsqueeze(1).expand(-1, len(y) // len(weight), -1).contiguous()
    slots = layer.slots
    if torch.is_grad_enabled() and slots.taps.open and slots.columns:
        copies.requires_grad_()
        slots.note(use, centre, copies)
    own = copies.flatten(0, 1)
    size = weight[0].numel()
    rows = own[:, :size].reshape(-1, *weight.shape[1:])
    return least_differences(rows, None if bias is None else own[:, size:], centre, reach, y)


class LastLayer:
    """The use of a linear layer's weights by differences of their rows.

    Args:
        slots: Of the layer.
        shape: ``(outputs, values)`` of the weight.
    """

    def __init__(self, slots: Slots, shape: Sequence[int]) -> None:
        self.slots, self._shape = slots, tuple(shape)

    def contribution(self, calls: Sequence[Call], batch: int, *, norms: bool = True) -> Contribution:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        gradients = calls[0].gradients
        for call in calls[1:]:
            gradients = gradients + call.gradients
        size = self._shape[0] * self._shape[1]
        weight = gradients[:, :, :size].reshape(*gradients.shape[:2], *self._shape)
        bias: list[Any] = [gradients[:, :, size:]] if gradients.shape[2] > size else []
        return Instantiated(weight, *bias)

    def named(self, summed: Sequence[Tensor]) -> Iterable[tuple[str, Tensor]]:
        """See :class:`~fedsafe.client.stacked.layers.base.Tapped`."""
        return zip(("weight", "bias"), summed, strict=False)
