"""The largest gap between the means of groups, with an interval that covers and its upward bias removed."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fedsafe.findings import Interval

Array = NDArray[np.float64]

# Differences in memory at once (16 MB of doubles), and in all.
_BLOCK = 1 << 21
_MOST_VALUES = 1 << 25


@dataclass(frozen=True, kw_only=True)
class MeanGap:
    """The largest difference between two means.

    Attributes:
        value: The range of the means.
        interval: Its 95 % interval.
        debiased: An estimate that is on average not larger than the truth, and 0 where the groups are alike.
        p_value: How often groups that are alike show as large a range.
        null_mean: What they show on average.
        null_95: What they exceed in one of 20 evaluations.
    """

    value: float
    interval: Interval
    debiased: float
    p_value: float
    null_mean: float
    null_95: float


def largest_difference(means: Array, noise: Array) -> MeanGap:
    """The range of independent means, its interval, and what groups that are alike would show.

    The interval is valid for all pairs together, as in `measure_gap`: the normal quantile is replaced by that of the
    largest studentised difference (Tukey, 1953, and Kramer, 1956). The debiased range is that of `measure_gap` too;
    instead of halves of the records it takes the means with noise of their own size added, and with the same noise
    taken off, which are independent where the means are normal (Oliveira, Lei and Tibshirani, 2021).

    Args:
        means: ``(groups,)``, at least 2.
        noise: ``(resamples, groups)`` sampling errors of the means.
    """
    left, right = (np.array(side) for side in zip(*combinations(range(len(means)), 2), strict=True))
    noise = noise - noise.mean(axis=0)
    quantile = float(np.quantile(largest_studentised(noise, left, right), 0.95))
    spread = pair_spread(noise, left, right)
    gaps = np.abs(means[left] - means[right])
    null = np.ptp(noise, axis=1)
    value = float(np.ptp(means))
    chosen, judged, rows = means + noise, means - noise, np.arange(len(noise))
    debiased = judged[rows, chosen.argmax(axis=1)] - judged[rows, chosen.argmin(axis=1)]
    return MeanGap(
        value=value,
        interval=(
            max(0.0, float((gaps - quantile * spread).max())),
            float((gaps + quantile * spread).max()),
        ),
        debiased=float(debiased.mean()),
        p_value=float((1 + np.sum(null >= value - 1e-12)) / (1 + len(null))),
        null_mean=float(null.mean()),
        null_95=float(np.quantile(null, 0.95)),
    )


def pair_spread(errors: Array, left: NDArray[np.int64], right: NDArray[np.int64]) -> Array:
    """``(pairs,)`` standard deviations of the differences of independent errors ``(resamples, groups)``."""
    own = errors.std(axis=0)
    return np.asarray(np.maximum(np.hypot(own[left], own[right]), 1e-12))


def largest_studentised(errors: Array, left: NDArray[np.int64], right: NDArray[np.int64]) -> Array:
    """``(resamples,)`` the largest absolute difference of two groups' errors over its own standard deviation.

    Args:
        errors: ``(resamples, groups)``; with very many pairs only the first are used, 200 at least.
        left: ``(pairs,)`` a group.
        right: ``(pairs,)`` the other.
    """
    spread = pair_spread(errors, left, right)
    errors = errors[: max(200, _MOST_VALUES // len(left))]
    block = max(1, _BLOCK // len(left))
    return np.concatenate(
        [
            (np.abs(rows[:, left] - rows[:, right]) / spread).max(axis=1)
            for rows in (errors[start : start + block] for start in range(0, len(errors), block))
        ]
    )


def normal_noise(errors: Array, rng: np.random.Generator, resamples: int) -> Array:
    """``(resamples, groups)`` normal errors of means with these standard errors ``(groups,)``."""
    return rng.normal(size=(resamples, len(errors))) * errors
