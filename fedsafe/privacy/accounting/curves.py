"""Epsilon against delta, of everything together, by the closest way of counting that there is.

In this order: the closed form where nothing is sampled (Balle and Wang 2018); privacy loss distributions (PLD),
upper bounds whose slack is set by the discretisation (Meiser and Mohammadi 2018, Koskela et al. 2020, Doroshenko et al.
2022); Rényi differential privacy (RDP) for fixed-size cohorts, or where the PLD fails, which is then said. Never the
central-limit formula of Gaussian differential privacy: it under-reports (rate 0.01, noise 0.7, 120 steps, delta 1e-5:
1.06 where the truth is 2.46).

dp-accounting and scipy's solvers take a second to import, and a worker, which follows a plan, accounts for nothing:
they are imported when they are used.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Protocol

from fedsafe.privacy.accounting.losses import TooWideError, one_way, release_losses
from fedsafe.privacy.accounting.releases import (
    FixedSizeGaussian,
    Release,
    SampledGaussian,
    unsampled_noise,
)
from fedsafe.privacy.accounting.renyi import renyi_curve

# Headline figures use the fine interval; a curve over many horizons uses the coarse one. Both are upper bounds.
FINE = 1e-4
COARSE = 1e-3

# Points of one distribution, and of a composed one: what is wider takes more memory and time than it is worth.
_MOST_POINTS = 2**21
_MOST_COMPOSED = 2**24
# Beyond this, exponentials overflow.
_MOST_EPSILON = 2.0**20


def accountant_name(interval: float = FINE) -> str:
    """Name, version and interval of the accountant of planned, sampled releases, as printed in a claim."""
    return f"PLD, dp-accounting {version('dp-accounting')}, interval {interval:g}"


class Curve(Protocol):
    """What epsilon and delta the releases have together."""

    def epsilon(self, delta: float) -> float:
        """The least epsilon at that delta, infinite if there is none."""

    def delta(self, epsilon: float) -> float:
        """The least delta at that epsilon."""

    def name(self, delta: float) -> str:
        """The accountant, as printed in a claim."""


@dataclass(frozen=True, kw_only=True)
class GaussianCurve:
    """One Gaussian of sensitivity 1: exact (Balle and Wang 2018, theorem 8).

    Args:
        noise: Standard deviation over what the element moves; zero for no noise at all.
    """

    noise: float

    def epsilon(self, delta: float) -> float:
        """Rounded up until delta holds."""
        return math.inf if self.noise == 0.0 else least_epsilon(self.delta, delta, 2.0**40)

    def delta(self, epsilon: float) -> float:
        """Phi(1/(2s) - e s) - exp(e) Phi(-1/(2s) - e s), in logarithms."""
        from scipy.special import log_ndtr

        if self.noise == 0.0:
            return 1.0
        first = float(log_ndtr(0.5 / self.noise - epsilon * self.noise))
        second = epsilon + float(log_ndtr(-0.5 / self.noise - epsilon * self.noise))
        return math.exp(first) * -math.expm1(second - first) if second < first else 0.0

    def name(self, delta: float) -> str:
        """It is no PLD."""
        return f"exact Gaussian (Balle and Wang 2018), dp-accounting {version('dp-accounting')}"


@dataclass(frozen=True, kw_only=True)
class LossCurve:
    """Of a privacy loss distribution of dp-accounting.

    Args:
        losses: The distribution.
        interval: Of its discretisation.
    """

    losses: Any
    interval: float

    def epsilon(self, delta: float) -> float:
        """Infinite where delta is below what the arithmetic resolves."""
        return least_epsilon(self.delta, delta, _MOST_EPSILON)

    def delta(self, epsilon: float) -> float:
        """An upper bound too."""
        return float(self.losses.get_delta_for_epsilon(epsilon))

    def name(self, delta: float) -> str:
        """With the interval."""
        return accountant_name(self.interval)


def least_epsilon(delta_at: Callable[[float], float], delta: float, most: float) -> float:
    """The least epsilon whose delta is no larger, from above; infinite beyond ``most``."""
    from scipy.optimize import brentq

    if delta_at(0.0) <= delta:
        return 0.0
    high = 1.0
    while delta_at(high) > delta:
        high *= 2.0
        if high > most:
            return math.inf
    low = high / 2.0 if high > 1.0 else 0.0
    found = float(brentq(lambda x: delta_at(x) - delta, low, high, xtol=1e-12))
    step = 1e-12
    while delta_at(found) > delta:
        found += step * max(1.0, found)
        step *= 2.0
    return found


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A curve, and why it is not the closest one, if it is not.

    Args:
        curve: The bound.
        reason: Why PLD was not used; None where it was, or where the curve is exact.
        fallback: Whether PLD was tried, and failed.
    """

    curve: Curve
    reason: str | None = None
    fallback: bool = False


