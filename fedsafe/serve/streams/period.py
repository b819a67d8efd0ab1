"""A report for a period, from the decision log alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsafe.errors import ConfigError, RecordError
from fedsafe.findings import wilson
from fedsafe.serve.decision_log import read_log


@dataclass(frozen=True, kw_only=True)
class PeriodReport:
    """What happened in a period. Exact counts of decisions about people: for the operator, not for publication.

    Attributes:
        since: Its begin, as text; "" where the log begins.
        until: Its end; "" where the log ends.
        decisions: In it.
        answered: Of them.
        reasons: Issue to abstentions that had it; one abstention may have several.
        notes: Issue to decisions that note it.
        labels: Answer to how often it was given.
        alerts: Kind to alarms of the tests over time.
        starts: Times that a process began to serve in the period.
        models: Digests of models that decided in it, their beginnings.
        stream: State of the stream at the end, where it was given; see `StreamMonitor.state`.
    """

    since: str
    until: str
    decisions: int
    answered: int
    reasons: Mapping[str, int]
    notes: Mapping[str, int]
    labels: Mapping[str, int]
    alerts: Mapping[str, int]
    starts: int
    models: tuple[str, ...]
    stream: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "models": list(self.models)}

    def to_markdown(self) -> str:
        """The report as text."""
        period = f"{self.since or 'the beginning of the log'} to {self.until or 'its end'}"
        share = "none"
        if self.decisions:
            low, high = wilson(self.answered, self.decisions)
            part = self.answered / self.decisions
            share = f"{self.answered} answered ({part:.1%}, 95 % interval {low:.1%} to {high:.1%})"
        lines = [
            "# Decisions of a guarded model",
            "",
            f"Period: {period}. Models: {', '.join(self.models) or 'none'}. Starts of the service: {self.starts}.",
            "",
            f"Decisions: {self.decisions}, {share}.",
        ]
        for title, table in (
            ("Abstentions by issue", self.reasons),
            ("Notes by issue", self.notes),
            ("Answers", self.labels),
            ("Alarms over time", self.alerts),
        ):
            lines += ["", f"## {title}", ""]
            lines += [f"- {name}: {count}" for name, count in table.items()] or ["None."]
        if self.stream:
            lines += [
                "",
                "## Tests over time, at the end",
                "",
                "| test | anytime-valid p-value |",
                "|---|---|",
            ]
            lines += [f"| {name} | {p:.3g} |" for name, p in self.stream.get("p_values", {}).items()]
            rates = self.stream.get("rates", [])
            if rates:
                lines += [
                    "",
                    "| group | expected rate | newest window | its confidence sequence |",
                    "|---|---|---|---|",
                ]
            for rate in rates:
                full = [window for window in rate["windows"] if window["n"]]
                if full:
                    last = full[-1]
                    lines.append(
                        f"| {rate['column']}={rate['group']} | {rate['expected']:.3f} | {last['rate']:.3f} "
                        f"({last['n']}) | {last['low']:.3f} to {last['high']:.3f} |"
                    )
        return "\n".join(lines) + "\n"


def period_report(
    log: Path | str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    stream: Mapping[str, Any] | None = None,
) -> PeriodReport:
    """Count what a decision log says of a period.

    The chain is not checked here: `verify_log` does.

    Args:
        log: The log.
        since: Decisions from then on; a time without a zone is UTC.
        until: Decisions before then.
        stream: State of the stream, to be shown with it.

    Raises:
        ConfigError: The period ends before it begins.
        RecordError: The log cannot be read, or a line has no time.
    """
    first, last = _zoned(since), _zoned(until)
    if first is not None and last is not None and last <= first:
        raise ConfigError(f"the period from {first.isoformat()} to {last.isoformat()} is empty")
    reasons: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    alerts: Counter[str] = Counter()
    models: dict[str, None] = {}
    decisions = answered = starts = 0
    for line in read_log(log):
        try:
            at = datetime.fromisoformat(str(line["time"]))
        except (KeyError, ValueError) as error:
            raise RecordError(f"line {line.get('sequence')} of {log} has no time: it was edited") from error
        if (first is not None and at < first) or (last is not None and at >= last):
            continue
        starts += line.get("kind") == "open"
        if line.get("kind") == "alert":
            alerts[str(line.get("alert"))] += 1
        if line.get("kind") != "decision":
            continue
        decisions += 1
        models[str(line.get("model"))] = None
        if line.get("answered"):
            answered += 1
            if line.get("label") is not None:
                labels[str(line["label"])] += 1
        reasons.update({str(reason).split(":")[0] for reason in line.get("reasons", ())})
        notes.update({str(note).split(":")[0] for note in line.get("notes", ())})
    return PeriodReport(
        since="" if first is None else first.isoformat(),
        until="" if last is None else last.isoformat(),
        decisions=decisions,
        answered=answered,
        reasons=dict(reasons.most_common()),
        notes=dict(notes.most_common()),
        labels=dict(labels.most_common()),
        alerts=dict(alerts.most_common()),
        starts=starts,
        models=tuple(models),
        stream=dict(stream or {}),
    )


def _zoned(at: datetime | None) -> datetime | None:
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)
