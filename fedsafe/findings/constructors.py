"""Short ways to make a finding, so that an assessor fits on a screen."""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Unpack

from fedsafe.findings.evidence import Evidence
from fedsafe.findings.finding import Bound, Finding, Scalar
from fedsafe.findings.intervals import Interval, newcombe
from fedsafe.findings.pairs import Pairs, mcnemar, paired_newcombe
from fedsafe.findings.remaking import PAIRED, PROPORTION_INTERVALS


class Provenance(TypedDict, total=False):
    """Which data a finding touched, and what it let out."""

    data: str
    released: str | None


class Scope(Provenance, total=False):
    """What was measured, on which data."""

    where: Mapping[str, Scalar]


class Context(Scope, total=False):
    """The fields of a `Finding` that every constructor passes on."""

    bound: Bound
    anchors: Mapping[str, float | None]
    diagnostics: Mapping[str, Any]
    detail: Mapping[str, Any]
    evidence: Evidence | None


def proportion(
    metric: str,
    k: int,
    n: int,
    *,
    unit: str = "examples",
    method: Literal["wilson", "clopper-pearson"] = "wilson",
    confidence: float = 0.95,
    **context: Unpack[Context],
) -> Finding:
    """A share of independent trials.

    Args:
        metric: Registered name.
        k: Successes.
        n: Trials; none gives a finding that is "insufficient".
        unit: What a trial is.
        method: Interval: "wilson" covers at its level on average, "clopper-pearson" always.
        confidence: Two-sided confidence.
        **context: Further fields of `Finding`.

    Raises:
        ConfigError: Not 0 <= k <= n.
    """
    interval = PROPORTION_INTERVALS[method](k, n, confidence)
    if n == 0:
        return not_measured(metric, f"there are no {unit}", status="insufficient", n=0, unit=unit, **context)
    return Finding(
        metric=metric,
        status="measured",
        value=k / n,
        interval=interval,
        interval_method=method,
        confidence=confidence,
        n=n,
        n_unit=unit,
        resolution=1 / n,
        **context,
    )


def difference(
    metric: str,
    k1: int,
    n1: int,
    k2: int,
    n2: int,
    *,
    unit: str = "examples",
    confidence: float = 0.95,
    **context: Unpack[Context],
) -> Finding:
    """The difference of two independent shares, ``k1/n1 - k2/n2``, with Newcombe's interval.

    Args:
        metric: Registered name.
        k1: Successes of the first sample.
        n1: Its trials; none gives a finding that is "insufficient".
        k2: Successes of the second sample.
        n2: Its trials; none gives a finding that is "insufficient".
        unit: What a trial is.
        confidence: Two-sided confidence.
        **context: Further fields of `Finding`.

    Raises:
        ConfigError: A sample has more successes than trials.
    """
    if min(n1, n2) == 0:
        reason = f"one of the two samples is empty ({n1} and {n2} {unit})"
        return not_measured(metric, reason, status="insufficient", n=n1 + n2, unit=unit, **context)
    context["detail"] = {"counts": [k1, n1, k2, n2], **context.get("detail", {})}
    return Finding(
        metric=metric,
        status="measured",
        value=k1 / n1 - k2 / n2,
        interval=newcombe(k1, n1, k2, n2, confidence),
        interval_method="newcombe",
        confidence=confidence,
        n=n1 + n2,
        n_unit=unit,
        resolution=max(1 / n1, 1 / n2),
        **context,
    )


def paired_difference(
    metric: str,
    pairs: Pairs,
    *,
    unit: str = "examples",
    confidence: float = 0.95,
    **context: Unpack[Context],
) -> Finding:
    """The difference of two shares of the same trials, with Newcombe's interval for pairs and McNemar's exact test.

    Args:
        metric: Registered name.
        pairs: How often both, each alone, and none succeeded; no trial gives a finding that is "insufficient".
        unit: What a trial is.
        confidence: Two-sided confidence.
        **context: Further fields of `Finding`.
    """
    if pairs.n == 0:
        return not_measured(metric, f"there are no {unit}", status="insufficient", n=0, unit=unit, **context)
    context["detail"] = {
        "counts": pairs.counts,
        "counted": "both, the first alone, the second alone, neither",
        "mcnemar_p_value": mcnemar(pairs),
        **context.get("detail", {}),
    }
    return Finding(
        metric=metric,
        status="measured",
        value=pairs.difference,
        interval=paired_newcombe(pairs, confidence),
        interval_method=PAIRED,
        confidence=confidence,
        n=pairs.n,
        n_unit=unit,
        resolution=1 / pairs.n,
        **context,
    )


def estimate(
    metric: str,
    value: float,
    *,
    interval: Interval | None = None,
    method: str | None = None,
    confidence: float | None = None,
    n: int | None = None,
    unit: str | None = None,
    resolution: float | None = None,
    **context: Unpack[Context],
) -> Finding:
    """A number that is not a share; one that is not finite becomes a finding that "failed".

    Args:
        metric: Registered name.
        value: The number.
        interval: Its confidence interval.
        method: How the interval was made.
        confidence: Two-sided confidence; 0.95 where there is an interval and nothing is said.
        n: Sample size.
        unit: What n counts.
        resolution: The smallest value or step that n can resolve.
        **context: Further fields of `Finding`.
    """
    ends = (value,) if interval is None else (value, *interval)
    if not all(math.isfinite(end) for end in ends):
        return not_measured(
            metric, f"the value or its interval is not finite: {ends}", n=n, unit=unit, **context
        )
    if interval is not None and confidence is None:
        confidence = 0.95
    return Finding(
        metric=metric,
        status="measured",
        value=value,
        interval=interval,
        interval_method=method,
        confidence=confidence,
        n=n,
        n_unit=unit,
        resolution=resolution,
        **context,
    )


def not_measured(
    metric: str,
    reason: str,
    *,
    status: Literal["insufficient", "not_applicable", "unreliable", "failed"] = "failed",
    n: int | None = None,
    unit: str | None = None,
    **context: Unpack[Context],
) -> Finding:
    """A finding without a value.

    Args:
        metric: Registered name.
        reason: Why there is no value, for a reader of the report.
        status: Which kind of absence.
        n: Sample size that was at hand.
        unit: What n counts.
        **context: Further fields of `Finding`.
    """
    context["detail"] = {"reason": reason, **context.get("detail", {})}
    return Finding(metric=metric, status=status, n=n, n_unit=unit, **context)
