"""Figures of models that predict a number: R squared and errors in the target's own unit."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.resampling import cluster_sums, clusters_of, interval_of
from fedsafe.data import Examples, Target
from fedsafe.findings import Finding, Provenance, estimate, not_measured

Array = NDArray[np.float64]

# Columns of the sums that every figure here follows from.
_N, _Y, _YY, _EE, _AE = range(5)


def regression(
    predicted: Array,
    examples: Examples,
    target: Target,
    *,
    resamples: int,
    rng: np.random.Generator,
    context: Provenance,
) -> list[Finding]:
    """R squared, mean absolute error and root mean squared error.

    Args:
        predicted: ``(n,)`` predictions in encoded units.
        examples: The records, targets in encoded units.
        target: What is predicted.
        resamples: For the intervals.
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    clusters = clusters_of(examples)
    sums = cluster_sums(moments(predicted, examples.y), clusters.codes)
    total, scale = sums.sum(axis=0, keepdims=True), target.scale
    middle = examples.y.astype(np.float64) - np.median(examples.y)
    figures: tuple[tuple[str, Callable[[Array], Array], dict[str, float]], ...] = (
        ("performance.r2", r_squared, {"predicting_the_mean": 0.0}),
        (
            "performance.mae",
            lambda rows: scale * rows[:, _AE] / rows[:, _N],
            {"predicting_the_median": scale * float(np.abs(middle).mean())},
        ),
        (
            "performance.rmse",
            lambda rows: scale * np.sqrt(rows[:, _EE] / rows[:, _N]),
            {"predicting_the_mean": scale * float(examples.y.std(dtype=np.float64))},
        ),
    )
    findings = []
    for metric, figure, anchors in figures:
        value = float(figure(total)[0])
        if not np.isfinite(value):
            reason = "every target is the same: there is no variance to explain"
            findings.append(
                not_measured(
                    metric, reason, status="insufficient", n=len(examples), unit="examples", **context
                )
            )
            continue
        interval = interval_of(figure, sums, rng, resamples)
        findings.append(
            estimate(
                metric,
                value,
                interval=interval,
                method=None if interval is None else clusters.method,
                n=len(examples),
                unit="examples",
                anchors=anchors,
                diagnostics={"interval": clusters.note} if clusters.note else {},
                detail={"target": target.name, "unit": target.unit, "clusters": len(sums)},
                **context,
            )
        )
    return findings


def moments(predicted: Array, y: NDArray[Any]) -> Array:
    """``(n, 5)`` count, target, its square, squared error and absolute error of each record."""
    truth = y.astype(np.float64)
    error = predicted - truth
    return np.stack([np.ones_like(truth), truth, truth**2, error**2, np.abs(error)], axis=1)


def r_squared(totals: Array) -> Array:
    """``(rows,)`` R squared from ``(rows, 5)`` totals of `moments`; not a number where the target is constant.

    One less the squared error over that of always predicting the mean of these targets.
    """
    spread = totals[:, _YY] - totals[:, _Y] ** 2 / totals[:, _N]
    # Rounding leaves a constant target a spread of about 1e-16 of its square.
    real = spread > 1e-12 * np.maximum(totals[:, _YY], 1e-30)
    ratio = np.divide(totals[:, _EE], spread, out=np.full(len(totals), np.nan), where=real)
    return np.asarray(1.0 - ratio)
