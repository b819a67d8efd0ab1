"""Worse, or only different: a model beside the last accepted one, on the same examples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Share, Subject, Tier
from fedsafe.errors import FedSafeError
from fedsafe.findings import (
    Evidence,
    Finding,
    Pairs,
    Scope,
    estimate,
    not_measured,
    paired_difference,
    t_interval,
)

Indices = NDArray[np.int64]

COMPARISON = "comparison"
"""Stands as the assessor of these findings."""

NOTHING_BEFORE = "nothing_before"
"""In the detail of a finding that waits for a model to be accepted: a requirement on it does not bind until then."""

_ACCURACY, _LOSS = "comparison.accuracy_change", "comparison.loss_change"
_CLEAN: Share = ("performance.accuracy", ())
_CHEAP = 1000  # examples


def share_of(finding: Finding) -> Share:
    """What a finding counts: its metric, and where."""
    return finding.metric, tuple(sorted(finding.where.items()))


def evidence_of(findings: Mapping[str, Sequence[Finding]]) -> dict[Share, Evidence]:
    """What was found example by example, for comparing a later model with this one.

    Args:
        findings: By assessor. What is not measured, or unreliable, is left out.
    """
    return {
        share_of(finding): finding.evidence
        for group in findings.values()
        for finding in group
        if finding.evidence is not None and finding.value is not None
    }


def compare(subject: Subject, findings: Mapping[str, Sequence[Finding]], tier: Tier) -> list[Finding]:
    """How a model's shares and its loss differ from those of the last accepted model.

    Every share that was counted example by example is compared with the same share of that model, in pairs: attacks and
    certificates use the same examples in every round. The losses are measured anew, and so is the accuracy of the last
    accepted model where it is not known any more: in the cheap tier on at most 1,000 examples, the same in every round.

    Args:
        subject: What was judged; its `previous` is the last accepted model.
        findings: Of the subject, by assessor.
        tier: "cheap" or "full".

    Returns:
        Nothing outside a run; in a run before a model is accepted, findings that say so.
    """
    if subject.previous is None:
        if not subject.round:
            return []
        reason = "no model of this run was accepted before this one: there is nothing to compare with"
        return [
            not_measured(
                metric,
                reason,
                status="not_applicable",
                detail={NOTHING_BEFORE: True},
                **subject.provenance,
            )
            for metric in (_ACCURACY, _LOSS)
        ]
    now, then = evidence_of(findings), dict(subject.earlier)
    changes = []
    if "performance" in findings:
        rows = subject.shared_rows(_CHEAP if tier == "cheap" else len(subject.evaluation))
        if _CLEAN not in then:
            then |= _clean(subject, rows)
        changes.append(_loss_change(subject, rows))
    pairs = [_change(subject, share, now[share], then[share]) for share in now if share in then]
    if not pairs:
        reason = "no share of examples was counted for both models"
        pairs = [not_measured(_ACCURACY, reason, status="not_applicable", **subject.provenance)]
    return [*pairs, *changes]


def _change(subject: Subject, share: Share, now: Evidence, then: Evidence) -> Finding:
    rows = now.shared(then)
    metric, where = share
    about: Scope = {"where": {"of": metric, **dict(where)}, **subject.provenance}
    pairs = Pairs.of(now.on(rows), then.on(rows))
    return paired_difference(_ACCURACY, pairs, anchors={"no_change": 0.0}, **about)


def _clean(subject: Subject, rows: Indices) -> dict[Share, Evidence]:
    """Where the last accepted model is right; nothing for a task without one class to predict."""
    if subject.previous is None or subject.task.kind not in ("binary", "multiclass"):
        return {}
    examples = subject.evaluation
    try:
        correct = replace(subject, model=subject.previous).predict(examples.x[rows]) == examples.y[rows]
    except FedSafeError:
        return {}
    return {_CLEAN: Evidence(rows=rows, holds=correct)}


def _loss_change(subject: Subject, rows: Indices) -> Finding:
    """Student's interval of the mean difference of the losses."""
    if subject.previous is None:
        raise ValueError("there is no model to compare with")
    examples, n = subject.evaluation.take(rows), len(rows)
    try:
        now = subject.per_record(examples)[0]
        then = replace(subject, model=subject.previous).per_record(examples)[0]
    except FedSafeError as error:
        return not_measured(_LOSS, str(error), status="failed", **subject.provenance)
    change = now - then
    return estimate(
        _LOSS,
        float(change.mean()),
        interval=t_interval(change) if n > 1 else None,
        method="t" if n > 1 else None,
        n=n,
        unit="examples",
        anchors={"no_change": 0.0},
        **subject.provenance,
    )
