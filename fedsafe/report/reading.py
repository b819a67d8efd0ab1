"""The shareable part of a run, read into one value; ``private/`` is never opened."""

import os
from dataclasses import dataclass

from fedsafe.errors import RecordError
from fedsafe.records import End, Json, Round, Start, headline_metric
from fedsafe.store import RunFolder

# Of `fedsafe byzantine RUN/config.toml --out RUN/byzantine`.
_UNDER_ATTACK = "byzantine/byzantine.html"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a report may say.

    Attributes:
        name: Name of the run's folder.
        config: Text of ``config.toml``.
        start: The start line, or None where the run was killed before it.
        rounds: Complete rounds, in order.
        end: The end line, or None while the run is unfinished.
        findings: Lines of ``findings.jsonl`` that belong to complete rounds.
        requirements: Lines of ``requirements.jsonl`` that belong to complete rounds.
        under_attack: Where the page of a grid under attack is, inside the folder; None where there is none.
    """

    name: str
    config: str
    start: Start | None
    rounds: tuple[Round, ...]
    end: End | None
    findings: tuple[Json, ...]
    requirements: tuple[Json, ...]
    under_attack: str | None = None

    @property
    def last_round(self) -> int:
        """Number of the last complete round; 0 where there is none."""
        return self.rounds[-1].round if self.rounds else 0

    @property
    def status(self) -> str:
        """One of "completed", "stopped", "unfinished"."""
        return "unfinished" if self.end is None else self.end.status

    @property
    def kind(self) -> str:
        """Kind of the task; "" where the record does not say."""
        return str(self.start.task.get("kind", "")) if self.start else ""

    @property
    def accepted(self) -> int | None:
        """Round of the accepted model so far; None where none is."""
        return self.rounds[-1].accepted if self.rounds else None

    @property
    def headline(self) -> tuple[str, float | None]:
        """The metric that tells most, and its value for the accepted model, or the newest where none is accepted."""
        name = headline_metric(self.kind)
        if self.end is not None and self.end.accuracy is not None:
            return name, self.end.accuracy
        shown = next((line for line in self.rounds if line.round == self.accepted), None)
        shown = shown or (self.rounds[-1] if self.rounds else None)
        return name, None if shown is None else shown.metrics.get(name)

    def claim(self, unit: str) -> Json | None:
        """The claim of a unit ("record" or "client"), or None where none is recorded."""
        claims = self.start.claims if self.start else ()
        return next((dict(claim) for claim in claims if claim.get("unit") == unit), None)


def read_run(path: str | os.PathLike[str]) -> Reading:
    """Reads a run folder, or a copy of one without its private part.

    Args:
        path: The run folder.

    Raises:
        RecordError: It is not a run folder, a line is malformed, or another version wrote it.
    """
    folder = RunFolder.open(path)
    start: Start | None = None
    end: End | None = None
    rounds: dict[int, Round] = {}
    for line in folder.record():
        if isinstance(line, Start):
            start = line
        elif isinstance(line, Round):
            rounds[line.round] = line
        else:
            end = line
    if start is None and (rounds or end):
        raise RecordError(f"{folder.path / 'record.jsonl'} has rounds but no start line; the file was edited")
    last = max(rounds, default=0)
    return Reading(
        name=folder.path.resolve().name,
        config=folder.config,
        start=start,
        rounds=tuple(rounds[number] for number in sorted(rounds)),
        end=end,
        findings=tuple(line for line in folder.read("findings.jsonl") if _round_of(line) <= last),
        requirements=tuple(line for line in folder.read("requirements.jsonl") if _round_of(line) <= last),
        under_attack=_UNDER_ATTACK if (folder.path / _UNDER_ATTACK).is_file() else None,
    )


def _round_of(line: Json) -> int:
    number = line.get("round")
    return number if isinstance(number, int) else 0
