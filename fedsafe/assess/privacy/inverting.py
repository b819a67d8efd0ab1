"""Records rebuilt from an update: by a division, by reading the label, and by matching gradients."""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsafe.assess.base import Subject
from fedsafe.assess.clients import Federation

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FirstLayer:
    """A linear layer with a bias that reads the record itself.

    Attributes:
        weight: Where its weights are among the parameters.
        bias: Where its biases are.
        inputs: How many values it reads.
    """

    weight: slice
    bias: slice
    inputs: int


def first_layer(subject: Subject, x: NDArray[np.float32]) -> FirstLayer | None:
    """The layer that the analytic attack needs; None where the model has none.

    Args:
        subject: With the model, which runs once.
        x: ``(n, *inputs)`` records to run it on.
    """
    found: list[nn.Linear] = []
    wanted = subject.tensor(x).flatten(1)

    def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        read = inputs[0].shape == wanted.shape and torch.equal(inputs[0], wanted)
        if isinstance(layer, nn.Linear) and read and layer.bias is not None and layer.weight.requires_grad:
            found.append(layer)

    handles = [
        layer.register_forward_pre_hook(look) for layer in subject.model.modules() if type(layer) is nn.Linear
    ]
    try:
        with torch.no_grad():
            subject.model(subject.tensor(x))
    finally:
        for handle in handles:
            handle.remove()
    places = _places(subject.model)
    for layer in found:
        if id(layer.weight) in places and id(layer.bias) in places:
            return FirstLayer(
                weight=places[id(layer.weight)],
                bias=places[id(layer.bias)],
                inputs=int(layer.in_features),
            )
    return None


def _places(model: nn.Module) -> dict[int, slice]:
    places, start = {}, 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            places[id(parameter)] = slice(start, start + parameter.numel())
            start += parameter.numel()
    return places


def analytic(update: Array, layer: FirstLayer, records: int) -> Array:
    """``(candidates, inputs)``: what a first linear layer says of the records of an update.

    The gradient of a unit's weights is that of its bias times the record: of one record
    ``x = sum_i db_i dW_i / sum_i db_i^2``, which is exact, and least squares under noise. Of several, ``dW_i / db_i``
    of each unit is a mixture of records, and one record where it alone moved the unit. Source: Phong et al. (2018);
    Geiping et al. (2020), proposition 3.1.

    Args:
        update: ``(parameters,)`` broadcast less trained.
        layer: From `first_layer`.
        records: In the batch.

    Returns:
        One candidate for one record, else one for each unit that moved; none where nothing moved.
    """
    bias = update[layer.bias]
    weight = update[layer.weight].reshape(len(bias), layer.inputs)
    if not np.isfinite(update).all() or not np.any(bias):
        return np.zeros((0, layer.inputs))
    if records == 1:
        scaled = bias / np.abs(bias).max()
        return np.asarray((scaled @ weight / (scaled @ bias))[None])
    moved = np.flatnonzero(np.abs(bias) > 1e-6 * np.abs(bias).max())
    return np.asarray(weight[moved] / bias[moved, None])


def read_label(subject: Subject, update: Array) -> int | None:
    """The label of the only record of an update; None where the model's last parameter is no bias of its outputs.

    The gradient of cross-entropy by the outputs' bias is negative for the true class alone (Zhao, Mopuri and Bilen,
    2020). Of one logit, it is negative where the class is 1.

    Args:
        subject: With the model.
        update: ``(parameters,)`` broadcast less trained.
    """
    trainable = [p for p in subject.model.parameters() if p.requires_grad]
    outputs = prod(subject.task.signature.outputs)
    if not trainable or tuple(trainable[-1].shape) != (outputs,):
        return None
    last = update[len(update) - outputs :]
    return int(last[0] < 0) if subject.binary else int(np.argmin(last))


def match(
    subject: Subject,
    federation: Federation,
    update: Array,
    y: Tensor,
    rng: np.random.Generator,
    *,
    iterations: int,
    rate: float = 0.2,
    variation: float = 0.1,
) -> Array | None:
    """``(records, *inputs)``: records whose gradient points where the update does (Geiping et al. 2020).

    Minimises ``1 - cos(gradient, update)``, for images plus their total variation, by signed steps of Adam within the
    public bounds. Several local steps are taken for one.

    Args:
        subject: With the model.
        federation: With the objective.
        update: ``(parameters,)`` broadcast less trained.
        y: ``(records,)`` targets, known or read from the update.
        rng: Where to begin.
        iterations: Steps.
        rate: Length of a step, in parts of a feature's range; it falls threefold.
        variation: Weight of the total variation, of images in units of their range, at first; it falls to nothing.

    Returns:
        None where the update or the gradient is zero, or not finite.
    """
    if not np.isfinite(update).all() or not np.any(update):
        return None
    low, high = (subject.tensor(end) for end in subject.input_bounds())
    width = (high - low).clamp(min=0.0)
    wanted = subject.tensor((update / np.linalg.norm(update)).astype(np.float32))
    trainable = [p for p in subject.model.parameters() if p.requires_grad]
    shares = subject.tensor(rng.random((len(y), *low.shape)).astype(np.float32)).requires_grad_()
    optimizer = torch.optim.Adam([shares], rate)
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [int(iterations * part) for part in (0.375, 0.625, 0.875)], 0.3
    )
    with torch.enable_grad():
        for step in range(iterations):
            losses = federation.objective(subject.model, (low + width * shares, y))
            parts = torch.autograd.grad(losses.mean(), trainable, create_graph=True, allow_unused=True)
            if all(part is None for part in parts):
                return None
            flat = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for p, g in zip(trainable, parts, strict=True)
                ]
            )
            distance = 1.0 - (flat @ wanted) / flat.norm().clamp(min=1e-30)
            if low.ndim >= 2:
                distance = distance + variation * (1.0 - step / iterations) * _total_variation(shares)
            (slope,) = torch.autograd.grad(distance, [shares], allow_unused=True)
            if slope is None or not torch.isfinite(slope).all():
                return None
            shares.grad = slope.sign()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                shares.clamp_(0.0, 1.0)
    found: Array = (low + width * shares).detach().double().cpu().numpy()
    return found


def _total_variation(images: Tensor) -> Tensor:
    rows = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    columns = (images[..., :, 1:] - images[..., :, :-1]).abs().mean()
    return rows + columns
