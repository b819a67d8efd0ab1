"""Which of a run's findings a comparison draws against the budget: one figure of each kind that people ask for."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsafe.findings import find_metric

# Groups that belong to two attributes at once are too many, and too small, for a curve each.
_BOTH = " & "


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One figure of one run.

    Args:
        key: Tells measures apart.
        title: In words.
        metric: Whose unit and direction it has.
        value: None where it was not measured.
        interval: Over evaluation records, of this run alone; None where there is none.
        note: How it is chosen, in words.
    """

    key: str
    title: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    note: str = ""


def measured(findings: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """The figures of a run, in the order in which a page shows them.

    Args:
        findings: As ``comparison_cell.plain_finding`` gives them, or lines of ``findings.jsonl``.
    """
    return [figure for figure in _figures(findings) if figure is not None]


def groups(findings: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """Accuracy of each group of one attribute."""
    return [
        _figure(
            f"group {finding['where']['attribute']} {finding['where']['group']}",
            str(finding["where"]["group"]),
            finding,
            note=str(finding["where"]["attribute"]),
        )
        for finding in _group_accuracies(findings)
    ]


def audits(findings: Sequence[Mapping[str, Any]]) -> list[Measured]:
    """What canaries prove, and what is accounted for beside it: two figures for each unit and kind of canaries.

    They have no interval of their own: each is one end of a bracket.
    """
    found = []
    for end, metric in (("audited", "privacy.audited_epsilon"), ("accounted", "privacy.accounted_epsilon")):
        for finding in _named(findings, metric):
            unit, kind = finding["where"].get("unit"), finding["where"].get("canaries")
            about = f"per {unit}, {kind} canaries"
            title = f"{end.capitalize()} epsilon {about}"
            found.append(_figure(f"{end} {unit} {kind}", title, {**finding, "interval": None}, note=about))
    return found


def _figures(findings: Sequence[Mapping[str, Any]]) -> Iterator[Measured | None]:
    yield _only(findings, "accuracy", "Accuracy", "performance.accuracy")
    yield _only(findings, "r2", "Share of the variance explained", "performance.r2")
    yield _only(findings, "perplexity", "Perplexity", "performance.perplexity")
    yield _only(findings, "ece", "Calibration error", "performance.ece")
    yield _worst_group(findings)
    for finding in _named(findings, "fairness.equalised_odds_difference"):
        attribute = str(finding["where"].get("attribute"))
        if _BOTH not in attribute:
            yield _figure(f"odds {attribute}", f"Gap of equalised odds, {attribute}", finding)
    for finding in _named(findings, "fairness.accuracy_difference"):
        attribute = str(finding["where"].get("attribute"))
        if _BOTH not in attribute:
            yield _figure(f"gap {attribute}", f"Gap of accuracy, {attribute}", finding)
    yield _only(
        findings,
        "worst clients",
        "Accuracy of the worst tenth of clients",
        "performance.worst_decile_accuracy",
    )
    yield _at_radius(
        findings, "attacked", "Accuracy under attack", "robustness.attacked_accuracy", "attack", "worst"
    )
    yield _at_radius(findings, "certified", "Certified accuracy", "certified.accuracy", "method", None)
    for finding in _named(findings, "consistency.kendall"):
        if finding["where"].get("between") == "samples":
            yield _figure(
                "stability", "Stability of explanations", finding, note="between samples of records"
            )
            break
    yield _first(
        findings, "infidelity", "Infidelity of explanations", "interpretability.infidelity_normalised"
    )
    yield _first(findings, "sensitivity", "Sensitivity of explanations", "interpretability.sensitivity_max")


def _figure(key: str, title: str, finding: Mapping[str, Any], note: str = "") -> Measured:
    ends = finding.get("interval")
    whole = ends is not None and None not in ends
    return Measured(
        key=key,
        title=title,
        metric=finding["metric"],
        value=finding["value"],
        interval=(ends[0], ends[1]) if whole and ends is not None else None,
        note=note,
    )


def _named(findings: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    return [finding for finding in findings if finding["metric"] == metric]


def _only(findings: Sequence[Mapping[str, Any]], key: str, title: str, metric: str) -> Measured | None:
    """The finding about everything."""
    found = [finding for finding in _named(findings, metric) if not finding["where"]]
    return _figure(key, title, found[0]) if found else None


def _first(findings: Sequence[Mapping[str, Any]], key: str, title: str, metric: str) -> Measured | None:
    found = _named(findings, metric)
    if not found:
        return None
    place = ", ".join(f"{name} {value}" for name, value in found[0]["where"].items())
    return _figure(key, title, found[0], note=place.replace("_", " "))


def _group_accuracies(findings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        finding
        for finding in _named(findings, "fairness.accuracy")
        if "group" in finding["where"] and _BOTH not in str(finding["where"].get("attribute"))
    ]


def _worst_group(findings: Sequence[Mapping[str, Any]]) -> Measured | None:
    """The least accuracy of any group that is large enough to be measured."""
    found = [finding for finding in _group_accuracies(findings) if finding["value"] is not None]
    if not found:
        return None
    least = min(found, key=lambda finding: float(finding["value"]))
    return _figure(
        "worst group", "Accuracy of the worst group", least, note="whichever it is in a run; of one attribute"
    )


def _at_radius(
    findings: Sequence[Mapping[str, Any]], key: str, title: str, metric: str, by: str, named: str | None
) -> Measured | None:
    """At the middle one of a norm's radii, by the attack of that name, or by the method that proves most.

    Of several norms l-inf is shown, as radii of unlike norms have no middle.
    """
    found = [
        finding
        for finding in _named(findings, metric)
        if "radius" in finding["where"] and (named is None or finding["where"].get(by) == named)
    ]
    if not found:
        return None
    norms = sorted({str(finding["where"].get("norm", "")) for finding in found})
    norm = "linf" if "linf" in norms else norms[0]
    found = [finding for finding in found if str(finding["where"].get("norm", "")) == norm]
    radii = sorted({float(finding["where"]["radius"]) for finding in found})
    radius = radii[(len(radii) - 1) // 2]
    here = [finding for finding in found if float(finding["where"]["radius"]) == radius]
    best = max(here, key=lambda finding: -math.inf if finding["value"] is None else float(finding["value"]))
    place = best["where"]
    return _figure(
        key,
        f"{title}, radius {radius:g}",
        best,
        note=", ".join(str(place[name]) for name in (by, "norm") if name in place),
    )


def describe(figure: Measured) -> dict[str, Any]:
    """What an axis says of a measure."""
    metric = find_metric(figure.metric)
    return {
        "key": figure.key,
        "title": figure.title,
        "metric": figure.metric,
        "unit": metric.unit,
        "direction": metric.direction,
        "low": metric.low,
        "high": metric.high,
        "note": figure.note,
        "about": metric.description,
        "citation": metric.citation,
    }
