"""A plot with its reading, and what makes one from findings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsafe.records import Json
from fedsafe.report.drawing import Ends


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot and how to read it.

    Attributes:
        svg: The plot.
        reading: One sentence.
    """

    svg: str
    reading: str


def ends_of(finding: Mapping[str, Any]) -> Ends | None:
    """Ends of a finding's interval, or None."""
    ends = finding.get("interval")
    return (ends[0], ends[1]) if isinstance(ends, Sequence) and len(ends) == 2 else None


def measured(findings: Sequence[Json], metric: str) -> Iterator[tuple[Json, dict[str, Any], float]]:
    """Measured findings of a metric, each with its slice and its value."""
    for finding in findings:
        value = finding.get("value")
        if finding["metric"] == metric and isinstance(value, int | float):
            yield finding, dict(finding.get("where") or {}), float(value)
