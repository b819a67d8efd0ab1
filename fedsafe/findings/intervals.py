"""Confidence intervals: for proportions, for their differences, by bootstrap, and for means."""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fedsafe.errors import ConfigError

Interval = tuple[float, float]
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

# Values in one block of resamples: 16 MB of doubles.
_BLOCK = 1 << 21


def wilson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson, 1927).

    Args:
        k: Successes.
        n: Trials; with 0 of them the interval is (0, 1).
        confidence: Two-sided confidence, in (0, 1).

    Raises:
        ConfigError: Not 0 <= k <= n, or the confidence is outside (0, 1).
    """
    _check_counts(k, n)
    z = _quantile(confidence)
    if n == 0:
        return 0.0, 1.0
    share = k / n
    shrink = 1.0 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / shrink
    # The ends are exactly 0 and 1 at k = 0 and k = n; rounding must not leave the value outside.
    return (0.0 if k == 0 else max(0.0, centre - half)), (1.0 if k == n else min(1.0, centre + half))


def clopper_pearson(k: int, n: int, confidence: float = 0.95) -> Interval:
    """Exact (conservative) interval of a proportion (Clopper and Pearson, 1934).

    Args:
        k: Successes.
        n: Trials; with 0 of them the interval is (0, 1).
        confidence: Two-sided confidence, in (0, 1).

    Raises:
        ConfigError: Not 0 <= k <= n, or the confidence is outside (0, 1).
    """
    _check_counts(k, n)
    tail = _tail(confidence)
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def newcombe(k1: int, n1: int, k2: int, n2: int, confidence: float = 0.95) -> Interval:
    """Interval of ``k1/n1 - k2/n2`` from two Wilson intervals (Newcombe, 1998, method 10).

    Args:
        k1: Successes of the first sample.
        n1: Its trials, at least 1.
        k2: Successes of the second sample.
        n2: Its trials, at least 1.
        confidence: Two-sided confidence, in (0, 1).

    Raises:
        ConfigError: A sample is empty or has more successes than trials, or a bad confidence.
    """
    return combine_shares([k1, k2], [n1, n2], [1.0, -1.0], confidence)


def combine_shares(k: ArrayLike, n: ArrayLike, weights: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval of ``sum_i weights_i k_i / n_i`` from Wilson intervals (Zou and Donner, 2008: MOVER).

    Args:
        k: ``(shares,)`` successes of independent samples.
        n: ``(shares,)`` trials, at least 1 each.
        weights: ``(shares,)`` coefficients.
        confidence: Two-sided confidence, in (0, 1).

    Raises:
        ConfigError: A sample is empty or has more successes than trials, or a bad confidence.
    """
    counts, trials = np.asarray(k, dtype=np.int64), np.asarray(n, dtype=np.int64)
    factors = np.asarray(weights, dtype=np.float64)
    if trials.size == 0 or trials.min() < 1:
        raise ConfigError(f"a share of an empty sample has no interval: trials are {trials.tolist()}")
    shares = counts / trials
    ends = np.array([wilson(int(a), int(b), confidence) for a, b in zip(counts, trials, strict=True)])
    below, above = shares - ends[:, 0], ends[:, 1] - shares
    value = float(factors @ shares)
    down = np.where(factors > 0, below, above) * factors
    up = np.where(factors > 0, above, below) * factors
    return value - float(np.linalg.norm(down)), value + float(np.linalg.norm(up))


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Interval of a mean (Student, 1908).

    Args:
        values: ``(n,)`` independent values, at least 2.
        confidence: Two-sided confidence, in (0, 1).

    Raises:
        ConfigError: Fewer than 2 values, or a bad confidence.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size < 2:
        raise ConfigError(f"a t interval needs at least 2 values, not {sample.size}")
    scale = float(special.stdtrit(sample.size - 1, 1 - _tail(confidence)))
    mean, error = float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(sample.size)
    return mean - scale * error, mean + scale * error


