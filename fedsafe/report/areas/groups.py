"""Plots of groups: rates, and who pays for what the model gained."""

from collections.abc import Iterator, Sequence

from fedsafe.records import Json
from fedsafe.report import area_plots, formats
from fedsafe.report.areas.figure import Figure, ends_of, measured
from fedsafe.report.drawing import Ends

_RATES = (
    "fairness.accuracy",
    "fairness.selection_rate",
    "fairness.true_positive_rate",
    "fairness.false_positive_rate",
)
_MOST_GROUPS = 24


def groups(findings: Sequence[Json]) -> Iterator[Figure]:
    """For each rate, the groups of every single attribute."""
    for metric in _RATES:
        rows: list[tuple[str, float, Ends | None]] = []
        for finding, place, value in measured(findings, metric):
            attribute = str(place.get("attribute", ""))
            if "group" in place and " & " not in attribute:
                rows.append((f"{attribute}: {place['group']}", value, ends_of(finding)))
        rows = rows[:_MOST_GROUPS]
        if len(rows) < 2:
            continue
        low, high = min(rows, key=lambda row: row[1]), max(rows, key=lambda row: row[1])
        title = formats.title(metric).lower()
        yield Figure(
            svg=area_plots.intervals_plot(
                [name for name, _, _ in rows],
                [value for _, value, _ in rows],
                intervals=[ends for _, _, ends in rows],
                label=f"{title} by group, %",
            ),
            reading=f"The {title} is lowest for {low[0]} ({formats.share(low[1])}) and highest for {high[0]} "
            f"({formats.share(high[1])}).",
        )


def costs(findings: Sequence[Json]) -> Iterator[Figure]:
    """Who pays: each group's accuracy beside the reference model's."""
    rows: list[tuple[str, float, Ends | None]] = []
    name = ""
    for finding, place, value in measured(findings, "fairness.accuracy_cost"):
        detail = finding.get("detail") or {}
        name = str(detail.get("reference_name") or name)
        if "group" in place:
            rows.append((f"{place.get('attribute')}: {place['group']}", value, ends_of(finding)))
    if rows:
        most = max(rows, key=lambda row: row[1])
        yield Figure(
            svg=area_plots.intervals_plot(
                [label for label, _, _ in rows],
                [value for _, value, _ in rows],
                intervals=[ends for _, _, ends in rows],
                label="accuracy lost against the reference, points",
                line=0.0,
            ),
            reading=f"Right of the dashed line a group loses accuracy against {name or 'the reference'}: {most[0]} "
            f"loses most, {100 * most[1]:.1f} points.",
        )
