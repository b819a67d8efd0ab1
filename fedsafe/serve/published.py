"""What a monitor is worth, measured on records that had no part in it: its own figures, published with the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.performance.ranking import auc
from fedsafe.assess.robustness.gradient import pgd
from fedsafe.assess.robustness.regions import Box
from fedsafe.data import Examples, InputSchema
from fedsafe.errors import DataError
from fedsafe.findings import Finding, Scope, bootstrap, estimate, not_measured, proportion
from fedsafe.serve.adaptive import adaptive_attack, without_gradient
from fedsafe.serve.calibration import confidence_reliability
from fedsafe.serve.conformal import Array
from fedsafe.serve.detectors.synthetic import permuted, shuffled, uniform, unused
from fedsafe.serve.monitor import Checks, Monitor

_COVERAGES = (0.8, 0.9, 1.0)
_FEWEST = 100
_RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is spent.

    Attributes:
        radius: Of the attacks, in the maximum norm and encoded units, as a share of each feature's range.
        attacked: Inputs that are attacked, at most.
        steps: Of each restart.
        restarts: Of each attack.
        strangers: Inputs of each synthetic domain, at most.
    """

    radius: float = 0.1
    attacked: int = 200
    steps: int = 40
    restarts: int = 4
    strangers: int = 2000


def monitor_findings(
    monitor: Monitor,
    schema: InputSchema,
    test: Examples,
    *,
    data: str,
    foreign: Mapping[str, NDArray[Any]] | None = None,
    effort: Effort | None = None,
    rng: np.random.Generator,
) -> list[Finding]:
    """Measures a monitor.

    Args:
        monitor: What is measured.
        schema: The public schema.
        test: Public records that had no part in fitting it, at least 100.
        data: What they are.
        foreign: Inputs ``(n, *inputs)`` of other domains, by name.
        effort: What is spent.
        rng: The only source of randomness.

    Raises:
        DataError: There are too few records.
    """
    if len(test) < _FEWEST:
        raise DataError(f"a monitor is measured on {_FEWEST} records or more, not {len(test)}")
    how, checks = effort or Effort(), monitor.check(test.x)
    context: Scope = {"data": data, "released": None}
    findings = [
        proportion(
            "monitor.false_alarm_rate",
            int(checks.alarms.sum()),
            len(test),
            anchors={"stated": monitor.level},
            **context,
        )
    ]
    chosen_by, others = _synthetic(test, schema, how, rng)
    for name, x in {**chosen_by, **others, **(foreign or {})}.items():
        findings += _domain(monitor, checks, name, x, context, in_selection=name in chosen_by)
    if monitor.classes:
        findings += _attacked(monitor, schema, test, checks, how, context, rng)
        findings += _confidence(monitor, test, checks, context, rng)
    return findings


