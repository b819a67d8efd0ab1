"""The inputs that a bound must hold for: a ball around each clean one, inside the public bounds."""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

Norm = Literal["linf", "l2"]

# Halvings of the logarithm of a multiplier between 2^-40 and 2^40 of its scale: any multiplier gives a bound, this
# many the best one to seven digits.
_HALVINGS = 30


@dataclass(frozen=True, kw_only=True)
class InputRegion:
    """Around each of n inputs, those within a radius and the public bounds, with what may not move held fast.

    Attributes:
        clean: ``(n, *shape)``.
        low: ``(n, *shape)`` lowest value of each entry in the region.
        high: ``(n, *shape)`` highest.
        norm: "linf" or "l2".
        radius: In encoded units.
    """

    clean: Tensor
    low: Tensor
    high: Tensor
    norm: Norm
    radius: float

    @classmethod
    def around(
        cls,
        x: Tensor,
        radius: float,
        norm: Norm = "linf",
        *,
        low: Tensor | float = -torch.inf,
        high: Tensor | float = torch.inf,
        free: Tensor | bool = True,
    ) -> Self:
        """The region around clean inputs.

        Args:
            x: ``(n, *shape)``; one outside the bounds may stay where it is.
            radius: In encoded units.
            norm: "linf" or "l2".
            low: Lowest value, of an entry or of all.
            high: Highest value.
            free: Which entries may move.
        """
        low, high, free = (torch.as_tensor(value, device=x.device) for value in (low, high, free))
        below = torch.minimum(torch.maximum(x - radius, low.to(x.dtype)), x)
        above = torch.maximum(torch.minimum(x + radius, high.to(x.dtype)), x)
        below, above = torch.where(free, below, x), torch.where(free, above, x)
        return cls(clean=x, low=below, high=above, norm=norm, radius=float(radius))

    def take(self, rows: Tensor) -> Self:
        """The regions of some of the inputs."""
        return type(self)(
            clean=self.clean[rows],
            low=self.low[rows],
            high=self.high[rows],
            norm=self.norm,
            radius=self.radius,
        )

    def least(self, coefficients: Tensor, owner: Tensor, *, exact: bool = True) -> Tensor:
        """The smallest value of linear functions over the region.

        Args:
            coefficients: ``(pairs, *shape)``.
            owner: ``(pairs,)`` input of each.
            exact: Whether, in the Euclidean norm, ball and box count together, to about seven digits; else each alone.

        Returns:
            ``(pairs,)`` smallest values, or lower bounds of them.
        """
        slope = coefficients.flatten(1)
        down, up = ((end - self.clean).flatten(1)[owner] for end in (self.low, self.high))
        at_clean = torch.einsum("pi,pi->p", slope, self.clean.flatten(1)[owner])
        boxed = torch.where(slope > 0, slope * down, slope * up).sum(dim=1)
        if self.norm == "linf":
            return at_clean + boxed
        if not exact:
            free = torch.where(up > down, slope, 0.0)
            return at_clean + torch.maximum(boxed, -self.radius * torch.linalg.vector_norm(free, dim=1))
        return at_clean + torch.maximum(boxed, self._ball(slope, down, up))

    def _ball(self, slope: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """Least change within the ball and the box, by Lagrange duality in the radius.

        For any multiplier m > 0 the sum over entries of ``min_d slope d + m d^2``, d in the box, less ``m radius^2`` is
        a lower bound; the largest of them is the minimum.
        """
        size = torch.linalg.vector_norm(slope, dim=1).clamp(min=torch.finfo(slope.dtype).tiny)
        scale = size / (2 * max(self.radius, torch.finfo(slope.dtype).tiny))
        low = torch.full_like(size, -40.0)
        high = torch.full_like(size, 40.0)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            change = self._change(slope, down, up, scale * 2**middle)
            outside = torch.linalg.vector_norm(change, dim=1) > self.radius
            low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
        multiplier: Tensor = scale * 2**high
        change = self._change(slope, down, up, multiplier)
        pulled, held = slope * change, multiplier[:, None] * change**2
        found = pulled.sum(dim=1) + held.sum(dim=1) - multiplier * self.radius**2
        # Its sums are of both signs and may cancel: what they round off, at most.
        size = (pulled.abs() + held).sum(dim=1) + multiplier * self.radius**2
        room: Tensor = (slope.shape[1] + 16) * torch.finfo(slope.dtype).eps * size
        return found - room

    def _change(self, slope: Tensor, down: Tensor, up: Tensor, multiplier: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(-slope / (2 * multiplier[:, None]), down), up)
