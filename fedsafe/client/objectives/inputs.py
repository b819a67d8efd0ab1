"""Where a perturbed input may be: within a radius, inside the public bounds, with what nobody can change held fast."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from fedsafe.data.inputs import InputSchema
from fedsafe.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InputBounds:
    """The public bounds of one example.

    Args:
        low: ``(*shape)`` lowest encoded values.
        high: ``(*shape)`` highest.
        free: ``(*shape)`` which features may move.
    """

    low: Tensor
    high: Tensor
    free: Tensor

    @classmethod
    def of(cls, schema: InputSchema | None, objective: str) -> Self:
        """Those that a schema declares.

        Args:
            schema: Of the task's inputs.
            objective: Who asks, for the message.

        Raises:
            ConfigError: There is none, inputs are tokens, or no feature may move.
        """
        if schema is None:
            raise ConfigError(
                f"client.objective = {objective!r} needs the public bounds of the inputs: give build_objective the "
                "task's schema"
            )
        if schema.vocabulary is not None:
            raise ConfigError(
                f"client.objective = {objective!r} perturbs numbers, and this task's inputs are tokens, between which "
                "there is nothing: use cross_entropy"
            )
        if not schema.perturbable.any():
            raise ConfigError(
                f"client.objective = {objective!r} has nothing to perturb: every feature of this task is categorical "
                "or cannot be changed; use the plain objective"
            )
        return cls(
            low=torch.from_numpy(schema.low.copy()),
            high=torch.from_numpy(schema.high.copy()),
            free=torch.from_numpy(schema.perturbable.copy()),
        )

    @property
    def width(self) -> int:
        """How many features one example has."""
        return self.low.numel()

    def box(self, x: Tensor, radius: float | Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of each feature within a radius; an input beyond the bounds may stay where it is.

        Args:
            x: ``(n, *shape)``.
            radius: One for all, or ``(n,)``.
        """
        if isinstance(radius, Tensor):
            radius = radius.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        low, high = self.low.to(x), self.high.to(x)
        below = torch.minimum(torch.maximum(x - radius, low), x)
        above = torch.maximum(torch.minimum(x + radius, high), x)
        free = self.free.to(x.device)
        return torch.where(free, below, x), torch.where(free, above, x)
