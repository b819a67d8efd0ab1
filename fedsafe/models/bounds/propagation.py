"""Lower bounds on margins over a region of inputs: by intervals, and by linear relaxation backwards (IBP and CROWN).

Both elide the margin: the difference of two logits is bounded as one linear function of what comes before the last
layers, not as the difference of two bounds.

Guarantees:
    In exact arithmetic no input of the region has a smaller margin than the bound. With a `Rounding`, and in float64,
    no input of the region has a smaller margin *as the model computes it*, whatever either of them rounds off.

    ================================  ==================================================================
    where                             then
    ================================  ==================================================================
    the network is affine             both bounds are the exact minimum (L2: to about seven digits)
    radius 0                          both are the clean margin
    rounding                          enclosed with a `Rounding`, both the model's and the bound's own; else neither
    numbers too large for the model   with a `Rounding` the bound is NaN or -inf, which proves nothing
    ================================  ==================================================================
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedsafe.models.bounds.activations import Elementwise, MaxPooling
from fedsafe.models.bounds.network import Network, trace
from fedsafe.models.bounds.operations import Affine, Bounds, Operation, Reshape, Slope
from fedsafe.models.bounds.region import InputRegion
from fedsafe.models.bounds.relaxation import Relaxed, bends, charge, spread
from fedsafe.models.bounds.rounding import Rounding


def intervals(network: Network, region: InputRegion, rounding: Rounding | None = None) -> list[Bounds]:
    """Enclosures of the input and of every step's output over the region, by intervals (Gowal et al. 2018).

    Differentiable. In the Euclidean norm the first affine step is bounded by the norms of its rows, too. With a
    rounding they hold what the model computes.
    """
    own = 0.0 if rounding is None else rounding.own
    bounds: list[Bounds] = [(region.low, region.high)]
    # While a value is the input itself, in whatever shape: which entries may move, and the clean value.
    raw: dict[int, tuple[Tensor, Tensor]] = {}
    if region.norm == "l2":
        raw[0] = ((region.high > region.low).to(region.clean.dtype), region.clean)
    for number, step in enumerate(network.steps, start=1):
        low, high = step.operation.interval(*(bounds[i] for i in step.inputs))
        start = raw.get(step.inputs[0])
        if start is not None and isinstance(step.operation, Affine):
            free, clean = start
            middle = step.operation.forward(clean)
            if isinstance(step.operation, Reshape):
                raw[number] = step.operation.forward(free), middle
            else:
                reach = region.radius * (1 + own) * step.operation.lines(2)(free).sqrt()
                low, high = torch.maximum(low, middle - reach), torch.minimum(high, middle + reach)
        bounds.append(_widened(step.operation, [bounds[i] for i in step.inputs], (low, high), rounding))
    return bounds


def _widened(
    operation: Operation, inputs: Sequence[Bounds], output: Bounds, rounding: Rounding | None
) -> Bounds:
    if rounding is None:
        return output
    room = rounding.step(operation, inputs)
    return output[0] - room, output[1] + room


def interval_margins(
    network: Network,
    region: InputRegion,
    y: Tensor,
    bounds: Sequence[Bounds] | None = None,
    *,
    rounding: Rounding | None = None,
) -> Tensor:
    """``(n,)`` lower bounds on the margin of the true class over the best other, by intervals; differentiable.

    Args:
        network: With one logit for class 1 against 0, or one for each class.
        region: Of n inputs.
        y: ``(n,)`` true classes.
        bounds: What `intervals` gave, if it is at hand.
        rounding: What is rounded off, of which the bound is then free; None for exact arithmetic.
    """
    bounds = intervals(network, region, rounding) if bounds is None else bounds
    questions, owner = _questions(network, y)
    coefficients = {len(network.steps): questions}
    constant = questions.new_zeros(len(questions))
    for number in range(len(network.steps), -1, -1):
        rows = coefficients.pop(number, None)
        if rows is None:
            continue
        step = network.steps[number - 1] if number else None
        if rounding is not None:
            room = (
                rounding.start(region)
                if step is None
                else rounding.step(step.operation, [bounds[i] for i in step.inputs])
            )
            constant = constant - charge(rows, room, owner)
        if step is None:
            constant = constant + region.least(rows, owner)
        elif isinstance(step.operation, Elementwise | MaxPooling):
            low, high = (end[owner] for end in bounds[number])
            constant = constant + torch.where(rows > 0, rows * low, rows * high).flatten(1).sum(dim=1)
        else:
            parts, more = step.operation.backward(rows, owner, None)
            constant = constant + more
            spread(coefficients, step.inputs, parts)
    return _worst(constant, len(y))


@torch.no_grad()
def relaxed_margins(
    network: Network,
    region: InputRegion,
    y: Tensor,
    *,
    refine: bool = True,
    slopes: Sequence[Slope] = ("adaptive", "parallel"),
    rounding: Rounding | None = None,
) -> Tensor:
    """``(n,)`` lower bounds on the margin by linear relaxation (CROWN, Zhang et al. 2018).

    They are never below `interval_margins`, and have no gradients.

    Args:
        network: With one logit for class 1 against 0, or one for each class.
        region: Of n inputs.
        y: ``(n,)`` true classes.
        refine: Whether the intervals before each activation are found by relaxation, too, where they matter; by
            intervals alone it is what Zhang et al. 2020 call CROWN-IBP, faster and looser.
        slopes: Lower lines of ReLUs to try; every one gives a bound, and the best of them counts.
        rounding: What is rounded off, of which the bound is then free; None for exact arithmetic.
    """
    bounds = intervals(network, region, rounding)
    relaxed = {slope: Relaxed(network, region, slope, rounding) for slope in slopes}
    for number, step in enumerate(network.steps, start=1):
        operation, inputs = step.operation, tuple(bounds[i] for i in step.inputs)
        for one in relaxed.values():
            one.learn(number, inputs)
        if refine:
            low, high = _widened(operation, inputs, operation.interval(*inputs), rounding)
            bounds[number] = torch.maximum(low, bounds[number][0]), torch.minimum(high, bounds[number][1])
            if bends(network, number):
                bounds[number] = next(iter(relaxed.values())).refined(number, bounds[number])
    questions, owner = _questions(network, y)
    best = interval_margins(network, region, y, bounds, rounding=rounding)
    for one in relaxed.values():
        found = one.least(len(network.steps), questions, owner)
        best = torch.maximum(best, _worst(found, len(y)))
    return best


def ibp_margin(model: nn.Module, x: Tensor, y: Tensor, radius: float) -> Tensor:
    """``(n,)`` interval bounds on the margin within a maximum norm, differentiable in the model's parameters.

    What certified training raises (Gowal et al. 2018).

    Args:
        model: In evaluation mode, see `trace`.
        x: ``(n, *shape)`` inputs.
        y: ``(n,)`` true classes.
        radius: In encoded units; no public bounds are taken into account.

    Raises:
        ModelError: The model has a step without bounds.
    """
    network = trace(model, tuple(x.shape[1:]))
    return interval_margins(network, InputRegion.around(x, radius), y)


def questions(network: Network, *, refine: bool) -> int:
    """How many linear functions `relaxed_margins` takes back for one example and lower line, at most."""
    values = [n for n in range(1, len(network.shapes)) if refine and bends(network, n)]
    return max(1, network.shapes[-1][0] - 1) + 2 * sum(torch.Size(network.shapes[n]).numel() for n in values)


def _questions(network: Network, y: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients ``(n * others, outputs)`` of true logit less each other, and their owners."""
    (outputs,) = network.shapes[-1]
    dtype = next(
        (v.dtype for s in network.steps for v in vars(s.operation).values() if isinstance(v, Tensor)), None
    )
    dtype = torch.get_default_dtype() if dtype is None else dtype
    rows = torch.arange(len(y), device=y.device)
    if outputs == 1:
        return (2 * y - 1).to(dtype)[:, None], rows
    own = functional.one_hot(y, outputs).to(dtype)
    others = (
        torch.arange(outputs, device=y.device).expand(len(y), outputs)[own == 0].reshape(len(y), outputs - 1)
    )
    every = own[:, None] - functional.one_hot(others, outputs).to(dtype)
    return every.flatten(0, 1), rows.repeat_interleave(outputs - 1)


def _worst(found: Tensor, n: int) -> Tensor:
    return found.reshape(n, -1).amin(dim=1)
