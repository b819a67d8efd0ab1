"""Accounting: what a planned sequence of sampled Gaussian releases costs.

The numbers come from dp-accounting's privacy loss distributions (PLD), which are upper bounds whose slack is set
by the discretisation. Never the central-limit formula of Gaussian differential privacy: it under-reports
(rate 0.01, noise 0.7, 120 steps, delta 1e-5: 1.06 where the truth is 2.46).

dp-accounting and scipy's solvers take a second to import, and a worker, which follows a plan, accounts for nothing:
they are imported when they are used.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

from fedsafe.errors import CalibrationError

Adjacency = Literal["zero-out", "add/remove", "replace-one"]

# Headline figures use the fine interval; a curve over many horizons uses the coarse one. Both are upper bounds.
FINE = 1e-4
COARSE = 1e-3
LEAST_NOISE = 0.3
CURVE_POINTS = 50

# Names of dp-accounting's NeighboringRelation.
_RELATION = {
    "zero-out": "REPLACE_SPECIAL",
    "add/remove": "ADD_OR_REMOVE_ONE",
    "replace-one": "REPLACE_ONE",
}


def accountant_name() -> str:
    """Name and version, as printed in a claim."""
    return f"PLD, dp-accounting {version('dp-accounting')}, interval {FINE:g}"


@dataclass(frozen=True, kw_only=True)
class SampledGaussian:
    """``count`` releases of a Poisson-sampled sum with Gaussian noise.

    Args:
        rate: Probability that the protected element takes part in one release.
        noise: Standard deviation over sensitivity (the noise multiplier).
        count: Number of releases.
        adjacency: What differs between neighbouring data sets.
    """

    rate: float
    noise: float
    count: int
    adjacency: Adjacency = "zero-out"


@lru_cache(maxsize=512)
def epsilon(
    mechanism: SampledGaussian,
    delta: float,
    interval: float = FINE,
    also: tuple[SampledGaussian, ...] = (),
) -> float:
    """Upper bound on epsilon at ``delta``.

    Source: Meiser and Mohammadi (2018), Koskela et al. (2020), Doroshenko et al. (2022).

    Args:
        mechanism: What is released.
        delta: Probability that the bound fails.
        interval: Of the discretisation; any gives an upper bound, a smaller one a closer one.
        also: What the same protected element takes part in besides, under the same adjacency.
    """
    released = [part for part in (mechanism, *also) if part.count]
    if not released:
        return 0.0
    if any(part.noise == 0.0 for part in released):
        return math.inf
    return float(_composed(released, interval).get_epsilon(delta))


def group_epsilon(mechanism: SampledGaussian, delta: float, size: int) -> float:
    """Upper bound on epsilon for a group of ``size`` elements that change together.

    Source: Vadhan (2017), lemma 2.2: (e, d) for one gives (k e, d (1 + exp(e) + ... + exp((k-1) e))) for k. The
    smallest such e is found by bisection, so the result holds at the same ``delta``.
    """
    if mechanism.count == 0:
        return 0.0
    if mechanism.noise == 0.0:
        return math.inf
    accountant = _composed([mechanism], FINE)

    def excess(single: float) -> float:
        weight = sum(math.exp(min(700.0, step * single)) for step in range(size))
        return float(accountant.get_delta(single)) * weight - delta

    high = max(1.0, float(accountant.get_epsilon(delta)))
    while excess(high) > 0.0:
        high *= 2.0
        if high > 500.0:
            return math.inf
    low = 0.0
    while high - low > 1e-4 * max(1.0, high):
        middle = (low + high) / 2.0
        low, high = (middle, high) if excess(middle) > 0.0 else (low, middle)
    return size * high


def spending_curve(
    mechanism: SampledGaussian,
    delta: float,
    counts: Sequence[int],
    also: Callable[[int], tuple[SampledGaussian, ...]] = lambda count: (),
) -> list[float]:
    """Upper bounds on epsilon after each of ``counts`` releases, never above the plan's own figure.

    At most ``CURVE_POINTS`` horizons are composed, at the coarse interval; a count between two of them gets the
    figure of the larger, which bounds it.

    Args:
        mechanism: The whole plan's mechanism.
        delta: Probability that the bound fails.
        counts: Numbers of releases, ascending.
        also: What else is released by then; more for a larger count.
    """
    ceiling = epsilon(mechanism, delta, FINE, also(mechanism.count))
    distinct = sorted(set(counts))
    horizons = distinct[:: -max(1, len(distinct) // CURVE_POINTS)][::-1]
    bounds = []
    for count in horizons:
        part = SampledGaussian(
            rate=mechanism.rate, noise=mechanism.noise, count=count, adjacency=mechanism.adjacency
        )
        bounds.append(min(ceiling, epsilon(part, delta, COARSE, also(count))))
    return [bounds[bisect_left(horizons, count)] for count in counts]


@lru_cache(maxsize=256)
def calibrate_noise(
    target: float,
    delta: float,
    *,
    rate: float,
    count: int,
    adjacency: Adjacency = "zero-out",
    also: tuple[SampledGaussian, ...] = (),
) -> float:
    """A noise multiplier whose epsilon does not exceed ``target``, and is within 0.5 % of it.

    Never below ``LEAST_NOISE``: the loss distribution of less noise is too wide to handle, and more noise than
    asked for is always sound.

    Args:
        target: Epsilon of the whole, what is in ``also`` included.
        delta: Probability that the bound fails.
        rate: Probability that the protected element takes part in one release.
        count: Number of releases.
        adjacency: What differs between neighbouring data sets.
        also: Further releases, whose noise is fixed already.

    Raises:
        CalibrationError: No noise up to 10^5 meets the target.
    """
    from scipy.optimize import brentq

    def excess(log_noise: float, interval: float) -> float:
        mechanism = SampledGaussian(rate=rate, noise=math.exp(log_noise), count=count, adjacency=adjacency)
        return math.log(max(epsilon(mechanism, delta, interval, also), 1e-9)) - math.log(target)

    if excess(math.log(LEAST_NOISE), COARSE) <= 0.0:
        return LEAST_NOISE
    low, high = _bracket(lambda log_noise: excess(log_noise, COARSE), target)
    rough = brentq(lambda x: excess(x, COARSE), low, high, xtol=1e-4)
    # The fine bound lies a little below the coarse one, at nearly the same slope: one step of Newton's method
    # spares most of the slow evaluations. What counts is the check that follows.
    slope = (excess(rough + 0.01, COARSE) - excess(rough - 0.01, COARSE)) / 0.02
    noise = _round_up(math.exp(rough - excess(rough, FINE) / slope))
    while excess(math.log(noise), FINE) > 0.0:
        noise = _round_up(noise * 1.0005)
    return noise


def _bracket(excess: Any, target: float) -> tuple[float, float]:
    low, high = math.log(0.5), math.log(2.0)
    while excess(high) > 0.0:
        low, high = high, high + math.log(2.0)
        if high > math.log(1e5):
            raise CalibrationError(
                f"no noise multiplier up to 100000 reaches epsilon {target:g}; raise epsilon or delta, or plan "
                "fewer rounds"
            )
    while excess(low) <= 0.0:
        low, high = low - math.log(1.5), low
    return low, high


def _round_up(value: float) -> float:
    digits = 3 - math.floor(math.log10(value))
    return float(math.ceil(value * 10**digits - 1e-9) / 10**digits)


def _composed(mechanisms: Sequence[SampledGaussian], interval: float) -> Any:
    from dp_accounting import dp_event
    from dp_accounting.pld import pld_privacy_accountant
    from dp_accounting.privacy_accountant import NeighboringRelation

    accountant = pld_privacy_accountant.PLDAccountant(
        NeighboringRelation[_RELATION[mechanisms[0].adjacency]], value_discretization_interval=interval
    )
    for mechanism in mechanisms:
        release = dp_event.GaussianDpEvent(mechanism.noise)
        if mechanism.rate < 1.0:
            release = dp_event.PoissonSampledDpEvent(mechanism.rate, release)
        accountant.compose(dp_event.SelfComposedDpEvent(release, mechanism.count))
    return accountant