def bounded_mean(
    values: ArrayLike, low: float, high: float, confidence: float = 0.95
) -> tuple[Interval, str]:
    """Interval of a mean of values that are known to lie in a range: Student's, unless all of them are alike.

    Alike values have no spread, and Student's interval would be a point however few there are. What is known then is
    how rare others may be: at most the share u that Clopper and Pearson (1934) leave where none of n differs. With the
    values at v, the mean is between v - u (v - low) and v + u (high - v).

    Args:
        values: ``(n,)`` independent values, at least 2.
        low: Smallest that a value can be.
        high: Largest.
        confidence: Two-sided confidence, in (0, 1).

    Returns:
        The interval, inside the range, and its method: "t" or "alike, clopper-pearson".

    Raises:
        ConfigError: Fewer than 2 values, or a bad confidence.
    """
    sample = np.asarray(values, dtype=np.float64)
    below, above = t_interval(sample, confidence)
    if np.ptp(sample) > 1e-9 * (high - low):  # more than rounding
        return (max(low, below), min(high, above)), "t"
    value, rare = float(sample[0]), clopper_pearson(0, sample.size, confidence)[1]
    return (value - rare * (value - low), value + rare * (high - value)), "alike, clopper-pearson"


def percentile(replicates: ArrayLike, confidence: float = 0.95) -> Interval:
    """The central share of bootstrap replicates (Efron, 1979).

    Args:
        replicates: ``(resamples,)`` values of the statistic, at least 1.
        confidence: Two-sided confidence, in (0, 1).

    Raises:
        ConfigError: There is no replicate, or a bad confidence.
    """
    sample = np.asarray(replicates, dtype=np.float64)
    if sample.size == 0:
        raise ConfigError("a percentile interval needs at least 1 replicate")
    low, high = np.quantile(sample, [_tail(confidence), 1 - _tail(confidence)])
    return float(low), float(high)


def bootstrap(
    values: ArrayLike,
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    method: Literal["percentile", "bca"] = "bca",
) -> Interval:
    """Bootstrap interval of a statistic of independent rows (Efron, 1979 and 1987).

    Args:
        values: ``(n,)`` or ``(n, columns)``, at least 2 rows.
        statistic: Maps ``(resamples, n[, columns])`` to ``(resamples,)``.
        rng: Source of the resampling.
        resamples: Number of resamples.
        confidence: Two-sided confidence, in (0, 1).
        method: "bca" corrects bias and skewness (Efron, 1987); "percentile" does not.

    Returns:
        The interval; a single point where every resample gives the same value.

    Raises:
        ConfigError: Fewer than 2 rows, or a bad confidence.
    """
    sample = np.asarray(values, dtype=np.float64)
    count = len(sample)
    if count < 2:
        raise ConfigError(f"a bootstrap needs at least 2 rows, not {count}")
    tail = _tail(confidence)
    block = max(1, _BLOCK // sample.size)
    sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
    replicates = np.concatenate(
        [statistic(sample[rng.integers(0, count, size=(size, count))]) for size in sizes]
    )
    if method == "percentile" or np.ptp(replicates) == 0:
        return percentile(replicates, confidence)
    observed = float(statistic(sample[None])[0])
    below = np.mean(replicates < observed) + 0.5 * np.mean(replicates == observed)
    # All replicates on one side would send the corrected tails to infinity: stop half a replicate short.
    bias = float(special.ndtri(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples)))
    left_out = np.array([statistic(np.delete(sample, i, axis=0)[None])[0] for i in range(count)])
    centred = left_out.mean() - left_out
    spread = float(np.sum(centred**2)) ** 1.5
    acceleration = float(np.sum(centred**3)) / (6 * spread) if spread > 0 else 0.0
    moved = bias + special.ndtri(np.array([tail, 1 - tail]))
    ends = special.ndtr(bias + moved / (1 - acceleration * moved))
    low, high = np.quantile(replicates, ends)
    return float(low), float(high)


def _check_counts(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ConfigError(f"a proportion needs 0 <= successes <= trials, not {k} of {n}")


def _tail(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"a confidence is between 0 and 1, not {confidence}")
    return (1.0 - confidence) / 2.0


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(1.0 - _tail(confidence))
