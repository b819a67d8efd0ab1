"""One page of what attackers learn: every privacy attack and every audit, each with its adversary and its bounds.

It reads findings as they are recorded, so that a page needs neither the run nor torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_AUDITED = "privacy.audited_epsilon"
_ATTACKS = ("membership.auc", "client_membership.auc", "inversion.gain_over_mean", "inversion.label_accuracy")
_UNITS = {"membership": "record", "client_membership": "client", "inversion": "record"}


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """A row.

    Attributes:
        attack: Its name, and on which updates, for example "analytic (noise: none, records: 1, steps: 1)".
        unit: What it is after, "record" or "client".
        adversary: "server", "client" or "outsider"; of an audit, who guesses, in words.
        sees: What that one must see.
        costs: What that one must spend or know.
        metric: Of the figure.
        value: The figure; None where it was not measured.
        interval: Its ends, or None; of an audit, the bracket [audited, accounted].
        chance: What guessing would give; None where nothing is known.
        statement: What follows, in a sentence that calls no low figure private.
    """

    attack: str
    unit: str
    adversary: str
    sees: str
    costs: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    chance: float | None
    statement: str


def attackers(findings: Sequence[Mapping[str, Any]]) -> list[Attacker]:
    """A row for each attack and each audit, in the order of the findings.

    Args:
        findings: Recorded ones, as `Finding.to_json` gives them; others than attacks are left out, and so are details
            of another shape.
    """
    rows = []
    for finding in findings:
        detail = finding.get("detail") or {}
        if finding.get("metric") in (*_ATTACKS, _AUDITED) and detail.get("adversary"):
            rows.append(_row(finding, detail))
    return rows


def _row(finding: Mapping[str, Any], detail: Mapping[str, Any]) -> Attacker:
    where, anchors = dict(finding.get("where") or {}), dict(finding.get("anchors") or {})
    metric, ends = str(finding["metric"]), finding.get("interval")
    audited = metric == _AUDITED
    attack = "canaries" if audited else str(where.pop("attack", detail.get("attack", "")))
    further = ", ".join(f"{key}: {value}" for key, value in where.items())
    chance = 0.0 if metric == "inversion.gain_over_mean" else anchors.get("chance")
    return Attacker(
        attack=f"{attack} ({further})" if further else attack,
        unit=str(where.get("unit", "record")) if audited else _UNITS[metric.partition(".")[0]],
        adversary=str(detail["adversary"]),
        sees=str(detail.get("sees", "")),
        costs=str(detail.get("costs", "")),
        metric=metric,
        value=finding.get("value"),
        interval=None if ends is None else (float(ends[0]), float(ends[1])),
        chance=chance,
        statement=str(detail.get("statement") or detail.get("reason") or ""),
    )
