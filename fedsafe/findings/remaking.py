"""A finding's interval at a confidence that it was not made at."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from fedsafe.errors import ConfigError
from fedsafe.findings.finding import Finding
from fedsafe.findings.intervals import Interval, clopper_pearson, newcombe, wilson
from fedsafe.findings.pairs import Pairs, paired_newcombe
from fedsafe.findings.registry import find_metric

PROPORTION_INTERVALS = {"wilson": wilson, "clopper-pearson": clopper_pearson}
"""Interval methods of a share: with the count of trials, they can be had at any confidence."""

PAIRED = "newcombe, paired"

# Their limits are those of a normal distribution, as far as the sample is large enough for them at all.
_ASYMPTOTIC = ("bootstrap", "newcombe", "mover", "sandwich")


@dataclass(frozen=True, kw_only=True)
class Remade:
    """An interval at the confidence that was asked for.

    Attributes:
        interval: Both ends.
        note: How it was had, for a reader.
    """

    interval: Interval
    note: str


def remake(finding: Finding, confidence: float) -> Remade | None:
    """The interval of a finding at another confidence.

    Shares, differences of shares and means are counted again, exactly as at first. An interval by bootstrap, or one
    combined from several, is known at its own confidence only: where more is asked, each side is widened in the
    ratio of the normal quantiles, which its note says. Others are not touched.

    Args:
        finding: A measured one.
        confidence: Two-sided, in (0, 1).

    Returns:
        None where there is no interval, or none that could be had at this confidence.
    """
    value, method, n = finding.value, finding.interval_method, finding.n
    if value is None or finding.interval is None or finding.confidence is None or method is None:
        return None
    if confidence == finding.confidence:
        return Remade(interval=finding.interval, note="")
    anew = f" (interval made anew at {confidence:.4g})"
    again = PROPORTION_INTERVALS.get(method)
    if again is not None and n:
        return Remade(interval=again(round(value * n), n, confidence), note=anew)
    counts = _counts(finding)
    if method == "newcombe" and counts is not None:
        k1, n1, k2, n2 = counts
        return Remade(interval=newcombe(k1, n1, k2, n2, confidence), note=anew)
    if method == PAIRED and counts is not None:
        both, first, second, neither = counts
        pairs = Pairs(both=both, first=first, second=second, neither=neither)
        return Remade(interval=paired_newcombe(pairs, confidence), note=anew)
    if method == "t" and n is not None and n > 1:
        ratio = _student(n - 1, confidence) / _student(n - 1, finding.confidence)
        return Remade(interval=_stretched(finding, value, ratio, symmetric=True), note=anew)
    if confidence > finding.confidence and any(name in method for name in _ASYMPTOTIC):
        ratio = _normal(confidence) / _normal(finding.confidence)
        note = f" (interval widened from {finding.confidence:g} to {confidence:.4g} as a normal one)"
        return Remade(interval=_stretched(finding, value, ratio, symmetric=False), note=note)
    return None


def _counts(finding: Finding) -> Sequence[int] | None:
    """The four counts that a difference was made from, if the finding kept them."""
    counts = finding.detail.get("counts")
    return counts if isinstance(counts, list) and len(counts) == 4 else None


def _stretched(finding: Finding, value: float, ratio: float, *, symmetric: bool) -> Interval:
    if finding.interval is None:
        raise ConfigError("an interval that is not there cannot be stretched")
    low, high = finding.interval
    below, above = max(0.0, value - low), max(0.0, high - value)
    if symmetric:  # an end may have been cut at the edge of the metric's range
        below = above = max(below, above)
    metric = find_metric(finding.metric)
    low = min(low, value - ratio * below) if ratio > 1 else value - ratio * below
    high = max(high, value + ratio * above) if ratio > 1 else value + ratio * above
    floor = low if metric.low is None else max(low, metric.low)
    ceiling = high if metric.high is None else min(high, metric.high)
    return floor, ceiling


def _normal(confidence: float) -> float:
    return float(special.ndtri(0.5 + confidence / 2))


def _student(freedom: int, confidence: float) -> float:
    return float(special.stdtrit(freedom, 0.5 + confidence / 2))
