"""Mean absolute errors of groups, and the largest gap between two, for models that predict a number."""

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.cells import NOT_STATED, too_few
from fedsafe.assess.fairness.mean_gaps import largest_difference
from fedsafe.assess.resampling import cluster_sums, clusters_of, resample
from fedsafe.data import Examples
from fedsafe.findings import Finding, Provenance, estimate, not_measured, percentile

Array = NDArray[np.float64]

_ERROR, _GAP = "fairness.absolute_error", "fairness.absolute_error_difference"
_FEWEST = 2  # clusters of a group


def error_gaps(
    errors: Array,
    examples: Examples,
    attribute: str,
    groups: NDArray[np.str_],
    *,
    minimum: int,
    unit: str = "",
    resamples: int,
    rng: np.random.Generator,
    context: Provenance,
) -> list[Finding]:
    """The mean absolute error of every group of an attribute, and the largest difference of two.

    The difference's interval is that of `largest_difference`, from a bootstrap in every group.

    Args:
        errors: ``(n,)`` absolute errors in the target's own unit.
        examples: The records.
        attribute: What the groups differ in.
        groups: ``(n,)`` the group of each record.
        minimum: Records that a group needs.
        unit: The target's own unit, or "".
        resamples: For the intervals.
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    findings, names, means, replicates = [], [], [], []
    method = ""
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        where = {"attribute": attribute, "group": str(group)}
        clusters = clusters_of(examples.take(rows))
        sums = cluster_sums(np.stack([np.ones(len(rows)), errors[rows]], axis=1), clusters.codes)
        if group == NOT_STATED or len(rows) < minimum or len(sums) < _FEWEST:
            reason = f"the group has fewer than {minimum} records, or one holder"
            if group == NOT_STATED:
                reason = f"the group of these {len(rows)} records is not stated"
            findings.append(
                not_measured(
                    _ERROR,
                    reason,
                    status="insufficient",
                    n=len(rows),
                    unit="examples",
                    where=where,
                    **context,
                )
            )
            continue
        drawn = resample(sums, rng, resamples)
        names.append(str(group))
        means.append(float(errors[rows].mean()))
        replicates.append(drawn[:, 1] / drawn[:, 0])
        method = clusters.method
        findings.append(
            estimate(
                _ERROR,
                means[-1],
                interval=percentile(replicates[-1]),
                method=method,
                n=len(rows),
                unit="examples",
                where=where,
                detail={"unit": unit},
                **context,
            )
        )
    place = {"attribute": attribute}
    left_out = sorted(set(map(str, np.unique(groups))) - set(names))
    detail = {"groups": names, "left_out": left_out, "minimum": minimum, "unit": unit}
    if len(names) < 2:
        reason = too_few(len(names), left_out, attribute)
        return [
            *findings,
            not_measured(_GAP, reason, status="insufficient", where=place, detail=detail, **context),
        ]
    gap = largest_difference(np.array(means), np.stack(replicates, axis=1) - np.array(means))
    return [
        *findings,
        estimate(
            _GAP,
            gap.value,
            interval=gap.interval,
            method=f"simultaneous over pairs, {method}",
            n=len(errors),
            unit="examples",
            anchors={"null_gap": gap.null_mean, "null_gap_95": gap.null_95},
            detail={
                **detail,
                "debiased": gap.debiased,
                "p_value": gap.p_value,
                "low": names[int(np.argmin(means))],
                "high": names[int(np.argmax(means))],
            },
            where=place,
            **context,
        ),
    ]
