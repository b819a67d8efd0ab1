"""What is accounted for: releases, as the protected element takes part in them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fedsafe.errors import ConfigError

Adjacency = Literal["zero-out", "add/remove", "replace-one"]


@dataclass(frozen=True, kw_only=True)
class SampledGaussian:
    """``count`` releases of a Poisson-sampled sum with Gaussian noise.

    Args:
        rate: Probability that the protected element takes part in one release.
        noise: Standard deviation over the clip (the noise multiplier). Under replace-one the sum moves by twice the
            clip, which the accountant knows: the multiplier is over the clip all the same.
        count: Number of releases.
        adjacency: What differs between neighbouring data sets.

    Raises:
        ConfigError: A number is out of range.
    """

    rate: float
    noise: float
    count: int
    adjacency: Adjacency = "zero-out"

    def __post_init__(self) -> None:
        _check("rate", self.rate, 0.0, 1.0)
        _check_noise_and_count(self.noise, self.count)


@dataclass(frozen=True, kw_only=True)
class FixedSizeGaussian:
    """``count`` releases of the sum over a cohort of fixed size, drawn without replacement, with Gaussian noise.

    Its neighbours differ by the replacement of one element, since removing one would let another in: the sum moves by
    twice the clip. The bound is RDP with half of ``noise`` (Wang, Balle and Kasiviswanathan 2019, theorem 27).

    Args:
        population: Elements that are drawn from.
        size: Elements that are drawn.
        noise: Standard deviation over the clip, as for :class:`SampledGaussian`.
        count: Number of releases.

    Raises:
        ConfigError: A number is out of range.
    """

    population: int
    size: int
    noise: float
    count: int

    def __post_init__(self) -> None:
        if not 0 < self.size <= self.population:
            raise ConfigError(
                f"a cohort of {self.size} cannot be drawn from {self.population} without replacement: "
                "make it one at least, and not larger than the population"
            )
        _check_noise_and_count(self.noise, self.count)

    @property
    def adjacency(self) -> Adjacency:
        """The only one that fixed sizes have."""
        return "replace-one"

    @property
    def rate(self) -> float:
        """The share that takes part."""
        return self.size / self.population


Release = SampledGaussian | FixedSizeGaussian


def counted(releases: Iterable[Release]) -> tuple[Release, ...]:
    """Those that cost anything, all under one adjacency.

    Raises:
        ConfigError: Adjacencies differ.
    """
    found = tuple(release for release in releases if release.count and release.rate > 0.0)
    kinds = sorted({release.adjacency for release in found})
    if len(kinds) > 1:
        raise ConfigError(
            f"releases under {' and '.join(kinds)} adjacency do not compose: account for all of them under one"
        )
    return found


def unsampled_noise(releases: Iterable[Release]) -> float | None:
    """The noise multiplier, over what the element moves, of one Gaussian that equals all; None if any is sampled.

    Infinite for nothing at all.

    Gaussians compose exactly: 1/noise^2 adds up (Dong, Roth and Su 2022, corollary 3.3).
    """
    precision = 0.0
    for release in releases:
        if release.rate < 1.0:
            return None
        moved = 2.0 if release.adjacency == "replace-one" else 1.0
        precision += release.count * (moved / release.noise) ** 2
    return precision**-0.5 if precision else math.inf


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"the {name} of a release is {value!r}: give a number from {low:g} to {high:g}")


def _check_noise_and_count(noise: float, count: int) -> None:
    _check("noise multiplier", noise, 0.0, math.inf)
    if count < 0 or count != int(count):
        raise ConfigError(f"the count of a release is {count!r}: give a whole number, 0 or more")
