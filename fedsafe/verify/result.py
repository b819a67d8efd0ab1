"""What a check found, and the report of all of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "FAIL", "not applicable"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one check found.

    Args:
        check: Its name.
        status: ``"pass"``, ``"FAIL"`` or ``"not applicable"``.
        claimed: What must hold, according to the claim.
        seen: What was seen; where the check does not apply, why.
        source: What explains a failure: a paper, or the report of a known fault. Empty where nothing failed.
    """

    check: str
    status: Status
    claimed: str
    seen: str
    source: str = ""

    def line(self) -> str:
        """One line for a terminal."""
        if self.status == "FAIL":
            return (
                f"FAIL            {self.check}: claimed {self.claimed}; seen {self.seen}. See {self.source}"
            )
        return f"{self.status:15s} {self.check}: {self.seen}"


def judged(check: str, *, holds: bool, claimed: str, seen: str, source: str) -> Outcome:
    """Passed or failed."""
    if holds:
        return Outcome(check=check, status="pass", claimed=claimed, seen=seen)
    return Outcome(check=check, status="FAIL", claimed=claimed, seen=seen, source=source)


def not_applicable(check: str, why: str) -> Outcome:
    """A check that says nothing about this claim."""
    return Outcome(check=check, status="not applicable", claimed="", seen=why)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that was checked of a target.

    Args:
        target: As it was named.
        levels: The claim of each level, as one line, and its outcomes.
    """

    target: str
    levels: tuple[tuple[str, tuple[Outcome, ...]], ...]

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Of all levels."""
        return tuple(outcome for _, outcomes in self.levels for outcome in outcomes)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """What failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "FAIL")

    def summary(self) -> str:
        """One line."""
        counts = [
            (sum(o.status == status for o in self.outcomes), word)
            for status, word in (("pass", "passed"), ("FAIL", "failed"), ("not applicable", "did not apply"))
        ]
        return f"{self.target}: " + ", ".join(f"{count} {word}" for count, word in counts)

    def lines(self) -> list[str]:
        """For a terminal."""
        said = []
        for claim, outcomes in self.levels:
            said += [claim, *(f"  {outcome.line()}" for outcome in outcomes)]
        return [*said, self.summary()]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "target": self.target,
            "passed": not self.failures,
            "failures": [outcome.check for outcome in self.failures],
            "levels": [
                {"claim": claim, "checks": [asdict(outcome) for outcome in outcomes]}
                for claim, outcomes in self.levels
            ],
        }

    def to_markdown(self) -> str:
        """A report to read: failures first."""
        parts = [f"# Conformance of `{self.target}`", "", self.summary() + ".", ""]
        for claim, outcomes in self.levels:
            parts += [f"## {claim}", ""]
            for outcome in outcomes:
                if outcome.status == "FAIL":
                    parts += [
                        f"### FAIL: {outcome.check}",
                        "",
                        f"- Claimed: {outcome.claimed}.",
                        f"- Seen: {outcome.seen}.",
                        f"- Explained in: {outcome.source}.",
                        "",
                    ]
            parts += _table([outcome for outcome in outcomes if outcome.status != "FAIL"])
        return "\n".join(parts)


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    if not outcomes:
        return []
    rows = [f"| {o.check} | {o.status} | {_cell(o.claimed)} | {_cell(o.seen)} |" for o in outcomes]
    return ["| check | status | claimed | seen |", "|---|---|---|---|", *rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
