"""The largest gap between groups, as a difference or a ratio: an interval that covers, and no upward bias."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.cells import Counts, Rate, rate_counts
from fedsafe.assess.fairness.sampling import GroupSample
from fedsafe.findings import Interval, percentile, wilson

Array = NDArray[np.float64]
Form = Literal["difference", "mean", "ratio"]


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The largest gap between two groups.

    Attributes:
        value: The gap as it is observed.
        interval: Its 95 % interval.
        debiased: An estimate that is on average not further from "no gap" than the truth.
        p_value: How often records dealt to the groups at random show as large a gap.
        null_mean: What they show on average.
        null_95: What they exceed in one of 20 evaluations; of a ratio, what they fall below.
        lowest: Index of the group with the lowest rate, of the rate that differs most.
        highest: Index of the group with the highest.
        resolution: The step of the smallest group's rate.
    """

    value: float
    interval: Interval
    debiased: float
    p_value: float
    null_mean: float
    null_95: float
    lowest: int
    highest: int
    resolution: float


def measure_gap(sample: GroupSample, rates: tuple[Rate, ...], form: Form = "difference") -> Gap | None:
    """The largest gap between two groups, with an interval that covers when there is none.

    The percentile bootstrap of a largest gap counts its upward bias twice and never covers "no gap". Instead every
    pair of groups gets an interval of Newcombe (1998), of a ratio that of Zou and Donner (2008) on the logarithm, all
    valid together: the normal quantile is replaced by that of the largest studentised difference (Tukey, 1953, and
    Kramer, 1956), found by a bootstrap stratified by group. The largest true gap then lies between the largest lower
    end and the largest upper end.

    The debiased gap takes the two extreme groups of one half of the records and compares them in the other half
    (the double estimator of van Hasselt, 2010), on average over splits and both ways round. It is 0 (a ratio: 1) on
    average where the groups are treated alike, whose plug-in is biased upward (Lum, Zhang and Bower, 2022).

    Args:
        sample: Two groups or more.
        rates: The rates to compare.
        form: "difference": the largest one over all the rates. "mean": the largest one of each rate, on average over
            the rates. "ratio": the smallest rate over the largest, of the rate where that is least.

    Returns:
        None for the ratio of a rate that is 0 in every group.
    """
    log = form == "ratio"
    shares = np.stack([sample.shares(rate) for rate in rates])
    if log and np.any(shares.max(axis=1) == 0):
        return None
    studentised = np.max([sample.studentised(rate, log=log) for rate in rates], axis=0)
    confidence = 2 * NormalDist().cdf(float(np.quantile(studentised, 0.95))) - 1
    ends = np.array([_ends(sample, rate, confidence, log=log) for rate in rates])
    value = float(_combine(shares, form))
    null = _combine(np.stack([sample.fair(rate) for rate in rates]), form)
    further = null <= value + 1e-12 if log else null >= value - 1e-12
    worst = shares[int(np.argmin(_ratio(shares)) if log else np.argmax(np.ptp(shares, axis=1)))]
    if log:
        interval = float(ends[:, 0].min()), float(ends[:, 1].min())
    else:
        low, high = ends.mean(axis=0) if form == "mean" else ends.max(axis=0)
        interval = float(low), float(high)
    return Gap(
        value=value,
        interval=interval,
        debiased=_double(sample, rates, form),
        p_value=float((1 + further.sum()) / (1 + len(null))),
        null_mean=float(null.mean()),
        null_95=float(np.quantile(null, 0.05 if log else 0.95)),
        lowest=int(worst.argmin()),
        highest=int(worst.argmax()),
        resolution=1 / min(int(sample.counts(rate)[1].min()) for rate in rates),
    )


def between_group_variance(sample: GroupSample, rate: Rate) -> tuple[float, Interval]:
    """The double-corrected variance of a rate over the groups (Lum, Zhang and Bower, 2022), and its 95 % interval.

    The variance of observed rates holds that of the truth and the mean sampling variance, which is taken off: the
    estimate is unbiased, and may be negative. A bootstrap adds the sampling variance a second time, so that it is
    taken off its replicates twice.
    """
    hits, trials = sample.counts(rate)
    share = hits / trials
    sampling = float(np.mean(share * (1 - share) / np.maximum(trials - 1, 1)))
    value = float(share.var(ddof=1)) - sampling
    errors = sample.errors(rate)
    spread = float(errors.var(axis=0).mean())
    replicates = (share + errors).var(axis=1, ddof=1) - sampling - spread
    low, high = percentile(replicates)
    return value, (min(low, value), max(high, value))


