"""Tests of what was seen against what was claimed, at a level that a whole suite can afford.

Some sixty of these tests are made of a target. At ``ALPHA`` each, fewer than one correct target in a thousand is
accused.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Values = NDArray[np.float64]

ALPHA = 1e-5
# Two-sided quantile of the normal distribution at ALPHA.
DEVIATIONS = float(stats.norm.isf(ALPHA / 2.0))
# What arithmetic in single precision, and a clip a little below the bound, may make of a number.
TOLERANCE = 0.005


def scale_range(count: float, *, tests: int = 1) -> tuple[float, float]:
    """The least and the largest observed over claimed standard deviation that ``count`` squares are consistent with.

    Args:
        count: Of squares.
        tests: Made together at the level of one.
    """
    level = ALPHA / max(1, tests) / 2.0
    low, high = stats.chi2.ppf(level, count), stats.chi2.isf(level, count)
    return math.sqrt(low / count) * (1.0 - TOLERANCE), math.sqrt(high / count) * (1.0 + TOLERANCE)


def scale_of(values: Values, deviation: float) -> float:
    """Observed over claimed standard deviation, for values whose mean is zero."""
    return float(np.sqrt(np.mean(np.square(values)))) / deviation


def scale_fits(values: Values, deviation: float) -> bool:
    """Whether values of mean zero have the standard deviation claimed (chi-square)."""
    low, high = scale_range(values.size)
    return low <= scale_of(values, deviation) <= high


def normal_fits(values: Values) -> tuple[bool, float]:
    """Whether values are normal, whatever their scale (Kolmogorov and Smirnov), and the distance from it.

    The scale is estimated, which makes the test's level smaller than stated, never larger.
    """
    scaled = values / np.sqrt(np.mean(np.square(values)))
    result = stats.kstest(scaled, "norm")
    return bool(result.pvalue > ALPHA), float(result.statistic)


def largest_correlation(first: Values, second: Values) -> float:
    """Largest absolute correlation of two sequences over every shift that leaves half of them overlapping."""
    length = min(len(first), len(second))
    a, b = first[:length], second[:length]
    size = 2 * length
    product = np.fft.irfft(np.fft.rfft(a, size) * np.conj(np.fft.rfft(b, size)), size)
    shifts = np.concatenate([product[: length // 2], product[-(length // 2) :]])
    return float(np.max(np.abs(shifts)) / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300))


def correlation_bound(length: int, pairs: int) -> float:
    """What the largest correlation of independent normal sequences stays below, over all shifts and pairs."""
    level = ALPHA / (max(1, pairs) * max(1, length))
    return min(0.9, float(stats.norm.isf(level / 2.0)) / math.sqrt(length))


def dispersion_fits(counts: NDArray[np.int64], trials: int, share: float, *, degrees: int) -> bool:
    """Whether binomial counts scatter as they should: neither less nor more.

    Args:
        counts: ``(n,)`` successes of ``trials`` each.
        trials: Trials of each count.
        share: Probability of a success.
        degrees: Degrees of freedom: ``n``, or one less where the counts have a fixed sum.
    """
    variance = trials * share * (1.0 - share)
    statistic = float(np.sum(np.square(counts - trials * share))) / variance
    # A square of a binomial count scatters more, or less, than that of a normal one: its kurtosis says how much.
    kurtosis = (1.0 - 6.0 * share * (1.0 - share)) / variance
    effective = 2.0 * degrees / (2.0 + kurtosis)
    scaled = statistic * effective / degrees
    return bool(stats.chi2.ppf(ALPHA / 2.0, effective) <= scaled <= stats.chi2.isf(ALPHA / 2.0, effective))


def share_fits(successes: int, trials: int, share: float) -> bool:
    """Whether a binomial count fits its probability (exact, two-sided)."""
    return bool(stats.binomtest(successes, trials, share).pvalue > ALPHA)


def normal_quantile(*, tests: int = 1) -> float:
    """The two-sided quantile of the normal distribution for so many tests together."""
    return float(stats.norm.isf(ALPHA / max(1, tests) / 2.0))
