"""Ways to bound a margin from below, by name: intervals, linear relaxation, or the user's own.

The built-in ones are of the margin as the model computes it in its own precision, rounding included
(`fedsafe.models.bounds.Rounding`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from fedsafe.models.bounds import (
    InputRegion,
    Network,
    Rounding,
    interval_margins,
    relaxed_margins,
    trace,
)


class Bound(Protocol):
    """Proves margins. A user's own is a function with these arguments, named by its import path."""

    def __call__(self, model: nn.Module, region: InputRegion, y: Tensor, *, thorough: bool) -> Tensor:
        """Bounds margins.

        Args:
            model: In evaluation mode, on the CPU, with one logit for class 1 against 0, or one for each class.
            region: Around n inputs ``(n, *inputs)``, in float64.
            y: ``(n,)`` true classes.
            thorough: Whether the bound may take its time.

        Returns:
            ``(n,)`` lower bounds on true logit less the best other, over every input of the region.

        Raises:
            ModelError: The model has a step without bounds.
        """


def _network(model: nn.Module, region: InputRegion) -> tuple[Network, Rounding]:
    """The model's steps in double precision, and what it rounds off in its own."""
    network = trace(model, tuple(region.clean.shape[1:])).to(torch.float64)
    tensors = (*model.parameters(), *model.buffers())
    kinds = [t.dtype for t in tensors if t.is_floating_point()] or [torch.get_default_dtype()]
    return network, Rounding(network, max(kinds, key=lambda kind: torch.finfo(kind).eps))


def ibp(model: nn.Module, region: InputRegion, y: Tensor, *, thorough: bool = True) -> Tensor:
    """Interval bound propagation (Gowal et al. 2018), with margin elision; see `Bound`."""
    network, rounding = _network(model, region)
    return interval_margins(network, region, y, rounding=rounding)


def crown(model: nn.Module, region: InputRegion, y: Tensor, *, thorough: bool = True) -> Tensor:
    """Backward linear relaxation (CROWN, Zhang et al. 2018); see `Bound`.

    First with intervals before each activation, which is quick (CROWN-IBP, Zhang et al. 2020); where that proves
    nothing and the bound may take its time, with relaxation there, too.
    """
    network, rounding = _network(model, region)
    margins = relaxed_margins(network, region, y, refine=False, rounding=rounding)
    if thorough:
        (left,) = torch.nonzero(~(margins > 0), as_tuple=True)
        if len(left):
            margins[left] = relaxed_margins(network, region.take(left), y[left], rounding=rounding)
    return margins


@torch.no_grad()
def room(method: str, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Margins of clean inputs in exact arithmetic, and how much of them a built-in bound leaves for rounding.

    Args:
        method: "ibp", which adds up absolute values, or "crown", whose slopes may cancel.
        model: See `Bound`.
        x: ``(n, *inputs)`` in float64.
        y: ``(n,)`` true classes.

    Returns:
        ``(n,)`` margins and ``(n,)`` rooms.

    Raises:
        ModelError: The model has a step without bounds.
    """
    region = InputRegion.around(x, 0.0)
    network, rounding = _network(model, region)
    exact = interval_margins(network, region, y)
    if method == "ibp":
        return exact, exact - interval_margins(network, region, y, rounding=rounding)
    return exact, exact - relaxed_margins(network, region, y, refine=False, rounding=rounding)


BOUNDS: Mapping[str, Callable[..., Tensor]] = MappingProxyType({"ibp": ibp, "crown": crown})
"""The built-in bounds by name."""
