"""Attacks that go as far in one direction as the distances between honest rows allow."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.attacks.base import ALL_HONEST, Rows, repeated
from fedsafe.aggregation.attacks.moments import deviation
from fedsafe.aggregation.distances import squared_distances
from fedsafe.errors import ConfigError

Direction = Literal["deviation", "sign", "mean"]
_DIRECTIONS = ("deviation", "sign", "mean")


def direction_of(honest: Rows, direction: Direction) -> NDArray[np.float64]:
    """``(parameters,)`` where the adversaries go: against the deviation, the sign of the mean, or the unit mean.

    These are the inverse standard deviation, sign and unit vector of Shejwalkar and Houmansadr (2021).
    """
    mean: NDArray[np.float64] = honest.mean(axis=0)
    if direction == "deviation":
        return -deviation(honest)
    return -np.sign(mean) if direction == "sign" else -mean / max(float(np.linalg.norm(mean)), 1e-300)


def _require_direction(attack: str, direction: object) -> None:
    if direction not in _DIRECTIONS:
        raise ConfigError(
            f"byzantine.attack ({attack}): direction = {direction!r}; it is {', '.join(_DIRECTIONS[:-1])} or "
            f"{_DIRECTIONS[-1]}"
        )


@final
@dataclass(frozen=True, kw_only=True)
class MinMax:
    """No farther from any honest row than the two honest rows farthest apart (Shejwalkar and Houmansadr, 2021).

    The malicious row is ``mean + gamma p`` with the largest such gamma. The authors halve an interval; here each honest
    row's condition is a quadratic equation, of which the smallest positive root counts.

    Args:
        direction: p: ``"deviation"`` (the default), ``"sign"`` or ``"mean"``, each reversed.
    """

    direction: Direction = "deviation"
    name: ClassVar[str] = "min_max"
    sees: ClassVar[str] = ALL_HONEST

    def __post_init__(self) -> None:
        """Refuse a direction that is none."""
        _require_direction(self.name, self.direction)

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """The same row of each."""
        mean, towards = honest.mean(axis=0), direction_of(honest, self.direction)
        apart = mean - honest
        widest = squared_distances(honest).max()
        room = np.maximum(widest - np.einsum("ij,ij->i", apart, apart), 0.0)
        gamma = _farthest(float(towards @ towards), apart @ towards, room)
        return repeated(mean + gamma * towards, adversaries)


@final
@dataclass(frozen=True, kw_only=True)
class MinSum:
    """No larger sum of squared distances to the honest rows than any of them has (Shejwalkar and Houmansadr, 2021).

    Args:
        direction: As for :class:`MinMax`.
    """

    direction: Direction = "deviation"
    name: ClassVar[str] = "min_sum"
    sees: ClassVar[str] = ALL_HONEST

    def __post_init__(self) -> None:
        """Refuse a direction that is none."""
        _require_direction(self.name, self.direction)

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """The same row of each."""
        mean, towards = honest.mean(axis=0), direction_of(honest, self.direction)
        apart = mean - honest
        largest = squared_distances(honest).sum(axis=1).max()
        room = max(float(largest - np.einsum("ij,ij->", apart, apart)), 0.0)
        # The rows' deviations from their mean sum to zero, and with them the linear part.
        gamma = _farthest(len(honest) * float(towards @ towards), np.zeros(1), np.array([room]))
        return repeated(mean + gamma * towards, adversaries)


def _farthest(square: float, linear: NDArray[np.float64], room: NDArray[np.float64]) -> float:
    """The largest gamma with ``square gamma^2 + 2 linear gamma <= room`` for all; zero if there is no direction."""
    if square <= 0.0:
        return 0.0
    root = np.sqrt(linear**2 + square * room)
    # Of the two forms of the root, the one that subtracts nothing.
    positive = linear > 0.0
    sums = np.where(positive, linear + root, 1.0)
    return float(np.where(positive, room / sums, (root - linear) / square).min())
