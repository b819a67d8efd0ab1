"""A run as the page shows it: its record read as it grows, its state, and its row in the list."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from fedsafe.errors import RecordError
from fedsafe.records import End, Json, RecordLine, Round, Start
from fedsafe.report import facts, formats, tables
from fedsafe.report.reading import Reading
from fedsafe.ui.checked import checked_finding, checked_line
from fedsafe.ui.files import Beneath
from fedsafe.ui.growing import GrowingLines
from fedsafe.ui.states import State, state_of

UNITS = ("record", "client")
UNDER_ATTACK = "byzantine/byzantine.html"
Shown = TypeVar("Shown")


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one unit is promised.

    Attributes:
        unit: "record" or "client".
        epsilon: Of the claim, rounded up; "none" where nothing is promised.
        about: At which delta and against whom, or why nothing is.
        short: The same in a few words.
    """

    unit: str
    epsilon: str
    about: str
    short: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run in the list.

    Attributes:
        key: Where it is, relative to the folder.
        name: Of its folder.
        task: Name of the task; "" where the record does not say.
        model: Of the model.
        when: When it started, to the minute.
        order: The same as text that sorts.
        done: Complete rounds.
        planned: Rounds of the plan; None where the record does not say.
        metric: What the value is of.
        value: The headline metric of the accepted model, or of the newest.
        interval: Its interval, or "".
        note: How the interval was made, and on which records.
        spent: For each unit.
        state: How it is.
        problem: What is wrong with the folder; "" where nothing is.
    """

    key: str
    name: str
    task: str = ""
    model: str = ""
    when: str = ""
    order: str = ""
    done: int = 0
    planned: int | None = None
    metric: str = ""
    value: str = formats.ABSENT
    interval: str = ""
    note: str = ""
    spent: tuple[Spent, ...] = ()
    state: State
    problem: str = ""


class RunFiles:
    """The shareable files of a run, read as they grow.

    Args:
        key: Where the run is, relative to the folder.
        name: Of its folder.
    """

    def __init__(self, key: str, name: str) -> None:
        self.key, self.name = key, name
        self._record: GrowingLines[RecordLine] = GrowingLines(self._at("record.jsonl"), checked_line)
        self._findings: GrowingLines[Json] = GrowingLines(self._at("findings.jsonl"), checked_finding)
        self._requirements: GrowingLines[Json] = GrowingLines(self._at("requirements.jsonl"), checked_finding)
        self._row: Row | None = None
        self._missing = ""

    def _at(self, name: str) -> str:
        return f"{self.key}/{name}" if self.key else name

    def row(self, files: Beneath, locked: bool | None) -> Row:
        """The run's row in the list, made again only if something changed.

        Args:
            files: The folder.
            locked: Whether a process holds the run; None where that is not known.
        """
        changed = self._record.refresh(files)
        configured = files.stamp(self._at("config.toml")) is not None
        start, rounds, end = self._parts()
        state = self._state(start, rounds, end, locked)
        missing = "" if configured else "config.toml is missing"
        if changed or self._row is None or (self._row.state, missing) != (state, self._missing):
            self._missing = missing
            self._row = self._make_row(state, [missing] if missing else [], start, rounds, end)
        return self._row

    def _make_row(
        self, state: State, problems: list[str], start: Start | None, rounds: list[Round], end: End | None
    ) -> Row:
        if self._record.problem is not None:
            problems.append(f"record.jsonl: {self._record.problem}")
        stamp = self._record.stamp
        written = None if stamp is None else datetime.fromtimestamp(stamp.modified / 1e9, UTC).isoformat()
        row = Row(
            key=self.key,
            name=self.name,
            when=f"record of {formats.moment(written)}" if written else "",
            order=written or "",
            state=state,
            problem="; ".join(problems),
        )
        if start is None:
            return row
        try:
            return self._full_row(row, self._reading("", start, rounds, end))
        except Exception as error:  # whatever a record of somebody else makes of the code that shows it
            said = f"record.jsonl cannot be shown ({type(error).__name__}: {error})"
            return Row(key=self.key, name=self.name, order=row.order, state=state, problem=said)

    def _full_row(self, row: Row, reading: Reading) -> Row:
        start, shown = reading.start, tables.headline(reading)
        assert start is not None  # noqa: S101 - for the type checker
        return Row(
            key=row.key,
            name=row.name,
            task=str(start.task.get("name", "")),
            model=facts.words(start.model.get("name")),
            when=formats.moment(start.created),
            order=start.created,
            done=len(reading.rounds),
            planned=planned_rounds(start),
            metric=shown.name,
            value=shown.value,
            interval=shown.interval,
            note=shown.note,
            spent=tuple(_spent(reading, unit) for unit in UNITS),
            state=row.state,
            problem=row.problem,
        )

    def _parts(self) -> tuple[Start | None, list[Round], End | None]:
        start: Start | None = None
        end: End | None = None
        rounds: dict[int, Round] = {}
        for line in self._record.lines:
            if isinstance(line, Start):
                start = line
            elif isinstance(line, Round):
                rounds[line.round] = line
            else:
                end = line
        return start, [rounds[number] for number in sorted(rounds)], end

    def _state(self, start: Start | None, rounds: list[Round], end: End | None, locked: bool | None) -> State:
        stamp = self._record.stamp
        return state_of(
            start=start is not None,
            end=end,
            problem=self._record.problem,
            locked=locked,
            quiet=math.inf if stamp is None else time.time() - stamp.modified / 1e9,
            torn=self._record.torn,
        )

    def _reading(
        self,
        config: str,
        start: Start | None,
        rounds: list[Round],
        end: End | None,
        findings: tuple[Json, ...] = (),
        requirements: tuple[Json, ...] = (),
    ) -> Reading:
        return Reading(
            name=self.name,
            config=config,
            start=start,
            rounds=tuple(rounds),
            end=end,
            findings=findings,
            requirements=requirements,
        )

    def whole(self, files: Beneath, locked: bool | None) -> "WholeRun":
        """Everything that the run's own page shows.

        Args:
            files: The folder.
            locked: Whether a process holds the run; None where that is not known.
        """
        row = self.row(files, locked)
        problems = [row.problem] if row.problem else []
        for lines, name in ((self._findings, "findings.jsonl"), (self._requirements, "requirements.jsonl")):
            lines.refresh(files)
            if lines.problem is not None:
                problems.append(f"{name}: {lines.problem}")
        config = ""
        if files.stamp(self._at("config.toml")) is not None:
            try:
                config = files.text(self._at("config.toml"))
            except (OSError, RecordError) as error:
                problems.append(f"config.toml: {error}")
        start, rounds, end = self._parts()
        last = rounds[-1].round if rounds else 0
        findings, requirements = (
            tuple(line for line in lines.lines if line["round"] <= last)
            for lines in (self._findings, self._requirements)
        )
        reading = self._reading(config, start, rounds, end, findings, requirements)
        stamps = (self._record.stamp, self._findings.stamp, self._requirements.stamp, config, row.state)
        return WholeRun(row=row, reading=reading, problems=tuple(problems), version=repr(stamps))


@dataclass(frozen=True, kw_only=True)
class WholeRun:
    """A run with its findings.

    Attributes:
        row: Its row in the list.
        reading: What a report would say.
        problems: What could not be read.
        version: Text that is another one whenever something changed.
    """

    row: Row
    reading: Reading
    problems: tuple[str, ...]
    version: str


def planned_rounds(start: Start | None) -> int | None:
    """Rounds of the plan; None where the record does not say."""
    planned = start.plan.get("rounds") if start is not None else None
    return planned if isinstance(planned, int) and not isinstance(planned, bool) else None


def guarded(what: str, problems: list[str], make: Callable[[], Shown]) -> Shown | None:
    """A part of a page; None where the files make it impossible, which is then said.

    Args:
        what: Name of the part.
        problems: Where it is said.
        make: Makes it.
    """
    try:
        return make()
    except Exception as error:  # as above: the rest of the page still shows
        problems.append(f"{what} cannot be shown ({type(error).__name__}: {error})")
        return None


def _spent(reading: Reading, unit: str) -> Spent:
    claim: dict[str, Any] = facts.claim(reading, unit)
    if claim["epsilon"] == "none":
        return Spent(unit=unit, epsilon="none", about=str(claim["statement"]), short="no guarantee")
    adversary = str(claim["adversary"] or "an adversary that the record does not name")
    who = adversary.partition(" who ")[0].rstrip(",")
    simulated = "simulated, no guarantee: " if reading.start and reading.start.reproducible else ""
    start = f"{simulated}at delta {claim['delta']}, against"
    return Spent(unit=unit, epsilon=claim["epsilon"], about=f"{start} {adversary}", short=f"{start} {who}")
