"""Ways to bound a margin from below, by name: intervals, linear relaxation, or the user's own."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

from fedsafe.models.bounds import InputRegion, Network, interval_margins, relaxed_margins, trace


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


def _network(model: nn.Module, region: InputRegion) -> Network:
    return trace(model, tuple(region.clean.shape[1:])).to(torch.float64)


def ibp(model: nn.Module, region: InputRegion, y: Tensor, *, thorough: bool = True) -> Tensor:
    """Interval bound propagation (Gowal et al. 2018), with margin elision; see `Bound`."""
    return interval_margins(_network(model, region), region, y)


def crown(model: nn.Module, region: InputRegion, y: Tensor, *, thorough: bool = True) -> Tensor:
    """Backward linear relaxation (CROWN, Zhang et al. 2018); see `Bound`.

    First with intervals before each activation, which is quick (CROWN-IBP, Zhang et al. 2020); where that proves
    nothing and the bound may take its time, with relaxation there, too.
    """
    network = _network(model, region)
    margins = relaxed_margins(network, region, y, refine=False)
    if thorough:
        (left,) = torch.nonzero(margins <= 0, as_tuple=True)
        if len(left):
            margins[left] = relaxed_margins(network, region.take(left), y[left])
    return margins


BOUNDS: Mapping[str, Callable[..., Tensor]] = MappingProxyType({"ibp": ibp, "crown": crown})
"""The built-in bounds by name."""
