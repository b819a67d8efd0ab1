"""Whether a probability means the same in every group: calibration error, and calibration in the large."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.fairness.cells import too_few
from fedsafe.assess.fairness.mean_gaps import largest_difference, normal_noise
from fedsafe.assess.performance.calibration import Reliability, reliability
from fedsafe.findings import Finding, Interval, Provenance, Scope, bounded_mean, estimate, not_measured

Array = NDArray[np.float64]

ERROR, ERROR_GAP = "fairness.calibration_error", "fairness.calibration_error_difference"
LARGE, LARGE_GAP = "fairness.calibration_in_the_large", "fairness.calibration_in_the_large_difference"
_PER_BIN = 20
_MOST_BINS = 15
_SPLITS = 200


@dataclass(frozen=True, kw_only=True)
class CalibrationGap:
    """The largest difference between two groups in calibration error.

    Attributes:
        value: The range of the debiased errors.
        interval: Its 95 % interval.
        debiased: An estimate that is 0 on average where every group is calibrated.
        null_mean: What groups that are all calibrated show on average.
    """

    value: float
    interval: Interval
    debiased: float
    null_mean: float


def bin_predictions(confidence: Array, outcome: Array) -> Reliability:
    """Predictions in bins of equal mass, of 20 examples or more where there are so many."""
    return reliability(confidence, outcome, max(1, min(_MOST_BINS, len(outcome) // _PER_BIN)))


def calibration_gap(
    groups: Sequence[Reliability], rng: np.random.Generator, resamples: int
) -> CalibrationGap:
    """The largest difference between two groups in expected calibration error.

    Each group's interval is that of `Reliability.interval` at a confidence such that all hold together (Bonferroni);
    the difference lies between the largest difference of a lower end from an upper one, and of an upper from a lower.
    The debiased difference is that of `measure_gap`, with halves of every bin and the errors less what a calibrated
    model shows.

    Args:
        groups: Of each group, at least 2.
        rng: Source of the resampling.
        resamples: Number of resamples.
    """
    confidence = 1 - 0.05 / len(groups)
    ends = [group.interval(rng, resamples, confidence) for group in groups]
    errors = np.array([group.debiased for group in groups])
    value = float(np.ptp(errors))
    lows, highs = np.array(ends).T
    apart = ~np.eye(len(groups), dtype=bool)
    low = max(0.0, float(np.subtract.outer(lows, highs)[apart].max()))
    high = float(np.subtract.outer(highs, lows)[apart].max())
    null = np.stack([_of_calibrated(group, rng, resamples) for group in groups], axis=1)
    halves = [_excess_of_halves(group, rng) for group in groups]
    first, second = (np.stack(side, axis=1) for side in zip(*halves, strict=True))
    rows = np.arange(_SPLITS)
    crossed = [
        judged[rows, chosen.argmax(axis=1)] - judged[rows, chosen.argmin(axis=1)]
        for chosen, judged in ((first, second), (second, first))
    ]
    return CalibrationGap(
        value=value,
        interval=(min(low, value), max(high, value)),
        debiased=float(np.mean(crossed)),
        null_mean=float(np.ptp(null, axis=1).mean()),
    )


def _of_calibrated(group: Reliability, rng: np.random.Generator, resamples: int) -> Array:
    """``(resamples,)`` debiased errors of a calibrated model with these confidences."""
    noise = rng.normal(size=(resamples, len(group.n))) * np.sqrt(group.variance)
    return group.debias(np.clip(group.confidence + noise, 0.0, 1.0))


def _excess_of_halves(group: Reliability, rng: np.random.Generator) -> tuple[Array, Array]:
    """Twice ``(splits,)``: plug-in errors of two halves of every bin, less those of a calibrated model."""
    n = group.n.astype(np.int64)
    hits = np.rint(group.outcome * group.n).astype(np.int64)
    half = n // 2
    part = rng.hypergeometric(hits, n - hits, half, size=(_SPLITS, len(n)))
    found = []
    for k, size in ((part, half), (hits - part, n - half)):
        share = np.divide(k, size, out=np.tile(group.confidence, (_SPLITS, 1)), where=size > 0)
        # The mean of a folded normal with centre 0; the variance of a whole bin is that of all its records.
        expected = np.sqrt(2 / np.pi * group.variance * group.n / np.maximum(size, 1))
        found.append((np.abs(share - group.confidence) - np.where(size > 0, expected, 0.0)) @ group.weights)
    return found[0], found[1]


def calibration_by_group(
    confidence: Array,
    outcome: Array,
    groups: NDArray[np.str_],
    eligible: Mapping[str, str],
    attribute: str,
    *,
    event: str,
    shows_bins: bool,
    resamples: int,
    rng: np.random.Generator,
    context: Provenance,
) -> list[Finding]:
    """Calibration error and calibration in the large of every group of an attribute, and the largest differences.

    Args:
        confidence: ``(n,)`` predicted probability of an event.
        outcome: ``(n,)`` 1 where it came true.
        groups: ``(n,)`` the group of each record.
        eligible: Of every group why it is not measured, "" where it is.
        attribute: What the groups differ in.
        event: What is predicted, for a reader.
        shows_bins: Whether the reliability diagrams go into the findings.
        resamples: For the intervals.
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    findings, used, means, errors = [], [], [], []
    found: list[Reliability] = []
    for group, reason in eligible.items():
        rows = groups == group
        n = int(rows.sum())
        scope: Scope = {"where": {"attribute": attribute, "group": group}, **context}
        if reason:
            findings += [
                not_measured(metric, reason, status="insufficient", n=n, unit="examples", **scope)
                for metric in (ERROR, LARGE)
            ]
            continue
        bins, residuals = bin_predictions(confidence[rows], outcome[rows]), outcome[rows] - confidence[rows]
        used.append(group)
        found.append(bins)
        means.append(float(residuals.mean()))
        # At least half a record: a group without an error still has sampling error.
        errors.append(max(float(residuals.std(ddof=1)) / n**0.5, 0.5 / n))
        low, high = bins.interval(rng, resamples)
        spread, how = bounded_mean(residuals, -1.0, 1.0)
        findings += [
            estimate(
                ERROR,
                bins.debiased,
                interval=(min(low, bins.debiased), max(high, bins.debiased)),
                method="resampled bins, by the triangle inequality",
                n=n,
                unit="examples",
                anchors={"calibrated": float(_of_calibrated(bins, rng, 500).mean())},
                detail={"plug_in": bins.plug_in, "event": event}
                | ({"table": bins.table()} if shows_bins else {}),
                **scope,
            ),
            estimate(
                LARGE,
                means[-1],
                interval=spread,
                method=how,
                n=n,
                unit="examples",
                anchors={"calibrated": 0.0},
                detail={
                    "event": event,
                    "observed": float(outcome[rows].mean()),
                    "predicted": float(confidence[rows].mean()),
                },
                **scope,
            ),
        ]
    place: Scope = {"where": {"attribute": attribute}, **context}
    n = int(sum(bins.n.sum() for bins in found))
    left_out = [group for group in eligible if group not in used]
    detail: dict[str, Any] = {"groups": used, "left_out": left_out, "event": event}
    if len(used) < 2:
        reason = too_few(len(used), left_out, attribute)
        return findings + [
            not_measured(metric, reason, status="insufficient", n=n, unit="examples", detail=detail, **place)
            for metric in (ERROR_GAP, LARGE_GAP)
        ]
    gap = calibration_gap(found, rng, resamples)
    ece = [bins.debiased for bins in found]
    large = largest_difference(np.array(means), normal_noise(np.array(errors), rng, resamples))
    return [
        *findings,
        estimate(
            ERROR_GAP,
            gap.value,
            interval=gap.interval,
            method="resampled bins, simultaneous over groups",
            n=n,
            unit="examples",
            anchors={"null_gap": gap.null_mean},
            detail={**detail, "debiased": gap.debiased, "extremes": _extremes(used, ece)},
            **place,
        ),
        estimate(
            LARGE_GAP,
            large.value,
            interval=large.interval,
            method="simultaneous over pairs, normal errors",
            n=n,
            unit="examples",
            anchors={"null_gap": large.null_mean, "null_gap_95": large.null_95},
            detail={
                **detail,
                "debiased": large.debiased,
                "p_value": large.p_value,
                "extremes": _extremes(used, means),
            },
            **place,
        ),
    ]


def _extremes(names: Sequence[str], values: Sequence[float]) -> dict[str, str]:
    return {"low": names[int(np.argmin(values))], "high": names[int(np.argmax(values))]}
