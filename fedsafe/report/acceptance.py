"""Which model of a run is the one to release, and how often models were judged, in words."""

from dataclasses import dataclass

from fedsafe.report import formats
from fedsafe.report.audits import audit_alarms
from fedsafe.report.reading import Reading


@dataclass(frozen=True, kw_only=True)
class Release:
    """The accepted model.

    Attributes:
        value: "round 40", or "none".
        sentence: Why, without a full stop.
        status: A key of `formats.MARKS`: "pass", "undecided" where a later model was refused, "fail" where none is
            accepted, or where the audit raised an alarm.
    """

    value: str
    sentence: str
    status: str


def release(reading: Reading) -> Release | None:
    """The model to release; None before the first assessment, and where an older version wrote the record."""
    assessed = sorted({int(line["round"]) for line in reading.requirements if "blocks" in line})
    refused = sorted({int(line["round"]) for line in reading.requirements if line.get("blocks")})
    accepted = reading.accepted
    if audit_alarms(reading):
        # Whatever the requirements say: what was run is not what the claims are about.
        met = (
            ""
            if accepted is None
            else f", though the model of round {accepted} is accepted by the requirements"
        )
        return Release(value="none", sentence=f"the audit raised an alarm{met}", status="fail")
    if accepted is None:
        if not refused:
            return None
        return Release(
            value="none",
            sentence=f"no model met every must: {_rounds(refused)} did not",
            status="fail",
        )
    later = [number for number in refused if number > accepted]
    if later:
        return Release(
            value=f"round {accepted}",
            sentence=f"the last model that met every must; {_rounds(later)} did not",
            status="undecided",
        )
    how = "it met every must" if assessed else "no requirement was set"
    return Release(value=f"round {accepted}", sentence=how, status="pass")


def widened(reading: Reading) -> str:
    """How the period of the assessments grew, in one sentence without a full stop; "" where it stayed."""
    said = (reading.start.assessment if reading.start else {}) or {}
    every, steps = said.get("every"), []
    for line in reading.rounds:
        if line.assess_every is not None and every is not None and line.assess_every != every:
            every = line.assess_every
            steps.append(f"to {every} after round {line.round}")
    if not steps:
        return ""
    share = formats.share(said.get("max_share"))
    return (
        f"The rounds between two assessments grew from {said['every']} {', '.join(steps)}: assessments took more than "
        f"{share} of the run's time"
    )


def held_to(reading: Reading) -> str:
    """The constitution that the requirements are partly of, in one sentence without a full stop; "" without one."""
    said = ((reading.start.assessment if reading.start else {}) or {}).get("constitution")
    if not said:
        return ""
    title = f"“{said['title']}”, " if said["title"] else ""
    version = f"{title}version {said['version']}, sha256 {said['sha256']}"
    return f"Those with a name are principles of the constitution {version}"


def _rounds(numbers: list[int]) -> str:
    listed = ", ".join(str(number) for number in numbers)
    return f"round {listed}" if len(numbers) == 1 else f"rounds {listed}"
