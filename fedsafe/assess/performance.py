"""How well the model predicts: accuracy, ranking, calibration, and how evenly over the clients."""

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from fedsafe.assess.base import Cost, Subject, Tier, decide
from fedsafe.assess.calibration import reliability
from fedsafe.findings import (
    Finding,
    Interval,
    Provenance,
    combine_shares,
    estimate,
    not_measured,
    percentile,
    proportion,
    t_interval,
    wilson,
)

Array = NDArray[np.float64]

_SMALLEST_CLASS = 10  # for a ranking
_SMALLEST_SHARD = 10  # records; below, a client's accuracy is mostly chance
_FEWEST_SHARDS = 20  # for a worst tenth of more than one client
_PER_BIN = 20


class Performance:
    """Accuracy, balanced accuracy, AUC, likelihood, Brier score, calibration, and accuracy over clients."""

    name: ClassVar[str] = "performance"

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One forward pass over the evaluation set, in either tier."""
        n = len(subject.evaluation)
        return Cost(description=f"accuracy and calibration on {n} examples", examples=n, forward=n)

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        y, context = subject.evaluation.y, subject.provenance
        logits = subject.logits(subject.evaluation.x)
        correct = decide(logits) == y
        counts = np.bincount(y, minlength=len(subject.task.classes))
        findings = [
            proportion(
                "performance.accuracy",
                int(correct.sum()),
                len(y),
                anchors={"majority_class": counts.max() / len(y)},
                **context,
            ),
            _balanced(correct, y, counts, context),
            _ranking(logits, y, context) if subject.binary else _no_ranking(context),
            *_scores(logits, y, counts / len(y), context),
            _calibration(logits, y, correct, rng, context),
        ]
        return findings + _clients(correct, subject.shards, rng, context)


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
        detail={"recall": hits / counts, "examples": counts},
        **context,
    )


def _ranking(logits: Array, y: NDArray[np.int64], context: Provenance) -> Finding:
    metric = "performance.auc"
    positive, negative = logits[y == 1, 0], logits[y == 0, 0]
    smaller = min(len(positive), len(negative))
    if smaller < _SMALLEST_CLASS:
        reason = f"the smaller class has {smaller} examples, {_SMALLEST_CLASS} are needed"
        return not_measured(metric, reason, status="insufficient", n=len(y), unit="examples", **context)
    value, interval, method = _auc(positive, negative)
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


def _auc(positive: Array, negative: Array) -> tuple[float, Interval, str]:
    """Area under the curve, its interval on the logit scale (DeLong, DeLong and Clarke-Pearson, 1988)."""
    p, n = len(positive), len(negative)
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    above = (ranks[:p] - stats.rankdata(positive)) / n
    below = 1 - (ranks[p:] - stats.rankdata(negative)) / p
    value = float(above.mean())
    error = math.sqrt(above.var(ddof=1) / p + below.var(ddof=1) / n)
    if error == 0 or value in (0.0, 1.0):
        # The variance of a perfect or a constant ranking is no evidence: fall back on the smaller class
        # alone.
        smaller = min(p, n)
        return value, wilson(round(value * smaller), smaller), "wilson on the smaller class"
    centre, half = special.logit(value), special.ndtri(0.975) * error / (value * (1 - value))
    return value, (float(special.expit(centre - half)), float(special.expit(centre + half))), "delong-logit"


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
        brier = ((np.exp(log_shares) - np.eye(logits.shape[1])[y]) ** 2).sum(axis=1)
        constant = float(1 - prior @ prior)
    entropy = float(special.entr(prior).sum())
    return [
        _mean("performance.nll", loss, entropy, context),
        _mean("performance.brier", brier, constant, context),
    ]


def _mean(metric: str, values: Array, constant: float, context: Provenance) -> Finding:
    interval = None
    if len(values) > 1:
        low, high = t_interval(values)
        interval = (max(0.0, low), high)
    return estimate(
        metric,
        float(values.mean()),
        interval=interval,
        method=None if interval is None else "t",
        n=len(values),
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


def _clients(
    correct: NDArray[np.bool_],
    shards: tuple[NDArray[np.int64], ...] | None,
    rng: np.random.Generator,
    context: Provenance,
) -> list[Finding]:
    """Accuracy over the clients' shards of the evaluation set, beside that of clients who are all alike."""
    worst, spread = "performance.worst_decile_accuracy", "performance.accuracy_spread"
    if shards is None:
        reason = "the evaluation set is not cut by client"
        return [not_measured(m, reason, status="not_applicable", **context) for m in (worst, spread)]
    kept = [shard for shard in shards if len(shard) >= _SMALLEST_SHARD]
    detail = {
        "shards": "evaluation shards cut by the clients' partition rule",
        "too_small": len(shards) - len(kept),
        "smallest": _SMALLEST_SHARD,
    }
    if len(kept) < _FEWEST_SHARDS:
        reason = f"{len(kept)} shards have {_SMALLEST_SHARD} records or more, {_FEWEST_SHARDS} are needed"
        return [
            not_measured(
                m, reason, status="insufficient", n=len(kept), unit="clients", detail=detail, **context
            )
            for m in (worst, spread)
        ]
    sizes = np.array([len(shard) for shard in kept])
    shares = np.array([correct[shard].mean() for shard in kept])
    overall = float(sizes @ shares / sizes.sum())
    alike = rng.binomial(sizes, overall, size=(500, len(sizes))) / sizes
    resampled = shares[rng.integers(0, len(sizes), size=(2000, len(sizes)))]
    detail["quantiles"] = np.quantile(shares, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])

    def finding(metric: str, value: float, replicates: Array, anchor: float) -> Finding:
        return estimate(
            metric,
            value,
            interval=percentile(replicates),
            method="bootstrap over clients",
            n=len(sizes),
            unit="clients",
            anchors={"clients_alike": anchor},
            detail=detail,
            **context,
        )

    return [
        finding(
            worst,
            float(_worst_tenth(shares[None])[0]),
            _worst_tenth(resampled),
            float(_worst_tenth(alike).mean()),
        ),
        finding(spread, float(shares.std()), resampled.std(axis=1), float(alike.std(axis=1).mean())),
    ]


def _worst_tenth(shares: Array) -> Array:
    """Mean of the smallest tenth (rounded up) of each row of ``(rows, clients)``."""
    count = math.ceil(shares.shape[1] / 10)
    return np.asarray(np.partition(shares, count - 1, axis=1)[:, :count].mean(axis=1))
