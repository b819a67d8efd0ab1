"""Tests of single principles: what another value of one column does to the model's answers."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.assess.base import Subject
from fedsafe.assess.principle import Principle
from fedsafe.assess.principles.counterfactuals import below, flips, levels, with_level
from fedsafe.data import Examples, Schema
from fedsafe.errors import ConfigError, DataError
from fedsafe.findings import Finding, Scope, estimate, not_measured, proportion

Array = NDArray[np.float64]

METRICS_OF: Mapping[str, str] = MappingProxyType(
    {
        "invariance": "principles.invariance_violations",
        "direction": "principles.direction_violations",
        "case": "principles.case_violations",
    }
)
"""The metric of each kind of principle."""


def check_principle(subject: Subject, schema: Schema, principle: Principle, examples: Examples) -> Finding:
    """Tests one principle of invariance or direction.

    Args:
        subject: What is judged.
        schema: Of the task.
        principle: Not a case.
        examples: What to change.
    """
    scope: Scope = {
        "where": {"principle": principle.id, "column": principle.column},
        **subject.provenance,
    }
    test = _invariance if principle.kind == "invariance" else _direction
    try:
        return test(subject, schema, principle, examples, scope)
    except ConfigError as error:
        reason = f"principle {principle.id!r}: {error}"
        return not_measured(METRICS_OF[principle.kind], reason, status="failed", **scope)


def _invariance(
    subject: Subject, schema: Schema, principle: Principle, examples: Examples, scope: Scope
) -> Finding:
    """Share of the examples whose decision any other value of the column changes."""
    flipped, table = flips(
        subject,
        schema,
        principle.column,
        examples.x,
        order=principle.order,
        tolerance=principle.tolerance,
    )
    return proportion(
        METRICS_OF["invariance"],
        int(flipped.sum()),
        len(examples),
        anchors={"required": 0.0},
        detail={"text": principle.text, "by_value": table},
        **scope,
    )


def _direction(
    subject: Subject, schema: Schema, principle: Principle, examples: Examples, scope: Scope
) -> Finding:
    """Share of the examples with a lower score at any higher value of the column than at their own."""
    tried = levels(schema, principle.column, principle.order)
    higher = below(schema, principle.column, tried, examples.x)
    tested = higher.any(axis=1)
    if not tested.any():
        reason = "no example has a value below another one in the order"
        return not_measured(
            METRICS_OF["direction"], reason, status="insufficient", n=0, unit="examples", **scope
        )
    x, higher = examples.x[tested], higher[tested]
    own, allowed = _score(subject, principle, x), principle.tolerance
    if subject.task.kind == "regression":
        allowed = 2 * allowed  # a share of the range, and encoded targets run over two units
    fallen, lost, table = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=bool), []
    for position, level in enumerate(tried):
        there = higher[:, position]
        if not there.any():
            continue
        score = _score(subject, principle, with_level(schema, principle.column, level, x[there]))
        lower = score < own[there] - allowed
        fallen[there] |= lower
        lost[there] |= (own[there] > 0) & (score <= 0)
        table.append({"to": level.name, "examples": int(there.sum()), "lowered": float(lower.mean())})
    detail: dict[str, Any] = {"text": principle.text, "by_value": table}
    if subject.task.kind != "regression":
        detail["share_that_loses_the_outcome"] = float(lost.mean())
    return proportion(
        METRICS_OF["direction"],
        int(fallen.sum()),
        len(x),
        anchors={"required": 0.0},
        detail=detail,
        **scope,
    )


def _score(subject: Subject, principle: Principle, x: NDArray[np.float32]) -> Array:
    """``(n,)`` log-odds of the outcome, or the number that is predicted."""
    logits, classes, outcome = subject.logits(x), subject.task.classes, principle.outcome
    if outcome and outcome not in classes:
        raise ConfigError(f"the outcome {outcome!r} is none of the classes {', '.join(classes) or '(none)'}")
    if subject.binary:
        return -logits[:, 0] if outcome == classes[0] else logits[:, 0]
    if subject.task.kind == "regression":
        return logits[:, 0]
    if not outcome:
        raise ConfigError(f"with several classes it needs an outcome, one of {', '.join(classes)}")
    own = classes.index(outcome)
    return np.asarray(logits[:, own] - special.logsumexp(np.delete(logits, own, axis=1), axis=1))


def check_cases(subject: Subject, schema: Schema, cases: Sequence[Principle]) -> Finding:
    """Share of the given records that do not get the answer that is expected; each is a promise, and none a sample."""
    import pandas as pd

    metric, scope = METRICS_OF["case"], subject.provenance
    table = []
    for case in cases:
        try:
            record = pd.DataFrame([dict(case.record)])
            x = schema.encode(record)
            schema.check_values(record, "the record")
            answer, right = _answer(subject, case, x)
        except (ConfigError, DataError) as error:
            return not_measured(metric, f"case {case.id!r}: {error}", status="failed", **scope)
        table.append(
            {"case": case.id, "text": case.text, "expected": case.expected, "answer": answer, "kept": right}
        )
    broken = sum(not row["kept"] for row in table)
    return estimate(
        metric,
        broken / len(table),
        bound="exact",
        n=len(table),
        unit="cases",
        anchors={"required": 0.0},
        detail={"cases": table},
        **scope,
    )


def _answer(subject: Subject, case: Principle, x: NDArray[np.float32]) -> tuple[str, bool]:
    target, classes = subject.task.target, subject.task.classes
    if target is not None:
        value = float(subject.values(x)[0])
        try:
            wanted = float(case.expected)
        except ValueError:
            raise ConfigError(f"{case.expected!r} is no number") from None
        return f"{value:.6g}", abs(value - wanted) <= case.tolerance * 2 * target.scale
    if case.expected not in classes:
        raise ConfigError(f"{case.expected!r} is none of the classes {', '.join(classes)}")
    answer = classes[int(subject.predict(x)[0])]
    return answer, answer == case.expected
