"""Accuracy under flips of categories, as findings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.robustness.categorical import broken_rules, flip_columns, mutable_groups
from fedsafe.data import Examples, Schema
from fedsafe.findings import Context, Evidence, Finding, Scope, not_measured, proportion

_METRIC = "robustness.flipped_accuracy"


def flip_findings(
    subject: Subject, examples: Examples, rows: NDArray[np.int64], columns: Sequence[int]
) -> list[Finding]:
    """Accuracy where an attacker changes so many mutable categorical columns; nothing for what is no table.

    Args:
        subject: What is judged.
        examples: What is attacked.
        rows: ``(n,)`` where they are in the evaluation set.
        columns: Numbers of columns.
    """
    schema = subject.task.schema
    if not isinstance(schema, Schema) or not columns:
        return []
    groups = mutable_groups(subject)
    within = [most for most in sorted(columns) if most <= len(groups)]
    if not within:
        reason = f"the schema has {len(groups)} categorical columns that a person can change"
        lacking: Scope = {
            "where": {"attack": "categorical", "norm": "columns", "radius": min(columns)},
            **subject.provenance,
        }
        return [not_measured(_METRIC, reason, status="not_applicable", **lacking)]
    clean = subject.predict(examples.x) == examples.y
    found = flip_columns(subject, examples, groups, within[-1])
    stands, findings = clean.copy(), []
    for changed, points in enumerate(found, start=1):
        stands &= subject.predict(points) == examples.y
        counts = broken_rules(examples.x, points, groups, changed)
        if changed not in within:
            continue
        common: Context = {
            "where": {"attack": "categorical", "norm": "columns", "radius": changed},
            # All single changes were tried; of several, only the best beside the ones before.
            "bound": "exact" if changed == 1 else "upper",
            "anchors": {"clean": float(clean.mean())},
            "diagnostics": {"violations": counts},
            "detail": {
                "perturbed": [_column(schema, group) for group in groups],
                "counted": "the worst of the clean record and all with fewer changed columns",
            },
            "evidence": Evidence(rows=rows, holds=stands.copy()),
            **subject.provenance,
        }
        if any(counts.values()):
            named = "; ".join(f"{count} records {rule}" for rule, count in counts.items() if count)
            findings.append(not_measured(_METRIC, named, status="unreliable", **common))
            continue
        findings.append(
            proportion(_METRIC, int(stands.sum()), len(stands), method="clopper-pearson", **common)
        )
    return findings


def _column(schema: Schema, group: Sequence[int]) -> str:
    return schema.feature_names[group[0]].partition("=")[0]
