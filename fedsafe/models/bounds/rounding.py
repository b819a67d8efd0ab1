"""How far rounding may carry what a model computes, bounded before anything is run.

A sum of n products that is computed in any order lies within ``gamma(n) = n u / (1 - n u)`` times the sum of their
absolute values (Higham 2002, sections 3.1 and 3.5), with u the unit roundoff: 2^-24 in single precision. Of each step
of a network two such errors are added up: that of the model as it runs, and, with u = 2^-53 and room to spare, that of
the bound itself, which is computed in double precision. What a step computes is then ``W v + b + d`` with ``|d|`` below
what :meth:`Rounding.step` says, v being what the step before *computed*: intervals are widened by it, and a linear
function ``A v`` pays ``|A| d`` for it on the way back.

Assumptions, which a certificate says:
    The model is computed step by step in its own precision, products and sums rounded to nearest. Convolutions by
    Winograd's or Fourier's transform, TensorFloat-32 and mixed precision are other arithmetic. The library's tanh and
    logistic function are right to 16 units roundoff.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedsafe.models.bounds.operations import Bounds, Operation

if TYPE_CHECKING:
    from fedsafe.models.bounds.network import Network
    from fedsafe.models.bounds.region import InputRegion

# The bound's own roundings: at most four passes over what one step adds up, and those of these sums themselves.
_OWN = 8.0


def gamma(roundings: int, unit: float) -> float:
    """``n u / (1 - n u)``; infinite where that proves nothing (Higham 2002, lemma 3.1)."""
    share = roundings * unit
    return share / (1 - share) if share < 1 else float("inf")


class Rounding:
    """Room for the rounding of a model, and of the bounds on it.

    Args:
        network: With constants in double precision, in which bounds are computed.
        dtype: In which the model runs.

    Attributes:
        own: Share of the absolute terms that the bounds' own sums may lose.
    """

    def __init__(self, network: "Network", dtype: torch.dtype = torch.float32) -> None:
        number = torch.finfo(dtype)
        self._unit, self._least, self._most = number.eps / 2, number.tiny, number.max
        # Of any sum that the bounds consist of: over a step's inputs, its outputs, all entries, and the steps.
        weights = [w for step in network.steps if (w := getattr(step.operation, "weight", None)) is not None]
        sizes = [w[0].numel() for w in weights] + [w.numel() // w.shape[1] for w in weights]
        entries = [torch.Size(shape).numel() for shape in network.shapes]
        self._terms = max(sizes + entries) + len(entries) + 64
        self.own = _OWN * gamma(self._terms, 2.0**-53)

    def step(self, operation: Operation, inputs: Sequence[Bounds]) -> Tensor:
        """``(n, *shape)`` how far a step's output may be from the exact one of the same inputs.

        Args:
            operation: The step.
            inputs: Bounds on what the steps before it compute.

        Returns:
            Errors of each entry; infinite where the model's numbers may be too large for its precision.
        """
        sizes = [torch.maximum(low.abs(), high.abs()) for low, high in inputs]
        room = operation.rounded(lambda n: gamma(n, self._unit) + self.own, *sizes)
        # At least its own share of the absolute terms: so these are finite in the model, with room to spare.
        fits = room < self.own * self._most / 4
        # Products too small for full precision lose at most the least normal number each.
        return torch.where(fits, room * (1 + 1e-6) + self._terms * self._least, torch.inf)

    def start(self, region: "InputRegion") -> Tensor:
        """``(n, *shape)`` the bound's own error in a linear function of the input, for coefficients of size 1."""
        size = torch.maximum(region.low.abs(), region.high.abs())
        reach = region.radius if region.norm == "l2" else 0.0
        return self.own * (size + reach)
