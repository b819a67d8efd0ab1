"""Canary clients and the cosine test (Andrew et al. 2024).

A canary client sends a random direction. The cosine between that direction and what was released is nearly Gaussian:
around zero for a canary that was not there, further up for one that was. Fitting two Gaussians gives an *estimate* of
epsilon from one run. It is no bound, and the paper calls it none: a small delta looks at the tails, where the error of
a fitted width counts most. With 1,000 canaries at delta 1e-5 its median is 4.7 where the truth is 4.4, and 1.24 where
it is 1.0. :func:`cosine_bound` is the bound that goes with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from fedsafe.errors import ConfigError
from fedsafe.findings.intervals import clopper_pearson

# Exact false positive rates at which the test of :func:`cosine_bound` is tried.
RATES = (0.1, 0.01, 1e-3, 1e-4)
ASSUMPTION = "the canaries' cosines are independent of each other, which many dimensions make nearly true"
_LARGEST = 500.0


@dataclass(frozen=True, kw_only=True)
class CosineEstimate:
    """An estimate of epsilon by two Gaussians: neither an upper nor a lower bound.

    Args:
        epsilon: At ``delta``; infinity where no epsilon up to 500 has that delta.
        delta: Of the estimate.
        mean: Of the cosines of canaries that were there.
        deviation: Their standard deviation.
        null_mean: Of the cosines of canaries that were not.
        null_deviation: Their standard deviation.
    """

    epsilon: float
    delta: float
    mean: float
    deviation: float
    null_mean: float
    null_deviation: float


def cosine_estimate(seen: NDArray[np.float64], dimension: int, delta: float) -> CosineEstimate:
    """From cosines with the last model, where the cosine of an absent canary is known: N(0, 1/dimension).

    Source: Andrew et al. (2024), algorithms 1 and 2.

    Args:
        seen: ``(canaries,)`` cosines of canaries that were there, at least two.
        dimension: Of the directions.
        delta: In (0, 1).

    Raises:
        ConfigError: Fewer than two cosines, or a bad dimension or delta.
    """
    if dimension < 2:
        raise ConfigError(f"the cosine test needs two dimensions or more, not {dimension}")
    return _between(seen, 0.0, dimension**-0.5, delta)


def paired_cosine_estimate(
    seen: NDArray[np.float64], unseen: NDArray[np.float64], delta: float
) -> CosineEstimate:
    """From any statistic of present and of absent canaries, such as the largest cosine over all rounds.

    Source: Andrew et al. (2024), section 5: whoever sees every model takes the largest cosine of the rounds.

    Args:
        seen: ``(canaries,)`` of canaries that were there, at least two.
        unseen: ``(others,)`` of canaries that were not, at least two.
        delta: In (0, 1).

    Raises:
        ConfigError: Fewer than two of either, or a bad delta.
    """
    null = _fitted(unseen)
    return _between(seen, *null, delta)


def cosine_bound(
    seen: NDArray[np.float64],
    dimension: int,
    delta: float,
    confidence: float = 0.95,
    rates: Sequence[float] = RATES,
) -> float:
    """What the cosines of present canaries prove, with the exact distribution of the absent ones'; 0 if nothing.

    The cosine of a random direction in d dimensions with anything is ``2 B - 1``, B ~ Beta((d - 1) / 2, (d - 1) / 2):
    the false positive rate is known, and only the true one is estimated, exactly (Clopper and Pearson 1934), at fixed
    thresholds that share the confidence. A bound under :data:`ASSUMPTION`.

    Args:
        seen: ``(canaries,)`` cosines of canaries that were there.
        dimension: Of the directions.
        delta: Of the claim.
        confidence: One-sided, in (0, 1).
        rates: False positive rates, fixed before the run.
    """
    best = 0.0
    each = 1.0 - 2.0 * (1.0 - confidence) / len(rates)
    half = (dimension - 1) / 2.0
    for rate in rates:
        threshold = 1.0 - 2.0 * float(special.betaincinv(half, half, rate))
        found = clopper_pearson(int((seen > threshold).sum()), len(seen), each)[0]
        if found > delta:
            best = max(best, math.log((found - delta) / rate))
    return best


def two_gaussians_epsilon(first: tuple[float, float], second: tuple[float, float], delta: float) -> float:
    """The epsilon at ``delta`` between two Gaussians, in both directions, exactly.

    Source: the hockey-stick divergence (Balle and Wang 2018), whose set of larger density is where a quadratic is
    positive. Infinity where it exceeds 500.

    Args:
        first: Mean and standard deviation.
        second: Mean and standard deviation.
        delta: In (0, 1).
    """
    if not 0.0 < delta < 1.0 or min(first[1], second[1]) <= 0.0:
        raise ConfigError(
            f"two Gaussians need standard deviations above 0 and a delta in (0, 1): got {first[1]!r}, {second[1]!r}, "
            f"{delta!r}"
        )

    def excess(epsilon: float) -> float:
        return max(_hockey_stick(first, second, epsilon), _hockey_stick(second, first, epsilon)) - delta

    if excess(0.0) <= 0.0:
        return 0.0
    high = 1.0
    while excess(high) > 0.0:
        high *= 2.0
        if high > _LARGEST:
            return math.inf
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-9))


def _between(
    seen: NDArray[np.float64], null_mean: float, null_deviation: float, delta: float
) -> CosineEstimate:
    mean, deviation = _fitted(seen)
    return CosineEstimate(
        epsilon=two_gaussians_epsilon((mean, deviation), (null_mean, null_deviation), delta),
        delta=delta,
        mean=mean,
        deviation=deviation,
        null_mean=null_mean,
        null_deviation=null_deviation,
    )


def _fitted(values: NDArray[np.float64]) -> tuple[float, float]:
    if len(values) < 2:
        raise ConfigError(f"the cosine test has {len(values)} canaries on one side: it needs two or more")
    return float(values.mean()), max(float(values.std(ddof=1)), 1e-300)


def _hockey_stick(first: tuple[float, float], second: tuple[float, float], epsilon: float) -> float:
    """``max_A P(A) - exp(epsilon) Q(A)``: A is where ``log p / q > epsilon``, a quadratic in the value."""
    (mean1, sd1), (mean2, sd2) = first, second
    # In units of the second: x = mean2 + sd2 z, Q standard.
    mean, sd = (mean1 - mean2) / sd2, sd1 / sd2
    a = 0.5 * (1.0 - sd**-2)
    b = mean / sd**2
    c = -0.5 * (mean / sd) ** 2 - math.log(sd) - epsilon
    if abs(a) < 1e-12:
        if abs(b) < 1e-300:
            return 0.0
        edge = -c / b
        parts = [(edge, math.inf)] if b > 0.0 else [(-math.inf, edge)]
    else:
        square = b * b - 4.0 * a * c
        if square <= 0.0:
            parts = [(-math.inf, math.inf)] if a > 0.0 else []
        else:
            # Roots without cancellation.
            q = -0.5 * (b + math.copysign(math.sqrt(square), b))
            low, high = sorted((q / a, c / q if q else 0.0))
            parts = [(-math.inf, low), (high, math.inf)] if a > 0.0 else [(low, high)]
    total = 0.0
    for low, high in parts:
        of_first = _mass((low - mean) / sd, (high - mean) / sd)
        of_second = _mass(low, high)
        total += of_first - (math.exp(epsilon + math.log(of_second)) if of_second > 0.0 else 0.0)
    return max(0.0, total)


def _mass(low: float, high: float) -> float:
    """P[low < Z < high], in the tail where it is small."""
    if low > 0.0:
        low, high = -high, -low
    return float(special.ndtr(high) - special.ndtr(low))
