"""Membership inference by a threshold on the loss: does the model tell who was trained on?"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.clients import SIMULATORS_VIEW
from fedsafe.assess.performance.ranking import auc
from fedsafe.data import Examples
from fedsafe.findings import (
    Finding,
    Scope,
    clopper_pearson,
    difference,
    estimate,
    not_measured,
    proportion,
)

Array = NDArray[np.float64]

_AUC, _RATE, _ADVANTAGE = "membership.auc", "membership.true_positive_rate", "membership.advantage"
_DETAIL = {
    "attack": "a loss below a threshold is a member's",
    "needs": "members and non-members of one distribution: records of other clients are not of it",
}
_FEWEST = 30  # members, and non-members
_LARGEST = 700.0  # an epsilon whose exponential is still finite; its bound is 1 long before
_PER_RATE = 10  # expected false positives that a rate needs to be measured


@dataclass(frozen=True, kw_only=True)
class Membership:
    """The attack of Yeom et al. (2018): a record with a small loss is called a member.

    Members are training records, non-members evaluation records. Every figure is a lower bound on what an attacker
    could do; the accounted epsilon bounds it from above, and stands beside it as an anchor (Kairouz, Oh and
    Viswanath, 2015).

    Attributes:
        rates: False positive rates at which the true positive rate is told.
        cheap: Members, and non-members, of the cheap tier, at most.
        full: Of the full tier, at most.
    """

    name: ClassVar[str] = "membership"
    rates: tuple[float, ...] = (0.01, 0.001)
    cheap: int = 20_000
    full: int = 100_000

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """Forward passes over members and non-members."""
        if subject.training is None:
            return Cost(description="nothing: the training records are not known")
        size = self.cheap if tier == "cheap" else self.full
        n = min(size, len(subject.evaluation))
        members = min(size, len(subject.training.held))
        repeats = 1 if subject.federation is None else 2
        return Cost(
            description=f"losses of {members} training and {n} other records",
            examples=n,
            forward=repeats * (members + n),
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        context: Scope = {
            "data": f"training records, and {subject.evaluation_name}",
            "released": SIMULATORS_VIEW,
        }
        places = [(_AUC, None), *((_RATE, rate) for rate in self.rates), (_ADVANTAGE, None)]
        if subject.training is None:
            reason = "the training records are not known here: only a simulation has them"
            return [
                not_measured(m, reason, status="not_applicable", **_at(context, rate)) for m, rate in places
            ]
        size = self.cheap if tier == "cheap" else self.full
        held = subject.training.held
        chosen = np.sort(rng.choice(held, size=min(size, len(held)), replace=False))
        inside, outside = subject.training.examples.take(chosen), subject.sample(size, rng)
        if min(len(inside), len(outside)) < _FEWEST:
            reason = f"{len(inside)} members and {len(outside)} others, {_FEWEST} of each are needed"
            return [
                not_measured(
                    m, reason, status="insufficient", n=len(outside), unit="non-members", **_at(context, rate)
                )
                for m, rate in places
            ]
        members, others = (-subject.per_record(part)[0] for part in (inside, outside))
        before = self._before(subject, inside, outside)
        value, interval, method = auc(members, others)
        guarantee = _guarantee(subject)
        findings = [
            estimate(
                _AUC,
                value,
                interval=interval,
                method=method,
                n=len(members) + len(others),
                unit="records",
                bound="lower",
                anchors={"chance": 0.5, **before},
                detail=_DETAIL,
                **context,
            )
        ]
        findings += [_at_rate(members, others, rate, guarantee, context) for rate in self.rates]
        return [*findings, _advantage(members, others, guarantee, context)]

    def _before(self, subject: Subject, inside: Examples, outside: Examples) -> dict[str, float]:
        """The same attack on the model before training, which knows no member: 0.5 if the records are alike."""
        if subject.federation is None:
            return {}
        initial = subject.with_parameters(subject.federation.initial)
        members, others = (-initial.per_record(part)[0] for part in (inside, outside))
        return {"before_training": auc(members, others)[0]}


def _at(context: Scope, rate: float | None) -> Scope:
    return context if rate is None else {**context, "where": {"false_positive_rate": rate}}


def _at_rate(
    members: Array, others: Array, rate: float, guarantee: tuple[float, float] | None, context: Scope
) -> Finding:
    """The share of members above the threshold that the given share of the non-members passes."""
    place, n = _at(context, rate), len(others)
    if n * rate < _PER_RATE:
        reason = (
            f"{n} non-members resolve a false positive rate of {_PER_RATE / n:.2g}, not of {rate:g}: "
            f"{math.ceil(_PER_RATE / rate)} are needed"
        )
        return not_measured(_RATE, reason, status="insufficient", n=n, unit="non-members", **place)
    allowed = math.floor(rate * n + 1e-9)
    # Strictly above the first non-member that may not pass: ties never let more of them through.
    threshold = np.partition(others, n - allowed - 1)[n - allowed - 1]
    passed = int(np.sum(others > threshold))
    anchors: dict[str, float | None] = {"chance": rate}
    if guarantee is not None:
        epsilon, delta = guarantee
        both = (math.exp(epsilon) * rate + delta, 1 - math.exp(-epsilon) * (1 - delta - rate))
        anchors["accounted"] = min(1.0, *both)
    return proportion(
        _RATE,
        int(np.sum(members > threshold)),
        len(members),
        unit="members",
        method="clopper-pearson",
        bound="lower",
        anchors=anchors,
        detail=_DETAIL,
        diagnostics={
            "false_positive_rate": passed / n,
            # The threshold comes from these non-members: of all, more may pass.
            "false_positive_rate_at_most": clopper_pearson(passed, n)[1],
            "smallest_rate": _PER_RATE / n,
        },
        **place,
    )


def _advantage(
    members: Array, others: Array, guarantee: tuple[float, float] | None, context: Scope
) -> Finding:
    """The rule that needs no calibration: a loss at most the members' mean (Yeom et al., 2018)."""
    threshold = members.mean()
    anchors: dict[str, float | None] = {"chance": 0.0}
    if guarantee is not None:
        epsilon, delta = guarantee
        anchors["accounted"] = math.tanh(epsilon / 2) + 2 * delta / (1 + math.exp(epsilon))
    return difference(
        _ADVANTAGE,
        int(np.sum(members >= threshold)),
        len(members),
        int(np.sum(others >= threshold)),
        len(others),
        unit="records",
        bound="lower",
        anchors=anchors,
        detail=_DETAIL,
        **context,
    )


def _guarantee(subject: Subject) -> tuple[float, float] | None:
    """Epsilon and delta of the record-level claim, where it holds one."""
    for claim in subject.claims:
        epsilon, delta = claim.get("epsilon"), claim.get("delta")
        if claim.get("unit") == "record" and epsilon is not None and math.isfinite(epsilon):
            return min(float(epsilon), _LARGEST), float(delta or 0.0)
    return None
