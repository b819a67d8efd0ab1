"""What an attack's scores of members and others come to: the area, rates at small false positive rates, the curve."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.performance.ranking import auc
from fedsafe.assess.privacy.threat import CAVEAT, Threat, against_chance
from fedsafe.findings import Finding, Scope, clopper_pearson, estimate, not_measured, proportion

Array = NDArray[np.float64]
Guarantee = tuple[float, float]

PER_RATE = 10
"""Expected false positives that a rate needs to be measured: rate f needs ``10 / f`` others."""

_LARGEST = 700.0  # an epsilon whose exponential is still finite; its bound is 1 long before
_POINTS = 40


def figures(
    area: str,
    rate: str,
    right: Array,
    wrong: Array,
    threat: Threat,
    rates: Sequence[float],
    context: Scope,
    *,
    guarantee: Guarantee | None = None,
    anchors: Mapping[str, float] | None = None,
    units: tuple[str, str, str] = ("records", "members", "non-members"),
    detail: Mapping[str, object] | None = None,
) -> list[Finding]:
    """The area under the curve with the curve, then the true positive rate at each false positive rate.

    Args:
        area: Metric of the area.
        rate: Metric of the true positive rate.
        right: ``(m,)`` scores of members, at least two.
        wrong: ``(n,)`` scores of others, at least two.
        threat: The attack.
        rates: False positive rates.
        context: What was touched, and where.
        guarantee: Epsilon and delta that bound every such attack; None without.
        anchors: Of the area, besides chance.
        units: What is counted: all, those of `right`, those of `wrong`.
        detail: Further entries of the details.
    """
    value, interval, method = auc(right, wrong)
    both, _, others = units
    statement = against_chance(
        f"{threat.attack} ranks one of the {units[1]} above one of the {others} in {100 * value:.1f} % of the pairs",
        interval,
        0.5,
    )
    first = estimate(
        area,
        value,
        interval=interval,
        method=method,
        n=len(right) + len(wrong),
        unit=both,
        bound="lower",
        anchors={"chance": 0.5, **(anchors or {})},
        detail=threat.detail(statement, curve=curve(right, wrong), axes="log", **(detail or {})),
        diagnostics={"smallest_rate": PER_RATE / len(wrong)},
        **at(context, threat),
    )
    further = dict(detail or {})
    return [
        first,
        *(at_rate(rate, right, wrong, f, threat, guarantee, context, units, further) for f in rates),
    ]


def at(context: Scope, threat: Threat, rate: float | None = None) -> Scope:
    """The context of one attack, and of one false positive rate."""
    where = {**context.get("where", {}), "attack": threat.attack}
    return {**context, "where": where if rate is None else {**where, "false_positive_rate": rate}}


def at_rate(
    metric: str,
    right: Array,
    wrong: Array,
    rate: float,
    threat: Threat,
    guarantee: Guarantee | None,
    context: Scope,
    units: tuple[str, str, str],
    detail: Mapping[str, object],
) -> Finding:
    """The share of members above the threshold that the given share of the others passes.

    "insufficient" with fewer than ``10 / rate`` others; see `figures` for the arguments.
    """
    place, n = at(context, threat, rate), len(wrong)
    if n * rate < PER_RATE:
        resolved = f"a false positive rate of {PER_RATE / n:.2g}, not of {rate:g}" if n > PER_RATE else "none"
        reason = f"{n} {units[2]} resolve {resolved}: {math.ceil(PER_RATE / rate)} are needed"
        detail = threat.detail(f"Nothing is said at this rate: {reason}.", **detail)
        return not_measured(metric, reason, status="insufficient", n=n, unit=units[2], detail=detail, **place)
    allowed = math.floor(rate * n + 1e-9)
    # Strictly above the first other that may not pass: ties never let more of them through.
    threshold = np.partition(wrong, n - allowed - 1)[n - allowed - 1]
    passed, found = int(np.sum(wrong > threshold)), int(np.sum(right > threshold))
    interval = clopper_pearson(found, len(right))
    # The threshold comes from these others: of all, more may pass.
    most = clopper_pearson(passed, n)[1]
    statement = (
        f"{threat.attack} finds {100 * found / len(right):.2g} % of the {units[1]} where it accuses "
        f"{100 * rate:g} % of the {units[2]} wrongly"
    )
    if interval[0] > most:
        statement += ": more than guessing finds."
    else:
        statement += f", which is not told from guessing. {CAVEAT}"
    anchors: dict[str, float | None] = {"chance": rate}
    if guarantee is not None:
        anchors["accounted"] = largest_rate(rate, guarantee)
    return proportion(
        metric,
        found,
        len(right),
        unit=units[1],
        method="clopper-pearson",
        bound="lower",
        anchors=anchors,
        detail=threat.detail(statement, **detail),
        diagnostics={
            "false_positive_rate": passed / n,
            "false_positive_rate_at_most": most,
            "smallest_rate": PER_RATE / n,
        },
        **place,
    )


def curve(right: Array, wrong: Array) -> list[dict[str, float]]:
    """The ROC curve for log axes, from the smallest rate that the others resolve to 1.

    Args:
        right: ``(m,)`` scores of members.
        wrong: ``(n,)`` scores of others.

    Returns:
        Rows of ``false_positive_rate`` and ``true_positive_rate``, both never falling.
    """
    n = len(wrong)
    smallest = min(1.0, PER_RATE / n)
    ordered, found = np.sort(wrong), np.sort(right)
    rows = []
    for rate in np.unique(np.floor(np.geomspace(smallest, 1.0, _POINTS) * n + 1e-9).astype(int)):
        threshold = -math.inf if rate >= n else ordered[n - rate - 1]
        above = len(found) - int(np.searchsorted(found, threshold, side="right"))
        rows.append({"false_positive_rate": rate / n, "true_positive_rate": above / len(found)})
    return rows


def largest_rate(rate: float, guarantee: Guarantee) -> float:
    """The largest true positive rate at a false positive rate (Kairouz, Oh and Viswanath, 2015).

    Args:
        rate: False positive rate.
        guarantee: Epsilon, at most 700, and delta.
    """
    epsilon, delta = guarantee
    return min(1.0, math.exp(epsilon) * rate + delta, 1 - math.exp(-epsilon) * (1 - delta - rate))


def guarantee_of(subject: Subject, unit: str = "record") -> Guarantee | None:
    """Epsilon and delta of the claim for a unit, where it holds one."""
    for claim in subject.claims:
        epsilon, delta = claim.get("epsilon"), claim.get("delta")
        if claim.get("unit") == unit and epsilon is not None and math.isfinite(epsilon):
            return min(float(epsilon), _LARGEST), float(delta or 0.0)
    return None
