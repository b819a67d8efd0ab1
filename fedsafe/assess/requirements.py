"""Requirements: what a finding must meet, judged from the end of its interval that hurts."""

import difflib
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from fedsafe.assess.comparing import NOTHING_BEFORE
from fedsafe.errors import ConfigError
from fedsafe.findings import OVER_ALL_LOOKS, Finding, Interval, Scalar, find_metric, remake

Operator = Literal[">=", "<=", ">", "<"]
Severity = Literal["must", "should"]
Outcome = Literal["pass", "fail", "undecided", "unmeasured"]

_COMPARE: Mapping[Operator, Callable[[float, float], bool]] = MappingProxyType(
    {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
)
_OF_A_PRINCIPLE = ("principle", "statement")
_WORST_FIRST: tuple[Outcome, ...] = ("fail", "unmeasured", "undecided", "pass")


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """What every finding of a metric must meet.

    Attributes:
        metric: Registered name.
        where: Entries that a finding's `where` must hold; it may hold more.
        op: One of ">=", "<=", ">", "<".
        threshold: In the metric's unit.
        confidence: Two-sided confidence that a verdict needs, in (0, 1); in a run, that all its verdicts need together.
        severity: A failed "must" stops the release; a failed "should" is reported.
        principle: Id of the constitution's principle that it comes from; "" where it comes from none.
        statement: What the principle says.

    Raises:
        ConfigError: An entry is unknown, of the wrong type, or out of range.
    """

    metric: str
    where: Mapping[str, Scalar] = field(default_factory=dict)
    op: Operator
    threshold: float
    confidence: float = 0.95
    severity: Severity = "must"
    principle: str = ""
    statement: str = ""

    def __post_init__(self) -> None:
        find_metric(self.metric)
        about = f"the requirement on {self.metric}"
        for name, options in (("op", get_args(Operator)), ("severity", get_args(Severity))):
            if getattr(self, name) not in options:
                known = ", ".join(options)
                raise ConfigError(f"{about} has {name} {getattr(self, name)!r}; it is one of {known}")
        for name in ("threshold", "confidence"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
                raise ConfigError(f"{about} has {name} {value!r}; it is a finite number")
        for name in ("principle", "statement"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{about} has {name} {getattr(self, name)!r}; it is a text")
        self._check_range(about)
        if not 0 < self.confidence < 1:
            raise ConfigError(
                f"{about} has confidence {self.confidence!r}; it lies between 0 and 1, e.g. 0.95"
            )
        if not isinstance(self.where, Mapping) or not all(isinstance(v, Scalar) for v in self.where.values()):
            raise ConfigError(
                f"{about} has where {self.where!r}; it is a table of texts, numbers or booleans"
            )

    def _check_range(self, about: str) -> None:
        """Refuses a threshold that every value of the metric meets, or none."""
        metric, meets = find_metric(self.metric), _COMPARE[self.op]
        low = -math.inf if metric.low is None else metric.low
        high = math.inf if metric.high is None else metric.high
        if low <= self.threshold <= high:
            return
        outcome = "always" if meets(low if self.threshold < low else high, self.threshold) else "never"
        hint = f"; a share of {self.threshold:g} % is {self.threshold / 100:g}" if _percent(self) else ""
        raise ConfigError(
            f"{about} has threshold {self.threshold!r}, but its values lie between {low:g} and {high:g}: "
            f"{self.op} {self.threshold:g} would {outcome} pass{hint}"
        )

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> Self:
        """Reads a requirement from a configuration table.

        Args:
            table: The attributes by name; `metric`, `op` and `threshold` are needed.

        Raises:
            ConfigError: A key is unknown (the message names the nearest one) or missing, or a value is wrong.
        """
        known = [entry.name for entry in fields(cls)]
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise ConfigError(f"a requirement has no key {key!r}; {remedy}")
        missing = [key for key in ("metric", "op", "threshold") if key not in table]
        if missing:
            raise ConfigError(f"a requirement lacks {', '.join(missing)}: {dict(table)!r}")
        return cls(**table)

    def selects(self, finding: Finding) -> bool:
        """Whether the requirement is about this finding."""
        return finding.metric == self.metric and all(
            key in finding.where and finding.where[key] == value for key, value in self.where.items()
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a requirement.

    Attributes:
        requirement: What was required.
        verdict: "pass", "fail", "undecided" (the interval holds the threshold) or "unmeasured" (never a
            pass).
        value: The deciding finding's value, or None.
        interval: The interval that was judged, or None.
        reason: One sentence.
        confidence: That this verdict had to be reached at: higher than the requirement's own where it is one look of
            several.
        binding: Whether it counts: not where nothing was there to compare with, since then no model could ever be
            accepted.
    """

    requirement: Requirement
    verdict: Outcome
    value: float | None
    interval: Interval | None
    reason: str
    confidence: float
    binding: bool = True

    @property
    def blocks(self) -> bool:
        """Whether the model may not be released: a `must` that binds and did not pass."""
        return self.binding and self.requirement.severity == "must" and self.verdict != "pass"

    def to_json(self, round: int) -> dict[str, Any]:
        """One line of ``requirements.jsonl``."""
        required = {entry.name: getattr(self.requirement, entry.name) for entry in fields(self.requirement)}
        for name in _OF_A_PRINCIPLE:
            if not required[name]:
                del required[name]  # as in lines of requirements that come from no constitution
        return {
            "round": round,
            **required,
            "where": dict(self.requirement.where),
            "verdict": self.verdict,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "reason": self.reason,
            "judged_confidence": self.confidence,
            "blocks": self.blocks,
        }


def _percent(requirement: Requirement) -> bool:
    """Whether the threshold looks like a percentage where a share is meant."""
    return find_metric(requirement.metric).unit == "share" and 1 < abs(requirement.threshold) <= 100


def parse_requirements(tables: Iterable[Mapping[str, Any]]) -> tuple[Requirement, ...]:
    """Reads requirements, naming the position of one that is wrong.

    Raises:
        ConfigError: See `Requirement.parse`.
    """
    requirements = []
    for position, table in enumerate(tables, start=1):
        if not isinstance(table, Mapping):
            raise ConfigError(f"requirement {position} is a {type(table).__name__}, not a table")
        try:
            requirements.append(Requirement.parse(table))
        except ConfigError as error:
            raise ConfigError(f"requirement {position}: {error}") from error
    return tuple(requirements)


def judge(
    requirement: Requirement, findings: Sequence[Finding], *, confidence: float | None = None
) -> Verdict:
    """Judges a requirement by the worst of the findings that it selects.

    A finding passes if the end of its interval that hurts meets the threshold, fails if even the other end
    does not, and is undecided between. Without an interval its value decides. An unmeasured finding, or none
    at all, is "unmeasured". The order from worst is fail, unmeasured, undecided, pass.

    Args:
        requirement: What is required.
        findings: All findings of the round.
        confidence: That the verdict must be reached at; the requirement's own where None. It is higher where a run
            looks several times, see `fedsafe.findings.confidence_of_look`.
    """
    asked = requirement.confidence if confidence is None else confidence
    about = [finding for finding in findings if finding.metric == requirement.metric]
    first = next((finding.reason for finding in about if finding.detail.get(NOTHING_BEFORE)), None)
    if first is not None:
        return Verdict(
            requirement=requirement,
            verdict="unmeasured",
            value=None,
            interval=None,
            reason=f"does not bind yet: {first}",
            confidence=asked,
            binding=False,
        )
    selected = [finding for finding in about if requirement.selects(finding)]
    # What was not measured at all speaks of every slice that it does not name.
    selected = selected or [finding for finding in about if _covers(finding, requirement)]
    if not selected:
        others = [dict(finding.where) for finding in about]
        reason = f"no finding of {requirement.metric} matches {dict(requirement.where)}"
        reason += f"; there are {others[:3]}" if others else " and none of this metric was made"
        return Verdict(
            requirement=requirement,
            verdict="unmeasured",
            value=None,
            interval=None,
            reason=reason,
            confidence=asked,
        )
    verdicts = [
        _judge_one(
            requirement,
            finding,
            requirement.confidence if finding.detail.get(OVER_ALL_LOOKS) else asked,
        )
        for finding in selected
    ]
    return min(verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.verdict))


def _covers(finding: Finding, requirement: Requirement) -> bool:
    """Whether a finding without a value says why what is required has none."""
    named = ((key, value) for key, value in finding.where.items() if key in requirement.where)
    return finding.value is None and all(requirement.where[key] == value for key, value in named)


def _judge_one(requirement: Requirement, finding: Finding, asked: float) -> Verdict:
    about = ", ".join(f"{key} {value}" for key, value in finding.where.items())
    prefix = f"{about}: " if about else ""
    if finding.value is None:
        return Verdict(
            requirement=requirement,
            verdict="unmeasured",
            value=None,
            interval=None,
            reason=f"{prefix}{finding.status}: {finding.reason}",
            confidence=asked,
        )
    interval, note, weak = _interval(finding, asked)
    low, high = interval or (finding.value, finding.value)
    worse, better = (low, high) if requirement.op in (">=", ">") else (high, low)
    meets = _COMPARE[requirement.op]
    verdict: Outcome
    if weak:
        verdict, outcome = "undecided", "its interval is not confident enough"
    elif meets(worse, requirement.threshold):
        verdict, outcome = (
            "pass",
            f"{worse:.4g} {requirement.op} {requirement.threshold:g} holds at the worse end",
        )
    elif meets(better, requirement.threshold):
        verdict, outcome = "undecided", f"{requirement.threshold:g} lies between {low:.4g} and {high:.4g}"
    else:
        verdict, outcome = (
            "fail",
            f"{better:.4g} {requirement.op} {requirement.threshold:g} fails at the better end",
        )
    return Verdict(
        requirement=requirement,
        verdict=verdict,
        value=finding.value,
        interval=interval,
        reason=f"{prefix}{outcome}{note}",
        confidence=asked,
    )


def _interval(finding: Finding, asked: float) -> tuple[Interval | None, str, bool]:
    """The interval to judge, a note on how it was had, and whether it is less confident than required."""
    if finding.interval is None or finding.confidence is None:
        note = "" if finding.bound == "exact" else f" ({finding.bound} without an interval)"
        return None, note, False
    remade = remake(finding, asked)
    if remade is not None:
        return remade.interval, remade.note, False
    had = finding.confidence
    note = f" (measured at confidence {had:g}, {asked:.4g} was asked)"
    return finding.interval, note, had < asked
