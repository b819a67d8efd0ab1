"""What an audit found as findings, for requirements to judge and for the report."""

import math
from typing import Any

from fedsafe.audit.report import AuditReport
from fedsafe.findings import OVER_ALL_LOOKS, Finding, Scope, estimate, not_measured

AUDITED, ACCOUNTED, ALARM = "privacy.audited_epsilon", "privacy.accounted_epsilon", "privacy.audit_alarm"
METHOD = "bracket: one-run audit below, accountant above"


def findings_of(report: AuditReport) -> list[Finding]:
    """The bracket of the newest look, its two ends as lower and upper bound, and whether they cross.

    If the accounting is right, the truth lies between the ends of all brackets of a run together with the report's
    confidence: that of this look alone is higher. Where the ends cross there is no bracket.

    Args:
        report: With one look at least.
    """
    look, alarm = report.looks[-1], report.alarm()
    about: Scope = {
        "where": {"unit": report.unit, "canaries": report.kind},
        "data": f"a second training beside the run, with {report.canaries} {report.kind} canaries; never released",
        "released": "the simulator's view of a second training on private records: charged to no budget, not released",
    }
    plain: dict[str, Any] = report.to_json()
    detail = {
        "delta": report.delta,
        "claimed_delta": report.claimed_delta,
        "adversary": report.adversary,
        "sees": "every upload of each client" if report.unit == "record" else "every broadcast model",
        "costs": f"a second training with {report.canaries} canaries, and knowledge of all that the others sent",
        "statement": _statement(report),
        "confidence": report.confidence,
        "under_further_assumptions": {
            name: {"figure": plain["looks"][-1][name], "meaning": plain["kinds_of_figures"][name]}
            for name in ("gaussian", "membership", "cosines")
            if plain["looks"][-1][name] is not None
        },
        "alarm": alarm,
        OVER_ALL_LOOKS: True,
    }
    counted: dict[str, Any] = {"n": report.canaries, "unit": "canaries"}
    if look.accounted is None:
        reason = (
            f"no epsilon is accounted for one {report.unit}: there is nothing that a lower bound could cross"
        )
        lower = estimate(AUDITED, look.bound.epsilon, bound="lower", detail=detail, **counted, **about)
        missing = [
            not_measured(name, reason, status="not_applicable", **about) for name in (ACCOUNTED, ALARM)
        ]
        return [lower, *missing]
    bracket = None if look.crossed else (look.bound.epsilon, look.accounted)
    return [
        estimate(
            AUDITED,
            look.bound.epsilon,
            interval=bracket,
            method=None if bracket is None else METHOD,
            confidence=None if bracket is None else report.confidence,
            bound="lower",
            anchors={"accounted": look.accounted},
            diagnostics={
                "guesses": look.bound.guesses,
                "right": look.bound.right,
                "ways_of_guessing": look.bound.tried,
                "included": report.included,
                "confidence_of_this_look": look.bound.confidence,
            },
            detail=detail,
            **counted,
            **about,
        ),
        estimate(
            ACCOUNTED,
            look.accounted,
            bound="upper",
            where=about["where"],
            data="the run's plan",
            detail={"delta": report.delta},
        ),
        estimate(ALARM, float(look.crossed), bound="exact", detail={"alarm": alarm}, **about),
    ]


def _statement(report: AuditReport) -> str:
    """What the canaries prove, rounded down, and what is accounted for, rounded up."""
    look, unit = report.looks[-1], report.unit
    lower = math.floor(100 * max(0.0, look.bound.epsilon)) / 100
    upper = "nothing" if look.accounted is None else f"at most {math.ceil(100 * look.accounted) / 100:g}"
    return (
        f"Canaries prove an epsilon above {lower:g} for one {unit}; {upper} is accounted for. A better audit may prove "
        "more: a low figure is no guarantee."
    )