def _ratio(shares: Array) -> Array:
    """Smallest over largest of ``(..., groups)``; 1 where all are 0."""
    top = shares.max(axis=-1)
    return np.asarray(np.divide(shares.min(axis=-1), top, out=np.ones_like(top), where=top > 0))


def _combine(shares: Array, form: Form) -> Array:
    """The gap of rates ``(rates, ..., groups)``."""
    if form == "ratio":
        return np.asarray(_ratio(shares).min(axis=0))
    ranges = np.ptp(shares, axis=-1)
    return np.asarray(ranges.mean(axis=0) if form == "mean" else ranges.max(axis=0))


def _ends(sample: GroupSample, rate: Rate, confidence: float, *, log: bool) -> Interval:
    """The ends of the largest gap of one rate: those of the pairs' absolute differences, or of their ratios below 1."""
    hits, trials = sample.counts(rate)
    share = hits / trials
    ends = np.array([wilson(int(k), int(n), confidence) for k, n in zip(hits, trials, strict=True)])
    left, right = sample.pairs
    if log:
        return _ratio_ends(share, ends, np.concatenate([left, right]), np.concatenate([right, left]))
    below, above = share - ends[:, 0], ends[:, 1] - share
    difference = share[left] - share[right]
    low = difference - np.hypot(below[left], above[right])
    high = difference + np.hypot(above[left], below[right])
    return max(0.0, float(np.max([low, -high]))), float(np.max([high, -low]))


def _ratio_ends(share: Array, ends: Array, over: Counts, under: Counts) -> Interval:
    """Smallest lower and smallest upper end of the ratios of ordered pairs, at most 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        centre, low, high = np.log(share), np.log(ends[:, 0]), np.log(ends[:, 1])
        ratio = centre[over] - centre[under]
        lower = ratio - np.hypot(centre[over] - low[over], high[under] - centre[under])
        upper = ratio + np.hypot(high[over] - centre[over], centre[under] - low[under])
        # Without a success the logarithm has no end: the quotient of the ends covers at least as often.
        none = (share[over] == 0) | (share[under] == 0)
        lower = np.where(none, low[over] - high[under], lower)
        upper = np.where(none, high[over] - low[under], upper)
    return min(1.0, float(np.exp(np.min(lower)))), min(1.0, float(np.exp(np.min(upper))))


def _double(sample: GroupSample, rates: tuple[Rate, ...], form: Form) -> float:
    """The gap in one half of the records between the groups that are extreme in the other, over splits."""
    log = form == "ratio"
    halves = [np.stack([_half(part, rate, log=log) for rate in rates], axis=1) for part in sample.halves]
    gaps = [_between(*ordered, each=form == "mean") for ordered in (halves, halves[::-1])]
    mean = float(np.mean(gaps))
    return float(np.exp(-mean)) if log else mean


def _half(cells: Counts, rate: Rate, *, log: bool) -> Array:
    part, whole = rate_counts(cells, rate)
    return np.asarray(np.log((part + 0.5) / (whole + 0.5)) if log else part / np.maximum(whole, 1))


def _between(chosen: Array, judged: Array, *, each: bool) -> Array:
    """``(splits,)`` gaps in `judged` between the extreme groups of `chosen`, both ``(splits, rates, groups)``."""
    high, low = (find(chosen, axis=2)[..., None] for find in (np.argmax, np.argmin))
    gaps = (np.take_along_axis(judged, high, axis=2) - np.take_along_axis(judged, low, axis=2))[..., 0]
    if each:
        return np.asarray(gaps.mean(axis=1))
    worst = np.ptp(chosen, axis=2).argmax(axis=1)
    return np.asarray(np.take_along_axis(gaps, worst[:, None], axis=1)[:, 0])
