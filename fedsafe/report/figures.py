"""What each plot of a report shows, taken from the record and the findings."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsafe.records import Json
from fedsafe.report import formats, plots
from fedsafe.report.reading import Reading


def learning(reading: Reading) -> list[str]:
    """Headline metric and loss against rounds, as two plots; none where no round is complete."""
    if not reading.rounds:
        return []
    numbers = [line.round for line in reading.rounds]
    metric, _ = reading.headline
    share = metric == "accuracy"
    intervals: dict[int, tuple[float, float]] = {}
    anchors: dict[str, float] = {}
    for finding in reading.findings:
        if finding["metric"] == f"performance.{metric}" and not finding.get("where"):
            ends = finding.get("interval")
            if ends and None not in ends:
                intervals[int(finding["round"])] = (ends[0], ends[1])
            named = (finding.get("anchors") or {}).items()
            anchors.update({formats.status(key): entry for key, entry in named if entry is not None})
    return [
        plots.learning_plot(
            numbers,
            [line.metrics.get(metric) for line in reading.rounds],
            label="accuracy, %" if share else formats.title(f"performance.{metric}"),
            percent=share,
            intervals=intervals,
            anchors=anchors,
        ),
        plots.learning_plot(
            numbers,
            [line.metrics.get("loss") for line in reading.rounds],
            label=f"loss{', encoded units' if reading.kind == 'regression' else ''}",
        ),
    ]


def spend(reading: Reading, unit: str) -> dict[str, Any]:
    """Planned epsilon of a unit against rounds: unit, plot ("" without a guarantee), last and target."""
    values = [line.spend.get(unit) for line in reading.rounds]
    plan = reading.start.plan if reading.start else {}
    level = plan.get(unit)
    target = level.get("epsilon") if isinstance(level, Mapping) else None
    if not any(value is not None for value in values):
        return {"unit": unit, "plot": "", "last": "none" if values else formats.ABSENT, "target": target}
    plot = plots.spend_plot(
        [line.round for line in reading.rounds],
        values,
        label=f"epsilon for one {unit}",
        planned_rounds=plan.get("rounds"),
        target=target,
    )
    return {"unit": unit, "plot": plot, "last": formats.epsilon(values[-1]), "target": target}


def shards(findings: Sequence[Json]) -> dict[str, Any] | None:
    """Accuracy over clients' shards of the evaluation set, from the first finding with their quantiles."""
    for finding in findings:
        detail = finding.get("detail") or {}
        quantiles = detail.get("quantiles")
        if (
            isinstance(quantiles, list)
            and len(quantiles) == 7
            and None not in quantiles
            and "shards" in detail
        ):
            low, high = formats.share(quantiles[2]), formats.share(quantiles[4])
            return {
                "plot": plots.quantiles_plot(quantiles, label="accuracy over clients, %"),
                "count": finding.get("n"),
                "half": f"{low} and {high}",
                "extremes": f"{formats.share(quantiles[0])} and {formats.share(quantiles[6])}",
                "too_small": detail.get("too_small") or 0,
                "data": finding.get("data") or "",
                "released": finding.get("released"),
            }
    return None
