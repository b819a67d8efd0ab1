"""Whether a person of another group would be decided alike: flips of a protected column, all else equal."""

from typing import Any

from fedsafe.assess.base import Subject
from fedsafe.assess.principles.counterfactuals import flips, levels
from fedsafe.data import Categorical, Schema
from fedsafe.errors import ConfigError
from fedsafe.findings import Finding, not_measured, proportion

METRIC = "fairness.counterfactual_flip_rate"
_TOLERANCE = 0.01  # of the target's range
_NOTE = (
    "columns that depend on this one stay as they are: a rate of 0 shows that the model does not read the column, not "
    "that it cannot guess it from others"
)


def protected_columns(schema: object, named: tuple[str, ...]) -> tuple[str, ...]:
    """The columns to change: those that are named, else the categorical group columns that are features."""
    if not isinstance(schema, Schema):
        return ()
    own = tuple(c.name for c in schema.columns if isinstance(c, Categorical) and c.group)
    return named or own


def flip_passes(schema: object, columns: tuple[str, ...]) -> int:
    """How many times each record passes through the model."""
    if not isinstance(schema, Schema):
        return 0
    total = 0
    for column in columns:
        try:
            total += 1 + len(levels(schema, column))
        except ConfigError:
            continue
    return total


def flip_rates(subject: Subject, named: tuple[str, ...], size: int) -> list[Finding]:
    """The share of the examples whose decision another value of a protected column changes, for each column.

    Args:
        subject: What is judged.
        named: Columns; the categorical group columns that are features where empty.
        size: Examples, at most.
    """
    schema = subject.task.schema
    columns = protected_columns(schema, named)
    if not isinstance(schema, Schema) or not columns:
        reason = (
            "the inputs are no table" if not isinstance(schema, Schema) else "no group column is a feature"
        )
        return [not_measured(METRIC, reason, status="not_applicable", **subject.provenance)]
    examples = subject.evaluation.take(subject.shared_rows(size))
    findings = []
    for column in columns:
        where = {"column": column}
        try:
            flipped, table = flips(subject, schema, column, examples.x, tolerance=_TOLERANCE)
        except ConfigError as error:
            findings.append(
                not_measured(METRIC, str(error), status="not_applicable", where=where, **subject.provenance)
            )
            continue
        detail: dict[str, Any] = {"table": table, "note": _NOTE}
        if subject.task.kind == "regression":
            detail["tolerance"] = (
                f"a prediction that moves by more than {_TOLERANCE:.0%} of the target's range"
            )
        findings.append(
            proportion(
                METRIC,
                int(flipped.sum()),
                len(examples),
                anchors={"blind_model": 0.0},
                detail=detail,
                where=where,
                **subject.provenance,
            )
        )
    return findings
