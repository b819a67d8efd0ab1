"""Figures of models that predict one class: accuracy, ranking, likelihood and calibration."""

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.performance.calibration import reliability
from fedsafe.assess.performance.ranking import auc
from fedsafe.assess.scores import decide
from fedsafe.findings import (
    Evidence,
    Finding,
    Provenance,
    bounded_mean,
    combine_shares,
    estimate,
    not_measured,
    proportion,
    t_interval,
)

Array = NDArray[np.float64]

_SMALLEST_CLASS = 10  # for a ranking
_PER_BIN = 20
_MOST_LISTED = 1000  # classes, whose recalls a finding lists one by one


def classification(
    logits: Array, y: NDArray[np.int64], classes: int, rng: np.random.Generator, context: Provenance
) -> list[Finding]:
    """Accuracy, balanced accuracy, AUC, likelihood, Brier score and calibration.

    Args:
        logits: ``(n, outputs)``; a single logit is that of class 1 against 0.
        y: ``(n,)`` true classes.
        classes: Number of classes.
        rng: Source of the resampling.
        context: Fields of every finding.
    """
    correct = decide(logits) == y
    counts = np.bincount(y, minlength=classes)
    return [
        proportion(
            "performance.accuracy",
            int(correct.sum()),
            len(y),
            anchors={"majority_class": counts.max() / len(y)},
            evidence=Evidence(rows=np.arange(len(y)), holds=correct),
            **context,
        ),
        _balanced(correct, y, counts, context),
        _ranking(logits, y, context) if logits.shape[1] == 1 else _no_ranking(context),
        *_scores(logits, y, counts / len(y), context),
        _calibration(logits, y, correct, rng, context),
    ]


def _balanced(
    correct: NDArray[np.bool_], y: NDArray[np.int64], counts: NDArray[np.int64], context: Provenance
) -> Finding:
    metric = "performance.balanced_accuracy"
    if counts.min() == 0:
        reason = f"class {int(counts.argmin())} has no example"
        return not_measured(metric, reason, status="insufficient", n=len(y), unit="examples", **context)
    hits = np.bincount(y, weights=correct, minlength=len(counts)).astype(np.int64)
    weights = np.full(len(counts), 1 / len(counts))
    low, high = combine_shares(hits, counts, weights)
    return estimate(
        metric,
        float(np.mean(hits / counts)),
        interval=(max(0.0, low), min(1.0, high)),
        method="mover-wilson",
        n=len(y),
        unit="examples",
        resolution=1 / (len(counts) * int(counts.min())),
        anchors={"chance": 1 / len(counts)},
        detail={"recall": hits / counts, "examples": counts} if len(counts) <= _MOST_LISTED else {},
        **context,
    )


def _ranking(logits: Array, y: NDArray[np.int64], context: Provenance) -> Finding:
    metric = "performance.auc"
    positive, negative = logits[y == 1, 0], logits[y == 0, 0]
    smaller = min(len(positive), len(negative))
    if smaller < _SMALLEST_CLASS:
        reason = f"the smaller class has {smaller} examples, {_SMALLEST_CLASS} are needed"
        return not_measured(metric, reason, status="insufficient", n=len(y), unit="examples", **context)
    value, interval, method = auc(positive, negative)
    return estimate(
        metric,
        value,
        interval=interval,
        method=method,
        n=len(y),
        unit="examples",
        resolution=0.5 / (len(positive) * len(negative)),
        anchors={"chance": 0.5},
        **context,
    )


def _no_ranking(context: Provenance) -> Finding:
    return not_measured(
        "performance.auc", "the task has no positive class", status="not_applicable", **context
    )


def _scores(logits: Array, y: NDArray[np.int64], prior: Array, context: Provenance) -> list[Finding]:
    """Likelihood and Brier score, beside those of a model that always predicts the class shares."""
    if logits.shape[1] == 1:
        signed = np.where(y == 1, logits[:, 0], -logits[:, 0])
        loss, brier = np.logaddexp(0.0, -signed), special.expit(-signed) ** 2
        constant = float(prior[0] * prior[1])
    else:
        log_shares = special.log_softmax(logits, axis=1)
        loss = -log_shares[np.arange(len(y)), y]
        missed = np.exp(log_shares)
        missed[np.arange(len(y)), y] -= 1.0
        brier = (missed**2).sum(axis=1)
        constant = float(1 - prior @ prior)
    entropy = float(special.entr(prior).sum())
    return [
        _mean("performance.nll", loss, None, entropy, context),
        # No more than 1 for the positive class, and 2 where every class counts.
        _mean("performance.brier", brier, 1.0 if logits.shape[1] == 1 else 2.0, constant, context),
    ]


def _mean(metric: str, values: Array, most: float | None, constant: float, context: Provenance) -> Finding:
    """A mean of values between 0 and the most that one can be, or without end."""
    n, mean = len(values), float(values.mean())
    reason = ""
    if n < 2:
        reason = "the mean of one example has no interval"
    elif most is None and np.ptp(values) <= 1e-9 * max(1.0, abs(mean)):
        reason = (
            f"all {n} losses are {mean:.3g}: how rare others are cannot be told, nor how large they may be"
        )
    if reason:
        detail = {"mean": mean}
        return not_measured(
            metric, reason, status="insufficient", n=n, unit="examples", detail=detail, **context
        )
    if most is None:
        low, high = t_interval(values)
        interval, method = (max(0.0, low), high), "t"
    else:
        interval, method = bounded_mean(values, 0.0, most)
    return estimate(
        metric,
        mean,
        interval=interval,
        method=method,
        n=n,
        unit="examples",
        anchors={"class_shares": constant},
        **context,
    )


def _calibration(
    logits: Array,
    y: NDArray[np.int64],
    correct: NDArray[np.bool_],
    rng: np.random.Generator,
    context: Provenance,
) -> Finding:
    metric, n = "performance.ece", len(y)
    if n < 5 * _PER_BIN:
        reason = f"{n} examples fill fewer than 5 bins of {_PER_BIN}"
        return not_measured(metric, reason, status="insufficient", n=n, unit="examples", **context)
    if logits.shape[1] == 1:
        event, table = (
            "the positive class",
            reliability(special.expit(logits[:, 0]), y, min(15, n // _PER_BIN)),
        )
    else:
        confidence = special.softmax(logits, axis=1).max(axis=1)
        event, table = "the predicted class", reliability(confidence, correct, min(15, n // _PER_BIN))
    return estimate(
        metric,
        table.debiased,
        interval=table.interval(rng),
        method="bootstrap, triangle inequality",
        n=n,
        unit="examples",
        anchors={"perfectly_calibrated": table.calibrated(rng)},
        detail={"plug_in": table.plug_in, "bins": table.table(), "event": event},
        **context,
    )
