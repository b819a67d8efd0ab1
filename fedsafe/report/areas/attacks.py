"""What attackers learn about records: a row for each attack, and its plot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedsafe.findings.attackers import attackers
from fedsafe.records import Json
from fedsafe.report import area_plots, formats
from fedsafe.report.areas.figure import Figure


@dataclass(frozen=True, kw_only=True)
class AttackerRow:
    """One attack as text.

    Attributes:
        attack: Its name, and on what.
        unit: What it is after.
        adversary: Whose attack it is.
        sees: What that one must see.
        costs: What that one must spend or know.
        value: What it reached, with its metric.
        ends: The interval, or the bracket of an audit.
        chance: What guessing gives.
        statement: What follows.
    """

    attack: str
    unit: str
    adversary: str
    sees: str
    costs: str
    value: str
    ends: str
    chance: str
    statement: str


def attacker_rows(findings: Sequence[Json]) -> Iterator[AttackerRow]:
    """A row for each attack and each audit."""
    for found in attackers(findings):
        known = formats.metric(found.metric)
        unit = known.unit if known else ""
        value = "not measured" if found.value is None else formats.quantity(found.value, unit)
        yield AttackerRow(
            attack=formats.status(found.attack),
            unit=found.unit,
            adversary=found.adversary,
            sees=found.sees,
            costs=found.costs,
            value=f"{formats.title(found.metric)}: {value}",
            ends=formats.interval(found.interval, unit),
            chance="" if found.chance is None else formats.quantity(found.chance, unit),
            statement=found.statement,
        )


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
