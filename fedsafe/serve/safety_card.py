"""The safety card of a guarded model, for whoever asks it: what it is, what it promised, what it met, how it guards.

Everything comes from the shareable record of the run and from the guard; nothing of ``private/`` is in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from fedsafe.errors import ConfigError, DataError
from fedsafe.findings import Finding
from fedsafe.records import Start, to_plain
from fedsafe.serve.limits import Limits
from fedsafe.serve.pipeline import Guard
from fedsafe.store import RunFolder

FORMAT: Final = "fedsafe.safety-card/1"
_CARD = "card.md"
_NOTE = (
    "what is not listed under measured was not measured, and an adaptive attacker may pass; domains with in_selection "
    "are of the families by which the detectors were chosen, so that their figures flatter; attacks follow gradients: "
    "they move no category, and detectors under without_gradient are not climbed down but only asked"
)
_JUDGED_BY = "the run's own requirements, and assessments in the run's folder; nothing that is kept elsewhere"
_DETAIL = ("attacked", "misread", "noticed", "without_gradient", "moved")
_FINDING = ("metric", "where", "status", "value", "interval", "confidence", "n", "n_unit", "bound")


def safety_card(guard: Guard, limits: Limits, measured: Sequence[Finding] = ()) -> dict[str, Any]:
    """The card as plain JSON values.

    Args:
        guard: Of the model.
        limits: Of the service.
        measured: What the monitor was measured to catch and to miss.
    """
    release, task, monitor = guard.release, guard.task, guard.monitor
    recorded = _recorded(guard)
    card: dict[str, Any] = to_plain(
        {
            "format": FORMAT,
            "model": {
                "run": release.name,
                "round": release.round,
                "sha256": release.digest,
                "task": task.name,
                "kind": task.kind,
                "classes": list(task.classes),
            },
            "served_though_failed": list(release.failed),
            "judged_by": _JUDGED_BY,
            **recorded,
            "monitor": {
                "false_alarm_rate": monitor.level,
                "detectors": {
                    kind: [type(each).__name__ for each in group] for kind, group in monitor.detectors.items()
                },
                "fitted": dict(monitor.facts),
                "measured": [_finding(finding.to_json()) for finding in measured],
                "note": _NOTE,
            },
            "policy": asdict(guard.policy),
            "limits": asdict(limits),
        }
    )
    return card


def measure(guard: Guard) -> list[Finding]:
    """What the monitor of an opened guard catches and misses, on the public records that had no part in fitting it.

    Nothing where there are too few of them, or where all were given to fit it.
    """
    try:
        return guard.findings(int(guard.monitor.facts.get("seed", 0)))
    except (ConfigError, DataError):
        return []


def _recorded(guard: Guard) -> dict[str, Any]:
    """What the run's record says of this model."""
    release = guard.release
    empty: dict[str, Any] = {"claims": [], "requirements": [], "findings": [], "card": ""}
    if release.folder is None:
        return empty
    folder = RunFolder.open(release.folder)
    lines = folder.record()
    claims = list(lines[0].claims) if lines and isinstance(lines[0], Start) else []
    found = [line for line in folder.read("findings.jsonl") if line.get("round") == release.round]
    required = [line for line in folder.read("requirements.jsonl") if line.get("round") == release.round]
    path = release.folder / _CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return {
        "claims": claims,
        "requirements": required,
        "findings": [_finding(line) for line in found],
        "card": text,
    }


def _finding(line: Mapping[str, Any]) -> dict[str, Any]:
    detail = {key: value for key, value in dict(line.get("detail") or {}).items() if key in _DETAIL}
    shown = {key: line[key] for key in _FINDING if line.get(key) is not None}
    return {**shown, "detail": detail} if detail else shown