@lru_cache(maxsize=16)
def count(releases: tuple[Release, ...], interval: float) -> Counted:
    """The curve of everything in ``releases``, none of which is without cost or without noise.

    Args:
        releases: Under one adjacency.
        interval: Of a PLD, if it is one; ten times coarser, twice at most, where the grid would be too wide.
    """
    noise = unsampled_noise(releases)
    if noise is not None:
        return Counted(curve=GaussianCurve(noise=noise))
    if any(isinstance(release, FixedSizeGaussian) for release in releases):
        return Counted(curve=renyi_curve(releases), reason="cohorts of fixed size have no tight bound")
    sampled = tuple(release for release in releases if isinstance(release, SampledGaussian))
    failure: Exception | None = None
    for coarser in (interval, 10.0 * interval, 100.0 * interval):
        try:
            curve = composed(sampled, coarser)
        except TooWideError as error:
            failure = failure or error
        except (MemoryError, ArithmeticError, ValueError) as error:
            failure = error
            break
        else:
            why = f"at interval {interval:g}, {failure}" if failure else None
            return Counted(curve=curve, reason=why)
    return renyi_instead(releases, f"PLD failed ({type(failure).__name__}: {failure})")


def renyi_instead(releases: tuple[Release, ...], why: str) -> Counted:
    """The fallback, with the reason for it."""
    return Counted(curve=renyi_curve(releases), reason=why, fallback=True)


def composed(releases: Sequence[SampledGaussian], interval: float, group: int = 1) -> LossCurve:
    """The PLD of everything together.

    Args:
        releases: At least one, under one adjacency.
        interval: Of the discretisation.
        group: How many elements change together, each of which is sampled by itself; 1 under replace-one.

    Raises:
        TooWideError: The grid of losses would have too many points.
    """
    sampled = [release for release in releases if release.rate < 1.0]
    parts = [_repeated(release, interval, group) for release in sampled]
    rest = unsampled_noise([release for release in releases if release.rate == 1.0])
    if rest is not None and math.isfinite(rest):
        # All that is not sampled is one Gaussian: losses of one release at rate 1.
        whole = SampledGaussian(rate=1.0, noise=rest / group, count=1)
        parts.append(release_losses(whole, interval, 1, _MOST_POINTS))
    losses = parts[0]
    for part in parts[1:]:
        losses = losses.compose(part)
    return LossCurve(losses=losses, interval=interval)


def _repeated(release: SampledGaussian, interval: float, group: int) -> Any:
    one = release_losses(replace(release, count=1), interval, group, _MOST_POINTS)
    wide = composed_points(release, interval, group)
    if wide > _MOST_COMPOSED:
        raise TooWideError(f"{release.count} releases have about {wide:.2g} points")
    return one.self_compose(release.count)


def composed_points(release: SampledGaussian, interval: float, group: int = 1) -> float:
    """About how many points the composed distribution has: four times one release, or nine deviations each way."""
    pair = one_way(release, group)
    low, high = pair.bounds()
    return (4.0 * (high - low) + 18.0 * pair.deviation() * math.sqrt(release.count)) / interval
