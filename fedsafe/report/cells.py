"""Findings as cells of text, each with its interval drawn, grouped into a scorecard."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR
from typing import Any

from fedsafe.records import Json
from fedsafe.report import formats
from fedsafe.report.plots import whisker
from fedsafe.report.reading import Reading


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measured number, ready to be shown.

    Attributes:
        title: What was measured, in words.
        name: Dotted name of the metric.
        about: One sentence on the metric, or "".
        where: The slice, in words, or "".
        status: A status of a finding or a verdict of a requirement.
        value: The number in its unit, or a dash.
        interval: The interval in the same unit, or "".
        method: How the interval was made, or "".
        n: Sample size, or "".
        unit: What n counts, or "".
        bound: What kind of bound the value is, or "".
        reason: Why there is no value, or "".
        note: The groups that differ most, and the reference values.
        data: The data that was touched.
        released: What was released from private data, or "".
        round: Round of the measurement.
        whisker: The interval drawn, as SVG.
    """

    title: str
    name: str
    about: str
    where: str
    status: str
    value: str
    interval: str
    method: str
    n: str
    unit: str
    bound: str
    reason: str
    note: str
    data: str
    released: str
    round: int
    whisker: str

    @property
    def mark(self) -> str:
        """The sign of the status."""
        return formats.MARKS.get(self.status, "?")

    @property
    def words(self) -> str:
        """The status in words."""
        return formats.status(self.status)


@dataclass(frozen=True, kw_only=True)
class MetricBlock:
    """The cells of one metric.

    Attributes:
        title: The metric in words.
        name: Its dotted name.
        about: One sentence on it, or "".
        note: What all cells note alike, or "".
        method: How all intervals were made, or "" where that differs.
        cells: One for each slice.
    """

    title: str
    name: str
    about: str
    note: str
    method: str
    cells: tuple[Cell, ...]


def latest_findings(reading: Reading) -> list[Json]:
    """The latest finding for each assessor, metric and slice, in order of first appearance."""
    latest: dict[tuple[str, str, str], Json] = {}
    for finding in reading.findings:
        key = (str(finding.get("assessor")), finding["metric"], formats.where(finding.get("where")))
        if key not in latest or finding.get("round", 0) >= latest[key].get("round", 0):
            latest[key] = finding
    return list(latest.values())


def scorecard(findings: Iterable[Json]) -> dict[str, list[MetricBlock]]:
    """Findings by assessor and metric; rates of single groups have a table of their own and are left out."""
    card: dict[str, dict[str, list[Cell]]] = {}
    for finding in findings:
        if not is_of_group(finding):
            metrics = card.setdefault(str(finding.get("assessor") or "other"), {})
            metrics.setdefault(str(finding["metric"]), []).append(finding_cell(finding))
    return {assessor: [_block(cells) for cells in metrics.values()] for assessor, metrics in card.items()}


def _block(cells: Sequence[Cell]) -> MetricBlock:
    first = cells[0]
    methods = {cell.method for cell in cells if cell.method}
    alike = all(cell.note == first.note for cell in cells)
    return MetricBlock(
        title=first.title,
        name=first.name,
        about=first.about,
        note=first.note if alike else "",
        method=methods.pop() if len(methods) == 1 else "",
        cells=tuple(cells),
    )


def finding_cell(finding: Mapping[str, Any]) -> Cell:
    """One finding, ready to be shown."""
    name = str(finding["metric"])
    known = formats.metric(name)
    unit = known.unit if known else ""
    value, ends = finding.get("value"), finding.get("interval")
    anchors = {key: entry for key, entry in (finding.get("anchors") or {}).items() if entry is not None}
    detail = finding.get("detail") or {}
    # A number in the target's own unit means nothing without that unit.
    own = f" {detail['unit']}" if unit == formats.TARGETS_UNIT and detail.get("unit") else ""
    notes = [f"{formats.status(key)}: {formats.quantity(entry, unit)}{own}" for key, entry in anchors.items()]
    extremes = detail.get("extremes")
    if isinstance(extremes, Mapping):
        notes.insert(0, f"from {extremes.get('low')} to {extremes.get('high')}")
    bounded = known is not None and known.low == 0.0 and known.high == 1.0
    low, high = (0.0, 1.0) if bounded else _axis(value, ends, anchors.values())
    shows = bounded or value is None or bool(ends) or bool(anchors)
    confidence = finding.get("confidence")
    made = formats.method(str(finding.get("interval_method") or ""))
    method = f"{100 * confidence:g} % {made}".strip() if ends and confidence else ""
    count = finding.get("n")
    return Cell(
        title=formats.title(name),
        name=name,
        about=known.description if known else "",
        where=formats.where(finding.get("where")),
        status=str(finding["status"]),
        value=_value(finding, unit) + (own if value is not None else ""),
        interval=formats.interval(ends, unit) + (own if ends else ""),
        method=method,
        n="" if count is None else f"{count:,}",
        unit="" if count is None else str(finding.get("n_unit") or ""),
        bound={"upper": "upper bound", "lower": "lower bound", "exact": "exact"}.get(
            str(finding.get("bound")), ""
        ),
        reason="" if finding["status"] == "measured" else str(detail.get("reason") or ""),
        note="; ".join(notes),
        data=str(finding.get("data") or ""),
        released=str(finding.get("released") or ""),
        round=int(finding.get("round") or 0),
        whisker=whisker(value, ends, low=low, high=high, anchors=list(anchors.values())) if shows else "",
    )


def _value(finding: Mapping[str, Any], unit: str) -> str:
    """The value as text; a lower bound of an epsilon is rounded down, so that it stays one."""
    value = finding.get("value")
    if unit == "epsilon" and value is not None and finding.get("bound") == "lower":
        return formats.epsilon(value, ROUND_FLOOR)
    return formats.quantity(value, unit)


def _axis(
    value: float | None, ends: Sequence[float | None] | None, anchors: Iterable[float]
) -> tuple[float, float]:
    """An axis that holds everything drawn, from 0 where nothing is negative."""
    drawn = [entry for entry in (value, *(ends or ()), *anchors) if entry is not None]
    return min([0.0, *drawn]), 1.15 * max([*drawn, 0.0]) or 1.0


def is_of_group(finding: Json) -> bool:
    """Whether a finding is the rate of a single group."""
    return "group" in (finding.get("where") or {})
