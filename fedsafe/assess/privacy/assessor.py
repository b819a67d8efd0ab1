"""The accounted privacy budget, as findings that requirements can judge."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.findings import Context, Finding, estimate, not_measured

_EPSILON = "privacy.epsilon"
_GROUP = "privacy.group_epsilon"


class Privacy:
    """One finding for each claim of the run; a claim without a finite epsilon is no small number but none."""

    name: ClassVar[str] = "privacy"

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Reads the claims; touches neither data nor model."""
        return Cost(description=f"reads {len(subject.claims)} claims")

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Reads the claims; see `Assessor`."""
        if not subject.claims:
            reason = "the subject carries no privacy claim: nothing is promised"
            return [not_measured(_EPSILON, reason, status="not_applicable", data="the run's claims")]
        findings = []
        for claim in subject.claims:
            findings.append(_accounted(_EPSILON, claim, claim.get("epsilon")))
            if claim.get("group_epsilon") is not None:
                findings.append(_accounted(_GROUP, claim, claim["group_epsilon"]))
        return findings


def _accounted(metric: str, claim: Mapping[str, Any], epsilon: float | None) -> Finding:
    context: Context = {
        "where": {key: str(claim[key]) for key in ("unit", "adversary") if key in claim},
        "bound": "upper",
        "data": "the run's claims",
        "detail": {"claim": dict(claim)},
    }
    if epsilon is None or not math.isfinite(epsilon):
        reason = (
            f"the claim holds no finite epsilon for one {claim.get('unit', 'unit')}: there is no guarantee"
        )
        return not_measured(metric, reason, status="not_applicable", **context)
    return estimate(metric, float(epsilon), **context)
