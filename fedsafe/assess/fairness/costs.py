"""What the model costs each group beside a reference: who pays for privacy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.cells import too_few
from fedsafe.assess.fairness.mean_gaps import largest_difference, normal_noise
from fedsafe.findings import Finding, Interval, Provenance, Scope, estimate, not_measured, t_interval, wilson

Array = NDArray[np.float64]

ACCURACY = ("fairness.accuracy_cost", "fairness.accuracy_cost_difference")
ERROR = ("fairness.absolute_error_cost", "fairness.absolute_error_cost_difference")


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Interval:
    """Interval of the mean of `first` less that of `second`, of the same trials (Newcombe, 1998, paired, method 10).

    Args:
        first: ``(n,)``, n at least 1.
        second: ``(n,)``.
    """
    n = len(first)
    both, one, other = (int(np.sum(part)) for part in (first & second, first & ~second, ~first & second))
    neither = n - both - one - other
    margins = (both + one) * (other + neither) * (both + other) * (one + neither)
    excess = float(both * neither - one * other)
    # Agreement counts only as far as it is beyond what a continuity correction takes off.
    excess = max(excess - n / 2, 0.0) if excess > 0 else excess
    phi = 0.0 if margins == 0 else excess / margins**0.5
    p, q = (both + one) / n, (both + other) / n
    (p_low, p_high), (q_low, q_high) = wilson(both + one, n), wilson(both + other, n)
    down = (p - p_low) ** 2 - 2 * phi * (p - p_low) * (q_high - q) + (q_high - q) ** 2
    up = (p_high - p) ** 2 - 2 * phi * (p_high - p) * (q - q_low) + (q - q_low) ** 2
    return p - q - max(0.0, down) ** 0.5, p - q + max(0.0, up) ** 0.5


def costs_by_group(
    own: Array,
    reference: Array,
    groups: NDArray[np.str_],
    eligible: Mapping[str, str],
    attribute: str,
    *,
    name: str,
    number: bool = False,
    resamples: int,
    rng: np.random.Generator,
    context: Provenance,
) -> list[Finding]:
    """The cost of the model to every group of an attribute, in pairs with the reference, and the largest difference.

    Args:
        own: ``(n,)`` 1 where the model is right; of a number, its absolute error.
        reference: ``(n,)`` the same of the reference.
        groups: ``(n,)`` the group of each record.
        eligible: Of every group why it is not measured, "" where it is.
        attribute: What the groups differ in.
        name: What the reference is called.
        number: Whether the model predicts a number.
        resamples: For the interval of the difference.
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    metric, gap_metric = ERROR if number else ACCURACY
    # What is lost: accuracy that the reference has more, or error that it has less.
    lost = own - reference if number else reference - own
    findings, means, errors, total = [], [], [], 0
    table: list[dict[str, Any]] = []
    for group, reason in eligible.items():
        rows = groups == group
        n = int(rows.sum())
        scope: Scope = {"where": {"attribute": attribute, "group": group}, **context}
        if reason:
            findings.append(
                not_measured(metric, reason, status="insufficient", n=n, unit="examples", **scope)
            )
            continue
        mean, mine, theirs = (float(part[rows].mean()) for part in (lost, own, reference))
        if number:
            interval, method = t_interval(lost[rows]), "paired t"
        else:
            interval, method = paired_difference(reference[rows] > 0, own[rows] > 0), "paired newcombe"
        # One discordant pair more (Agresti and Min, 2005), so that equal models still have sampling error.
        squares = float(np.sum(lost[rows] ** 2)) + (0.0 if number else 1.0)
        errors.append(max(squares / n - mean**2, 0.0) ** 0.5 / n**0.5)
        means.append(mean)
        total += n
        table.append({"group": group, "n": n, "own": mine, "reference": theirs, "cost": mean,
                      "low": interval[0], "high": interval[1]})  # fmt: skip
        findings.append(
            estimate(
                metric,
                mean,
                interval=(min(interval[0], mean), max(interval[1], mean)),
                method=method,
                n=n,
                unit="examples",
                anchors={"no_cost": 0.0},
                detail={"own": mine, "reference": theirs, "reference_name": name},
                **scope,
            )
        )
    place: Scope = {"where": {"attribute": attribute}, **context}
    if len(means) < 2:
        left_out = [group for group, reason in eligible.items() if reason]
        reason = too_few(len(means), left_out, attribute)
        return [
            *findings,
            not_measured(gap_metric, reason, status="insufficient", n=total, unit="examples", **place),
        ]
    gap = largest_difference(np.array(means), normal_noise(np.array(errors), rng, resamples))
    detail: dict[str, Any] = {
        "reference_name": name,
        "table": table,
        "pays_most": table[int(np.argmax(means))]["group"],
        "pays_least": table[int(np.argmin(means))]["group"],
        "debiased": gap.debiased,
        "p_value": gap.p_value,
    }
    return [
        *findings,
        estimate(
            gap_metric,
            gap.value,
            interval=gap.interval,
            method="simultaneous over pairs, normal errors, in pairs with the reference",
            n=total,
            unit="examples",
            anchors={"null_gap": gap.null_mean, "null_gap_95": gap.null_95},
            detail=detail,
            **place,
        ),
    ]
