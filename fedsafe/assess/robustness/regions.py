"""Where an attack may move inputs: within a radius in the maximum or the Euclidean norm, inside the public bounds."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Region(Protocol):
    """The allowed inputs around some clean ones. It holds the clean ones, and `project` reaches nothing else."""

    @property
    def norm(self) -> str:
        """The name: "linf" or "l2"."""

    @property
    def radius(self) -> float:
        """In encoded units."""

    def take(self, rows: Tensor) -> "Region":
        """The region around those of the clean inputs."""

    def project(self, x: Tensor) -> Tensor:
        """An allowed input near each of ``(n, *inputs)``; itself where it is allowed."""

    def step(self, gradient: Tensor) -> Tensor:
        """The longest useful step ``(n, *inputs)`` along a gradient, before it is projected."""

    def uniform(self, rng: np.random.Generator) -> Tensor:
        """An allowed input at random for each clean one."""

    def extreme(self, rng: np.random.Generator) -> Tensor:
        """An allowed input on the edge, at random, for each clean one."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """At most `radius` in every perturbable feature, inside the public bounds.

    Attributes:
        low: ``(n, *inputs)`` smallest allowed values.
        high: ``(n, *inputs)`` largest allowed values; equal to `low` where a feature may not move.
        radius: Largest change of a feature, in encoded units.
    """

    low: Tensor
    high: Tensor
    radius: float
    norm: str = "linf"

    @classmethod
    def around(cls, x: Tensor, radius: float, low: Tensor, high: Tensor, perturbable: Tensor) -> "Box":
        """The box of a radius around clean inputs.

        Args:
            x: ``(n, *inputs)`` clean inputs; one outside the bounds may stay where it is.
            radius: Largest change of a feature, in encoded units.
            low: ``(*inputs,)`` public lower bounds.
            high: ``(*inputs,)`` public upper bounds.
            perturbable: ``(*inputs,)`` features that may move.
        """
        below = torch.minimum(torch.maximum(x - radius, low), x)
        above = torch.maximum(torch.minimum(x + radius, high), x)
        return cls(
            low=torch.where(perturbable, below, x), high=torch.where(perturbable, above, x), radius=radius
        )

    def take(self, rows: Tensor) -> "Box":
        """The boxes of those rows."""
        return replace(self, low=self.low[rows], high=self.high[rows])

    def project(self, x: Tensor) -> Tensor:
        """The nearest point of the box."""
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def step(self, gradient: Tensor) -> Tensor:
        """From one side of the box to the other, by the sign of the gradient."""
        return 2 * self.radius * gradient.sign()

    def uniform(self, rng: np.random.Generator) -> Tensor:
        """A point of each box at random."""
        share = torch.tensor(rng.random(self.low.shape, dtype=np.float32), device=self.low.device)
        return self.project(self.low + share * (self.high - self.low))

    def extreme(self, rng: np.random.Generator) -> Tensor:
        """A corner of each box at random."""
        side = torch.tensor(rng.random(self.low.shape, dtype=np.float32) < 0.5, device=self.low.device)
        return torch.where(side, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Ball:
    """At most `radius` from the clean input in the Euclidean norm, inside the public bounds.

    Attributes:
        clean: ``(n, *inputs)`` clean inputs.
        reach: The bounds, with what may not move held fast.
        radius: In encoded units.
    """

    clean: Tensor
    reach: Box
    radius: float
    norm: str = "l2"

    @classmethod
    def around(cls, x: Tensor, radius: float, low: Tensor, high: Tensor, perturbable: Tensor) -> "Ball":
        """The ball of a radius around clean inputs; see `Box.around`."""
        # No coordinate can move further than the radius.
        return cls(clean=x, reach=Box.around(x, radius, low, high, perturbable), radius=radius)

    def take(self, rows: Tensor) -> "Ball":
        """The balls of those rows."""
        return replace(self, clean=self.clean[rows], reach=self.reach.take(rows))

    def project(self, x: Tensor) -> Tensor:
        """Shrunk to the ball, then clipped to the bounds, which only brings it nearer to the clean input."""
        moved = torch.where(self.reach.high > self.reach.low, x - self.clean, 0.0)
        return self.reach.project(self.clean + moved * (self.radius / _norm(moved)).clamp(max=1.0))

    def step(self, gradient: Tensor) -> Tensor:
        """A diameter along the gradient, in the features that may move."""
        free = torch.where(self.reach.high > self.reach.low, gradient, 0.0)
        # The square of a very small or large gradient has no float32: bring the largest entry to 1 first.
        largest = free.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(free.dtype).tiny)
        free = free / largest.view(-1, *([1] * (free.ndim - 1)))
        step: Tensor = 2 * self.radius * free / _norm(free)
        return step

    def uniform(self, rng: np.random.Generator) -> Tensor:
        """A point of each ball at random, before it is clipped to the bounds."""
        edge = self._direction(rng) * self.radius
        free = (self.reach.high > self.reach.low).flatten(1).sum(dim=1).clamp(min=1).cpu().numpy()
        share = torch.tensor(
            rng.random(len(self.clean)) ** (1.0 / free), dtype=edge.dtype, device=edge.device
        )
        return self.project(self.clean + edge * share.view(-1, *([1] * (edge.ndim - 1))))

    def extreme(self, rng: np.random.Generator) -> Tensor:
        """A point of each sphere at random, clipped to the bounds."""
        return self.project(self.clean + self._direction(rng) * self.radius)

    def _direction(self, rng: np.random.Generator) -> Tensor:
        drawn = rng.standard_normal(self.clean.shape, dtype=np.float32)
        free = torch.where(
            self.reach.high > self.reach.low, torch.tensor(drawn, device=self.clean.device), 0.0
        )
        direction: Tensor = free / _norm(free)
        return direction


def _norm(x: Tensor) -> Tensor:
    """Euclidean norm of each example, shaped to divide it; never 0."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1).clamp(min=1e-12)
    return norm.view(-1, *([1] * (x.ndim - 1)))