def _synthetic(
    test: Examples, schema: InputSchema, how: Effort, rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Families by which detectors are chosen, and others, by name."""
    rows = rng.permutation(len(test))[: how.strangers]
    flat = np.asarray(test.x[rows], np.float32).reshape(len(rows), -1)
    found = {"uniform noise": uniform(len(flat), schema, rng), "permuted features": permuted(flat, rng)}
    if len(schema.shape) == 1:
        found["columns of different records"] = shuffled(flat, schema, rng)
    shaped = [
        {name: x.reshape(-1, *schema.shape) for name, x in families.items()}
        for families in (found, unused(flat, schema, rng))
    ]
    return shaped[0], shaped[1]


def _domain(
    monitor: Monitor, ordinary: Checks, name: str, x: NDArray[Any], context: Scope, *, in_selection: bool
) -> list[Finding]:
    found = monitor.check(x)
    value, interval, method = auc(_ranked(found), _ranked(ordinary))
    context = {**context, "where": {"domain": name, "in_selection": in_selection}}
    return [
        estimate(
            "monitor.auroc",
            value,
            interval=interval,
            method=method,
            n=len(x) + len(ordinary.score),
            unit="inputs",
            anchors={"chance": 0.5},
            **context,
        ),
        proportion(
            "monitor.detection_rate",
            int(found.alarms.sum()),
            len(x),
            unit="inputs",
            anchors={"false alarms": float(ordinary.alarms.mean())},
            **context,
        ),
    ]


def _ranked(checks: Checks) -> Array:
    return np.asarray(
        np.nan_to_num(checks.score, nan=np.finfo(np.float64).max, posinf=np.finfo(np.float64).max)
    )


def _attacked(
    monitor: Monitor,
    schema: InputSchema,
    test: Examples,
    ordinary: Checks,
    how: Effort,
    context: Scope,
    rng: np.random.Generator,
) -> list[Finding]:
    free = np.asarray(schema.perturbable & ~schema.immutable)
    right = np.flatnonzero(monitor.probabilities(ordinary.outputs).argmax(axis=1) == test.y)
    rows = np.sort(rng.permutation(right)[: how.attacked])
    findings: list[Finding] = []
    for attack in ("static", "adaptive"):
        where = {"attack": attack, "norm": "linf", "radius": how.radius}
        own: Scope = {**context, "where": where}
        if not free.any() or len(rows) < 10:
            reason = "no feature may be moved" if not free.any() else "fewer than 10 inputs are right"
            findings += [
                not_measured(metric, reason, status="not_applicable", **own)
                for metric in ("monitor.detection_rate", "monitor.undetected_error_rate")
            ]
            continue
        x, y = torch.tensor(test.x[rows]), torch.tensor(test.y[rows])
        low, high = torch.tensor(schema.low), torch.tensor(schema.high)
        region = Box.around(x, how.radius * float((high - low).max()), low, high, torch.tensor(free))
        effort = {"steps": how.steps, "restarts": how.restarts}
        if attack == "static":
            moved = pgd(monitor.forward.model, x, y, region, rng=rng, **effort)
        else:
            moved = adaptive_attack(monitor, x, y, region, rng=rng, **effort)
        # What an attack says of itself counts for nothing: the region, the model and the monitor are asked again.
        found = monitor.check(region.project(moved).numpy())
        wrong = monitor.probabilities(found.outputs).argmax(axis=1) != test.y[rows]
        count, noticed = int(wrong.sum()), int((wrong & found.alarms).sum())
        detail = {
            "attacked": len(rows),
            "misread": count,
            "noticed": noticed,
            "without_gradient": list(without_gradient(monitor)),
            "moved": f"{int(free.sum())} of {free.size} features; no category",
            **effort,
        }
        area = None
        if count >= 2:
            area = auc(_ranked(found)[wrong], _ranked(ordinary))[0]
        findings += [
            proportion(
                "monitor.detection_rate",
                noticed,
                count,
                unit="misread inputs",
                bound="upper",
                anchors={"false alarms": float(ordinary.alarms.mean())},
                detail={**detail, "auroc": area},
                **own,
            ),
            proportion(
                "monitor.undetected_error_rate",
                count - noticed,
                len(rows),
                unit="inputs",
                bound="lower",
                anchors={"without the monitor": count / len(rows)},
                detail=detail,
                **own,
            ),
        ]
    return findings


def _confidence(
    monitor: Monitor, test: Examples, checks: Checks, context: Scope, rng: np.random.Generator
) -> list[Finding]:
    findings: list[Finding] = []
    for name, temperature in (("before", 1.0), ("after", monitor.temperature)):
        own: Scope = {**context, "where": {"scaling": name}}
        bins = confidence_reliability(checks.outputs, test.y, temperature)
        findings.append(
            estimate(
                "monitor.calibration_error",
                bins.debiased,
                interval=bins.interval(rng),
                method="resampled bins",
                n=len(test),
                unit="examples",
                anchors={"calibrated": bins.calibrated(rng)},
                detail={"temperature": temperature, "plug_in": bins.plug_in, "table": bins.table()},
                **own,
            )
        )
    shares = monitor.probabilities(checks.outputs)
    wrong = (shares.argmax(axis=1) != test.y).astype(np.float64)
    confidence = shares.max(axis=1)
    # An alarm is an abstention: the strange ones are the last to be answered.
    order = np.lexsort((-confidence, checks.alarms))
    curve = np.cumsum(wrong[order]) / np.arange(1, len(wrong) + 1)
    for coverage in _COVERAGES:
        own = {**context, "where": {"coverage": coverage}}
        answered = max(1, int(coverage * len(wrong)))
        findings.append(
            proportion(
                "monitor.selective_risk",
                int(wrong[order][:answered].sum()),
                answered,
                unit="answers",
                **own,
            )
        )
    best = np.cumsum(np.sort(wrong)) / np.arange(1, len(wrong) + 1)
    pairs = np.stack([-confidence + checks.alarms, wrong], axis=1)  # an alarm outweighs any confidence
    findings.append(
        estimate(
            "monitor.risk_coverage_area",
            float(curve.mean()),
            interval=bootstrap(pairs, _areas, rng, resamples=_RESAMPLES, method="percentile"),
            method="bootstrap, percentile",
            n=len(wrong),
            unit="examples",
            anchors={"best ranking": float(best.mean()), "random ranking": float(wrong.mean())},
            detail={"curve": _thin(curve), "score": "alarms of the monitor last, then by confidence"},
            **context,
        )
    )
    return findings


def _areas(samples: Array) -> Array:
    """``(resamples,)`` areas of ``(resamples, n, 2)`` pairs of rank and error."""
    order = np.argsort(samples[..., 0], axis=1, kind="stable")
    wrong = np.take_along_axis(samples[..., 1], order, axis=1)
    return np.asarray((np.cumsum(wrong, axis=1) / np.arange(1, wrong.shape[1] + 1)).mean(axis=1))


def _thin(curve: Array, points: int = 50) -> list[dict[str, float]]:
    places = np.unique(np.linspace(0, len(curve) - 1, points).round().astype(np.int64))
    return [{"coverage": float((at + 1) / len(curve)), "risk": float(curve[at])} for at in places]
