"""One plot of any two measures of a comparison, with what it says in words and as a table."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsafe.report import formats
from fedsafe.report.comparison_plots import budget_plot, front_plot
from fedsafe.report.comparison_reading import (
    curve_reading,
    ordered,
    point_name,
    series_name,
    value_text,
    who_pays,
)

BUDGET, _GROUPS = "epsilon", "groups "
_BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "no direction is better"}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One entry of a list of axes.

    Attributes:
        value: Its name in the address.
        title: In words.
    """

    value: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Picked:
    """Two axes, and what they show.

    Attributes:
        x: Name of the horizontal axis.
        y: Of the vertical one.
        svg: The plot; "" where there is nothing to draw.
        reading: One sentence.
        about: What is measured, in one sentence.
        heads: Of the table below the plot.
        rows: Of that table.
    """

    x: str
    y: str
    svg: str
    reading: str
    about: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def panels(body: Mapping[str, Any]) -> list[Choice]:
    """Which series share an axis; unlike claims stand on axes of their own, of which one is shown.

    Args:
        body: Of the comparison.
    """
    found = body["settings"].get("panels") or []
    return [
        Choice(value=str(place), title="; ".join(series_name(series) for series in panel["series"]))
        for place, panel in enumerate(found)
    ]


def on_panel(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The comparison, as if it had nothing but the series of one axis.

    Args:
        body: Of the comparison.
        name: Of the axis, as :func:`panels` has it; what is not there is replaced by the first.
    """
    names = [choice.value for choice in panels(body)]
    if len(names) < 2:
        return body
    place = names.index(name) if name in names else 0
    panel = body["settings"]["panels"][place]

    def kept(curve: Mapping[str, Any]) -> dict[str, Any]:
        return {**curve, "points": [point for point in curve["points"] if point["series"] in panel["series"]]}

    return {
        **body,
        "settings": {**body["settings"], "series": panel["series"], "units": panel["units"]},
        "axis": [claim for claim in body["axis"] if claim["panel"] == place],
        "curves": [kept(curve) for curve in body["curves"]],
        "groups": [kept(curve) for curve in body["groups"]],
    }


def axes(body: Mapping[str, Any]) -> tuple[list[Choice], list[Choice]]:
    """What may be put on the horizontal and on the vertical axis.

    Args:
        body: Of the comparison.
    """
    measures = [Choice(value=curve["key"], title=_title(curve)) for curve in body["curves"]]
    attributes = dict.fromkeys(str(curve["note"]) for curve in body["groups"])
    groups = [
        Choice(value=f"{_GROUPS}{name}", title=f"Accuracy of each group, by {name}") for name in attributes
    ]
    return [Choice(value=BUDGET, title="Privacy budget (epsilon)"), *measures], [*measures, *groups]


def pick(body: Mapping[str, Any], x: str, y: str) -> Picked:
    """The plot of two axes; what is not there is replaced by the first that is.

    Args:
        body: Of the comparison.
        x: Name of the horizontal axis.
        y: Of the vertical one.
    """
    horizontal, vertical = axes(body)
    y = y if y in {choice.value for choice in vertical} else vertical[0].value
    x = x if x in {choice.value for choice in horizontal} else BUDGET
    if y.startswith(_GROUPS):
        return _groups(body, y)
    curve = _curve(body, y)
    return _against_budget(body, curve) if x in (BUDGET, y) else _against(body, _curve(body, x), curve)


def short_claim(body: Mapping[str, Any]) -> str:
    """What stands above an axis of budgets: unit, delta, adjacency and adversary; whether they are simulated.

    Args:
        body: Of the comparison.
    """
    claims = [
        f"epsilon per {claim['unit']} at delta {formats.delta(claim['delta'])}, "
        f"{str(claim['adjacency']).partition(' (')[0]} adjacency, against {claim['adversary']}"
        for claim in body["axis"]
    ]
    return f"{'simulated, no guarantee: ' if body['settings']['reproducible'] else ''}{'; '.join(claims)}"


def plain_svg(svg: str) -> str:
    """A plot without style attributes, which the page's content policy forbids: as attributes of their own instead."""

    def attributes(match: "re.Match[str]") -> str:
        pairs = (pair.partition(":") for pair in match[1].split(";"))
        return " ".join(f'{name.strip()}="{value.strip()}"' for name, colon, value in pairs if colon)

    return re.sub(r'\bstyle="([^"]*)"', attributes, svg)


def _curve(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(curve for curve in body["curves"] if curve["key"] == key)
    return found


def _title(curve: Mapping[str, Any]) -> str:
    return f"{curve['title']} ({_BETTER[curve['direction']]})"


def _label(curve: Mapping[str, Any], title: str) -> str:
    unit = "%" if curve["unit"] == "share" else curve["unit"]
    return "; ".join([", ".join(text for text in (title, unit) if text), _BETTER[curve["direction"]]])


def _axis_unit(body: Mapping[str, Any]) -> str:
    return f"epsilon per {' and per '.join(body['settings']['units'])}; lower protects more"


def _lines(body: Mapping[str, Any], curve: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Points of each series, in the order of the budgets; an interval stays where the measure can be."""
    order = ordered(body["settings"]["epsilons"])
    return {
        series_name(series): sorted(
            (_within(curve, point) for point in curve["points"] if point["series"] == series),
            key=lambda point: order.index(point["epsilon"]),
        )
        for series in body["settings"]["series"]
    }


def _within(curve: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    least = -math.inf if curve["low"] is None else curve["low"]
    most = math.inf if curve["high"] is None else curve["high"]
    ends = {
        end: point[end] if point[end] is None else min(max(point[end], least), most)
        for end in ("low", "high")
    }
    return {**point, **ends}


def _row(curve: Mapping[str, Any], name: str, point: Mapping[str, Any]) -> tuple[str, ...]:
    ends = None if point["low"] is None else (point["low"], point["high"])
    return name, value_text(curve, point["value"]), formats.interval(ends, curve["unit"]), str(point["n"])


def _against_budget(body: Mapping[str, Any], curve: Mapping[str, Any]) -> Picked:
    lines = _lines(body, curve)
    percent = curve["unit"] == "share"
    budgets = ordered(body["settings"]["epsilons"])
    label = _label(curve, curve["title"])
    return Picked(
        x=BUDGET,
        y=curve["key"],
        svg=plain_svg(
            budget_plot(lines, budgets, label=label, unit=_axis_unit(body), percent=percent, name="picked")
        ),
        reading=" ".join(
            curve_reading(curve, name, points, len(lines) > 1) for name, points in lines.items()
        ),
        about=_about(curve),
        heads=("Epsilon", curve["title"], "95 % interval", "Seeds"),
        rows=tuple(_row(curve, point_name(point), point) for points in lines.values() for point in points),
    )


def _groups(body: Mapping[str, Any], y: str) -> Picked:
    """Who pays: each group of an attribute against the budget, one line for each, of the first series."""
    members = [curve for curve in body["groups"] if f"{_GROUPS}{curve['note']}" == y]
    series = body["settings"]["series"]
    first = series_name(series[0])
    lines = {str(curve["title"]): _lines(body, curve)[first] for curve in members}
    label = _label(members[0], f"Accuracy by {members[0]['note']}")
    svg = budget_plot(
        lines,
        ordered(body["settings"]["epsilons"]),
        label=label,
        unit=_axis_unit(body),
        percent=members[0]["unit"] == "share",
        name="picked",
    )
    about = "Groups that are too small to be measured are left out; groups are shown against the budget."
    return Picked(
        x=BUDGET,
        y=y,
        svg=plain_svg(svg),
        reading=who_pays(members[0], lines),
        about=about
        if len(series) < 2
        else f"{about} Of the runs with {first}; the others are in the tables.",
        heads=("Group and epsilon", "Accuracy", "95 % interval", "Seeds"),
        rows=tuple(
            _row(curve, f"{curve['title']}, {point_name(point)}", point)
            for curve in members
            for point in lines[str(curve["title"])]
        ),
    )


def _against(body: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any]) -> Picked:
    """Two measures, with the points of which no other is better in both."""
    values = {point_name(point): point["value"] for point in first["points"]}
    known = [
        (point_name(point), float(values[point_name(point)]), float(point["value"]))
        for point in second["points"]
        if point["value"] is not None and values.get(point_name(point)) is not None
    ]
    front = _front(known, first["direction"], second["direction"])
    points = [(name, x, y, name in front) for name, x, y in known]
    labels = (_label(first, first["title"]), _label(second, second["title"]))
    percent = (first["unit"] == "share", second["unit"] == "share")
    directed = "none" not in (first["direction"], second["direction"])
    reading = (
        f"On the front, where no other budget is better in both: {', '.join(front) or 'nothing'}."
        if directed
        else ""
    )
    return Picked(
        x=first["key"],
        y=second["key"],
        svg=plain_svg(front_plot(points, labels=labels, percent=percent, name="picked")) if points else "",
        reading=reading or "One of the two has no better direction, so that there is no front.",
        about=f"{_about(second)} Each point is a budget; filled, with its name in bold, if it is on the front.",
        heads=("Epsilon", first["title"], second["title"], "On the front"),
        rows=tuple(
            (name, value_text(first, x), value_text(second, y), "yes" if there else "no")
            for name, x, y, there in points
        ),
    )


def _front(points: Sequence[tuple[str, float, float]], first: str, second: str) -> list[str]:
    """Names of the points of which no other is better in one and at least as good in the other (Pareto)."""
    if "none" in (first, second):
        return []
    signs = [-1.0 if direction == "lower" else 1.0 for direction in (first, second)]
    better = {name: (signs[0] * x, signs[1] * y) for name, x, y in points}
    return [
        name
        for name, (x, y) in better.items()
        if not any(a >= x and b >= y and (a > x or b > y) for a, b in better.values())
    ]


def _about(curve: Mapping[str, Any]) -> str:
    about = str(curve["about"])
    noted = about + (f" ({curve['note']})" if curve["note"] else "")
    return noted if noted.endswith(".") else f"{noted}."
