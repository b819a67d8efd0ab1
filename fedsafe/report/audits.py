"""What a run's audit found: each bracket as text, and its alarms."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR

from fedsafe.records import Json
from fedsafe.report import formats
from fedsafe.report.cells import latest_findings
from fedsafe.report.reading import Reading

AUDIT = "audit"
"""The assessor of an audit's findings."""

_AUDITED, _ALARM = "privacy.audited_epsilon", "privacy.audit_alarm"


@dataclass(frozen=True, kw_only=True)
class AuditRow:
    """The newest look of one kind of canaries.

    Attributes:
        unit: "record" or "client".
        canaries: How many, and of which kind.
        lower: What they prove, rounded down.
        upper: What is accounted for at the same delta, rounded up; "none" where nothing is.
        delta: Of both.
        confidence: Of the lower bound, over all looks of all kinds.
        adversary: Who guesses.
        round: After which round.
        crossed: Whether the lower bound exceeds the upper one.
    """

    unit: str
    canaries: str
    lower: str
    upper: str
    delta: str
    confidence: str
    adversary: str
    round: int
    crossed: bool


def audit_rows(reading: Reading) -> list[AuditRow]:
    """A row for each kind of canaries; none without an audit."""
    latest = [line for line in latest_findings(reading) if line.get("assessor") == AUDIT]
    return [_row(line) for line in latest if line["metric"] == _AUDITED and line.get("value") is not None]


def audit_alarms(reading: Reading) -> list[str]:
    """What every alarm of every round says, in their order."""
    return list(dict.fromkeys(_alarms(reading)))


def _alarms(reading: Reading) -> Iterator[str]:
    for line in reading.findings:
        if line["metric"] == _ALARM and line.get("value"):
            yield str((line.get("detail") or {}).get("alarm") or "the bounds cross")


def _row(line: Json) -> AuditRow:
    place, detail = line.get("where") or {}, line.get("detail") or {}
    accounted = (line.get("anchors") or {}).get("accounted")
    confidence = detail.get("confidence")
    return AuditRow(
        unit=str(place.get("unit", "")),
        canaries=f"{line.get('n') or 0:,} {place.get('canaries', '')}",
        lower=formats.epsilon(line["value"], ROUND_FLOOR),
        upper=formats.epsilon(accounted),
        delta=formats.delta(detail.get("delta")),
        confidence="" if confidence is None else f"{100 * confidence:g} %",
        adversary=str(detail.get("adversary") or "an adversary that the record does not name"),
        round=int(line.get("round") or 0),
        crossed=bool(detail.get("alarm")),
    )
