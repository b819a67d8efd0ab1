"""What an assessor found: one number, or the reason why there is none, with what is needed to defend it.

*Unmeasured is never zero and never a pass*: a finding has a value exactly when its status is "measured".
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from fedsafe.errors import ConfigError, RecordError
from fedsafe.findings.evidence import Evidence
from fedsafe.findings.intervals import Interval
from fedsafe.findings.registry import find_metric

Status = Literal["measured", "insufficient", "not_applicable", "unreliable", "failed"]
Bound = Literal["exact", "upper", "lower", "estimate"]
Scalar = str | int | float | bool

# A mean of float64 probabilities may leave its range by rounding, not by more.
_SLACK = 1e-9


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One measurement, or the reason why there is none.

    Attributes:
        metric: A name in the registry of metrics.
        where: What was measured, for example ``{"attribute": "sex", "group": "Female"}``; requirements select
            by it.
        status: "measured"; "insufficient" (too little data), "not_applicable" (no meaning here), "unreliable"
            (the instrument failed its own check) or "failed" (an error).
        value: The number in the metric's unit; None unless measured.
        interval: The two ends of the confidence interval, or None.
        interval_method: How the interval was made; None without one.
        confidence: Two-sided confidence of the interval, in (0, 1); None without one.
        n: Sample size, or None where nothing was sampled.
        n_unit: Unit of n, for example "examples"; None without n.
        resolution: The smallest value or step that this n can resolve, or None.
        bound: Whether the value is "exact", an "estimate", or an "upper" or "lower" bound on what is meant:
            an attack gives an upper bound on robustness, an accountant one on epsilon.
        anchors: Reference values of the same metric: chance, a random explanation, the null gap.
        diagnostics: Checks of the instrument on itself.
        data: The data that was touched, for example "public: UCI Adult test split".
        released: What it let out of private data; None for public data.
        detail: Whatever a report may show: tables, pictures, the reason of a missing value.
        evidence: For which examples it holds, so that findings about the same ones can be held to each other, and
            models of two rounds compared; it is never part of the record, which says nothing of single examples.

    Raises:
        ConfigError: The fields contradict each other, or the metric is not registered.
    """

    metric: str
    where: Mapping[str, Scalar] = field(default_factory=dict)
    status: Status
    value: float | None = None
    interval: Interval | None = None
    interval_method: str | None = None
    confidence: float | None = None
    n: int | None = None
    n_unit: str | None = None
    resolution: float | None = None
    bound: Bound = "estimate"
    anchors: Mapping[str, float | None] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    released: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        metric = find_metric(self.metric)
        for name in ("where", "anchors", "diagnostics", "detail", "value", "n", "resolution", "confidence"):
            object.__setattr__(self, name, _plain(getattr(self, name)))
        if self.interval is not None:
            low, high = (_plain(end) for end in self.interval)
            object.__setattr__(self, "interval", (low, high))
        self._check(self.status in get_args(Status), f"status is one of {get_args(Status)}")
        self._check(self.bound in get_args(Bound), f"bound is one of {get_args(Bound)}")
        self._check(
            all(isinstance(value, Scalar) for value in self.where.values()),
            "every entry of where is a text, a finite number or a boolean",
        )
        measured = self.status == "measured"
        self._check(isinstance(self.value, int | float | None), "the value is a number")
        self._check((self.value is not None) == measured, "there is a finite value exactly when measured")
        self._check(measured or bool(self.detail.get("reason")), "a missing value has a detail 'reason'")
        self._check((self.n is None) == (self.n_unit is None), "n and its unit come together")
        self._check(self.n is None or self.n >= 0, "n is not negative")
        parts = {self.interval is None, self.interval_method is None, self.confidence is None}
        self._check(len(parts) == 1, "an interval comes with its method and its confidence")
        self._check(measured or self.interval is None, "only a measured finding has an interval")
        if self.value is not None:
            low = -math.inf if metric.low is None else metric.low - _SLACK
            high = math.inf if metric.high is None else metric.high + _SLACK
            self._check(
                low <= self.value <= high, f"the range of {self.metric} is {metric.low} to {metric.high}"
            )
        if self.interval is not None:
            self._check(None not in self.interval, "the ends of an interval are finite")
            self._check(self.interval[0] <= self.interval[1], "an interval's lower end comes first")
            self._check(0 < (self.confidence or 0) < 1, "a confidence is between 0 and 1")

    def _check(self, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigError(
                f"a finding of {self.metric} breaks the rule that {rule}: status {self.status!r}, "
                f"value {self.value!r}, interval {self.interval!r}, n {self.n!r}; mend the assessor"
            )

    @property
    def reason(self) -> str | None:
        """Why there is no value; None for a measured finding that gives none."""
        reason = self.detail.get("reason")
        return None if reason is None else str(reason)

    def to_json(self) -> dict[str, Any]:
        """The finding as plain JSON values; numbers that are not finite were turned into None."""
        body = {name: getattr(self, name) for name in _WRITTEN}
        body["interval"] = None if self.interval is None else list(self.interval)
        return body

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Self:
        """Reads what `to_json` wrote; keys that others added to the line are ignored.

        Args:
            line: One parsed line of ``findings.jsonl``.

        Raises:
            RecordError: A key is missing.
            ConfigError: The values contradict each other, or the metric is not registered.
        """
        missing = [name for name in _WRITTEN if name not in line]
        if missing:
            raise RecordError(f"a finding lacks {', '.join(missing)}; the file was edited or cut")
        values = {name: line[name] for name in _WRITTEN}
        values["interval"] = None if values["interval"] is None else tuple(values["interval"])
        return cls(**values)


_WRITTEN = tuple(entry.name for entry in fields(Finding) if entry.name != "evidence")


def _plain(value: Any) -> Any:
    """Plain JSON values: numpy becomes Python, a number that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if abs(value) <= sys.float_info.max else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise ConfigError(
        f"a finding cannot hold a {type(value).__name__}: {value!r}; give it plain numbers and text"
    )
