"""Figures under corruption: each alone, their mean, and against a baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.base import Subject
from fedsafe.assess.scores import decide
from fedsafe.data import Examples
from fedsafe.findings import (
    Context,
    Finding,
    Scalar,
    Scope,
    bounded_mean,
    estimate,
    not_measured,
    percentile,
    proportion,
    t_interval,
    wilson,
)

Wrong = NDArray[np.float64]
"""``(n,)`` of each example: 1 where it is wrong, or the absolute error in the target's unit."""

Key = tuple[str, int]

_RESAMPLES = 500
_FEWEST = 30.0


def wrong(subject: Subject, examples: Examples, outputs: NDArray[np.float64] | None = None) -> Wrong:
    """How wrong outputs are, those of the subject's model where none are given."""
    outputs = subject.logits(examples.x) if outputs is None else outputs
    target = subject.task.target
    if target is not None:
        return np.asarray(np.abs(outputs[:, 0] - examples.y) * target.scale, dtype=np.float64)
    return np.asarray(decide(outputs) != examples.y, dtype=np.float64)


def single(subject: Subject, found: Wrong, where: Mapping[str, Scalar], clean: Wrong) -> Finding:
    """Accuracy, or the mean absolute error, under one corruption."""
    scope: Scope = {"where": where, **subject.provenance}
    n, level = len(found), float(clean.mean())
    if subject.task.target is None:
        right = int(n - found.sum())
        return proportion("corruptions.accuracy", right, n, anchors={"clean": 1 - level}, **scope)
    if n < 2:
        reason = "the mean of one example has no interval"
        return not_measured(
            "corruptions.absolute_error", reason, status="insufficient", n=n, unit="examples", **scope
        )
    low, high = t_interval(found)
    return estimate(
        "corruptions.absolute_error", float(found.mean()), interval=(max(0.0, low), high), method="t", n=n,
        unit="examples", anchors={"clean": level}, detail={"unit": subject.task.target.unit}, **scope,
    )  # fmt: skip


def tilted(
    subject: Subject, clean: Wrong, feature: str, direction: str, weights: NDArray[np.float64]
) -> Finding:
    """Accuracy, or the mean absolute error, on another mix of the same records.

    The weighted mean, with the linearised standard error of a ratio and a normal interval (Särndal, Swensson and
    Wretman 1992, 5.8).

    Args:
        subject: Who is judged.
        clean: ``(n,)`` errors on the evaluation records.
        feature: Whose mean moves.
        direction: "up" or "down".
        weights: ``(n,)``, positive.
    """
    regression = subject.task.target is not None
    metric = "corruptions.absolute_error" if regression else "corruptions.accuracy"
    scope: Scope = {
        "where": {"corruption": "tilt", "feature": feature, "direction": direction},
        **subject.provenance,
    }
    n, effective = len(clean), float(weights.sum() ** 2 / np.sum(weights**2))
    if effective < _FEWEST:
        reason = f"so few records lie there that {n} of them weigh as much as {effective:.1f}"
        return not_measured(metric, reason, status="insufficient", n=n, unit="examples", **scope)
    values = clean if regression else 1 - clean
    share = weights / weights.sum()
    mean = float(share @ values)
    error = float(np.sqrt(np.sum(share**2 * (values - mean) ** 2)))
    reach = float(special.ndtri(0.975)) * error
    # Where every weighted record is alike, the spread says nothing: the interval of as many records as they weigh does.
    low, high = (
        (mean - reach, mean + reach)
        if error > 0 or regression
        else wilson(round(mean * effective), round(effective))
    )
    most = np.inf if regression else 1.0
    unit = {} if subject.task.target is None else {"unit": subject.task.target.unit}
    mean = mean if regression else float(np.clip(mean, 0, 1))
    return estimate(
        metric,
        mean,
        interval=(min(mean, max(0.0, low)), max(mean, min(most, high))),
        method="linearised" if error > 0 or regression else "wilson",
        n=n,
        unit="examples",
        anchors={"clean": float(values.mean())},
        detail={"effective_examples": effective, **unit},
        **scope,
    )


def mean_error(
    subject: Subject,
    errors: Mapping[Key, Wrong],
    suite: str,
    clean: Wrong,
    pictures: Sequence[Any],
) -> Finding:
    """Mean error over a suite, with the table that it is the mean of; examples vary, corruptions do not."""
    every = np.stack(list(errors.values()))
    n = every.shape[1]
    detail: dict[str, Any] = {"table": [_row(key, found) for key, found in errors.items()]}
    if pictures:
        detail["pictures"] = list(pictures)
    context: Context = {
        "where": {"suite": suite},
        "anchors": {"clean": float(clean.mean())},
        "detail": detail,
        "data": subject.evaluation_name,
        "released": subject.released,
    }
    metric = "corruptions.mean_error"
    if n < 2:
        reason = "the mean of one example has no interval"
        return not_measured(metric, reason, status="insufficient", n=n, unit="examples", **context)
    interval, method = bounded_mean(every.mean(axis=0), 0.0, 1.0)
    return estimate(
        metric, float(every.mean()), interval=interval, method=method, n=n, unit="examples", **context
    )


def relative_error(
    subject: Subject,
    errors: Mapping[Key, Wrong],
    theirs: Mapping[Key, Wrong],
    where: Mapping[str, Scalar],
    baseline: str,
    rng: np.random.Generator,
) -> Finding:
    """Mean over a suite of the error over the baseline's on the same inputs (mCE, Hendrycks and Dietterich 2019).

    Args:
        subject: Who is judged.
        errors: Of the model, by corruption.
        theirs: Of the baseline.
        where: The suite and the baseline's name.
        baseline: What it is.
        rng: Source of the resampling of examples.
    """
    metric, scope = "corruptions.relative_error", {"where": where, **subject.provenance}
    ours, base = np.stack(list(errors.values())), np.stack(list(theirs.values()))
    n = ours.shape[1]
    rows = []
    for (key, found), of in zip(errors.items(), base, strict=True):
        ratio = float(found.mean() / of.mean()) if of.mean() > 0 else None
        rows.append({**_row(key, found), "baseline_error": float(of.mean()), "relative_error": ratio})
    detail = {"baseline": baseline, "table": rows}
    if n < 2 or not (base.mean(axis=1) > 0).all():
        reason = "the baseline makes no error under some corruption, and nothing can be relative to that"
        return not_measured(
            metric, reason, status="insufficient", n=n, unit="examples", detail=detail, **scope  # type: ignore[arg-type]
        )  # fmt: skip
    value = float(np.mean(ours.mean(axis=1) / base.mean(axis=1)))
    counts = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    below = counts @ base.T
    kept = (below > 0).all(axis=1)
    replicates = np.mean((counts @ ours.T)[kept] / below[kept], axis=1)
    low, high = percentile(replicates) if len(replicates) > 1 else (value, value)
    return estimate(
        metric, value, interval=(min(low, value), max(high, value)), method="percentile", n=n, unit="examples",
        detail=detail, **scope,  # type: ignore[arg-type]
    )  # fmt: skip


def _row(key: Key, found: Wrong) -> dict[str, Any]:
    row: dict[str, Any] = {"corruption": key[0], "severity": key[1], "error": float(found.mean())}
    if ((found == 0) | (found == 1)).all():
        row["low"], row["high"] = wilson(int(found.sum()), len(found))
    return row
