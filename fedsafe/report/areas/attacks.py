"""Plots of what attackers learn about records."""

from collections.abc import Iterator, Sequence

from fedsafe.records import Json
from fedsafe.report import area_plots, formats
from fedsafe.report.areas.figure import Figure


def roc(findings: Sequence[Json]) -> Iterator[Figure]:
    """Membership attacks that carry their curve."""
    series: dict[str, list[tuple[float, float]]] = {}
    smallest = 1.0
    for finding in findings:
        curve = (finding.get("detail") or {}).get("curve")
        if not isinstance(curve, list) or not curve or "false_positive_rate" not in curve[0]:
            continue
        name = formats.where(finding.get("where")) or formats.title(str(finding["metric"]))
        series[name] = [(row["false_positive_rate"], row["true_positive_rate"]) for row in curve]
        smallest = min(smallest, max(1e-4, float(finding.get("resolution") or 1e-3)))
    if series:
        yield Figure(
            svg=area_plots.roc_plot(series, label="membership attacks", smallest=min(smallest, 0.1)),
            reading="Above the dashed line an attacker tells members from others better than by guessing; what counts "
            "is the left end, where few are accused wrongly.",
        )
