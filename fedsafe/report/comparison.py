"""The page of a comparison of budgets, from ``comparison.json`` alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsafe.report import formats
from fedsafe.report.comparison_plots import budget_plot, front_plot
from fedsafe.report.comparison_reading import (
    budget_title,
    choice_readings,
    curve_reading,
    ordered,
    point_name,
    series_name,
    value_text,
    who_pays,
)
from fedsafe.report.page import page

_BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "no direction is better"}
_BUDGET_KEY = "epsilon"
# Assessors that take less than this share of all are not listed one by one.
_LEAST_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        title: In words.
        about: What is measured.
        svg: The plot.
        reading: One sentence.
    """

    title: str
    about: str
    svg: str
    reading: str


def render_comparison(body: Mapping[str, Any], command: str = "") -> str:
    """The page of a comparison, with its style sheet and plots inside.

    Args:
        body: The content of ``comparison.json``.
        command: How it was made.
    """
    group_plots = _group_plots(body)
    return page(
        "comparison.html.j2",
        body=body,
        command=command,
        axis=[{**claim, "delta": formats.delta(claim["delta"])} for claim in body["axis"]],
        short_claim=_short_claim(body),
        others=[_other(level) for level in body["settings"]["other"]],
        plots=[_curve_plot(body, curve) for curve in body["curves"]],
        group_plots=group_plots,
        whom=[f"{plot.title[:1].upper()}{plot.title[1:]}: {plot.reading}" for plot in group_plots],
        fronts=_front_plots(body),
        matrix=_front_matrix(body),
        budgets=_budget_rows(body),
        choices=choice_readings(body),
        statements=[_statement(line) for line in body["statements"]],
        publishing=[{**line, "delta": formats.delta(line["delta"])} for line in body["publishing"]],
        times=_times(body["time"]),
    )


def _axis_unit(body: Mapping[str, Any]) -> str:
    """What a budget on an axis is, short enough to stand below it."""
    return f"epsilon per {' and per '.join(body['settings']['units'])}; lower protects more"


def _short_claim(body: Mapping[str, Any]) -> str:
    """What stands above every axis: unit, delta, adjacency and adversary of the budgets; whether they are simulated."""
    claims = [
        f"epsilon per {claim['unit']} at delta {formats.delta(claim['delta'])}, "
        f"{claim['adjacency'].partition(' (')[0]} adjacency, against {claim['adversary']}"
        for claim in body["axis"]
    ]
    simulated = "simulated, no guarantee: " if body["settings"]["reproducible"] else ""
    return f"{simulated}{'; '.join(claims)}"


def _other(level: Mapping[str, Any]) -> str:
    target = "off" if level["epsilon"] == "inf" else f"at epsilon {level['epsilon']}"
    return f"the {level['unit']} level stays {target} in every run"


def _by_series(body: Mapping[str, Any], curve: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    order = ordered(body["settings"]["epsilons"])
    return {
        series_name(series): sorted(
            (_inside(point, curve) for point in curve["points"] if point["series"] == series),
            key=lambda point: order.index(point["epsilon"]),
        )
        for series in body["settings"]["series"]
    }


def _inside(point: Mapping[str, Any], curve: Mapping[str, Any]) -> dict[str, Any]:
    """A point whose interval stays where the measure can be: t knows nothing of a share's ends."""

    def within(end: float | None) -> float | None:
        if end is None:
            return None
        end = end if curve["low"] is None else max(end, curve["low"])
        return end if curve["high"] is None else min(end, curve["high"])

    return {**point, "low": within(point["low"]), "high": within(point["high"])}


def _label(curve: Mapping[str, Any], title: str | None = None) -> str:
    unit = "%" if curve["unit"] == "share" else curve["unit"]
    shown = ", ".join(text for text in (title, unit) if text)
    return f"{shown}; {_BETTER[curve['direction']]}" if shown else _BETTER[curve["direction"]]


def _curve_plot(body: Mapping[str, Any], curve: Mapping[str, Any]) -> Plot:
    series = _by_series(body, curve)
    return Plot(
        title=curve["title"],
        about=curve["about"] + (f" ({curve['note']})" if curve["note"] else ""),
        svg=budget_plot(
            series,
            ordered(body["settings"]["epsilons"]),
            label=_label(curve),
            unit=_axis_unit(body),
            percent=curve["unit"] == "share",
            name=curve["key"],
        ),
        reading=" ".join(
            curve_reading(curve, name, points, len(series) > 1) for name, points in series.items()
        ),
    )


def _group_plots(body: Mapping[str, Any]) -> list[Plot]:
    """Who pays for privacy: each group's accuracy, one plot for each attribute and series."""
    attributes: dict[str, list[Mapping[str, Any]]] = {}
    for curve in body["groups"]:
        attributes.setdefault(curve["note"], []).append(curve)
    several = len(body["settings"]["series"]) > 1
    plots = []
    for attribute, members in attributes.items():
        for series in body["settings"]["series"]:
            name = series_name(series)
            lines = {curve["title"]: _by_series(body, curve)[name] for curve in members}
            plots.append(
                Plot(
                    title=f"{attribute}{f', {name}' if several else ''}",
                    about="Groups that are too small to be measured are left out.",
                    svg=budget_plot(
                        lines,
                        ordered(body["settings"]["epsilons"]),
                        label=_label(members[0], "accuracy"),
                        unit=_axis_unit(body),
                        percent=True,
                        name=f"group-{attribute}-{name}",
                    ),
                    reading=who_pays(members[0], lines),
                )
            )
    return plots


def _front_plots(body: Mapping[str, Any]) -> list[Plot]:
    """The first measure against each of the others."""
    directed = [curve for curve in body["curves"] if curve["direction"] != "none"]
    if len(directed) < 2:
        return []
    main = directed[0]
    fronts = {(front["first"], front["second"]): front["points"] for front in body["fronts"]}
    plots = []
    for other in directed[1:]:
        front = [point_name(point) for point in fronts.get((main["key"], other["key"]), ())]
        values = {point_name(point): point["value"] for point in main["points"]}
        points = [
            (point_name(point), values[point_name(point)], point["value"], point_name(point) in front)
            for point in other["points"]
            if point["value"] is not None and values.get(point_name(point)) is not None
        ]
        if not points:
            continue
        plots.append(
            Plot(
                title=f"{main['title']} and {other['title'][:1].lower()}{other['title'][1:]}",
                about="Filled: no other run is better in both.",
                svg=front_plot(
                    points,
                    labels=(_label(main, main["title"]), _label(other, other["title"])),
                    percent=(main["unit"] == "share", other["unit"] == "share"),
                    name=f"{main['key']}-{other['key']}",
                ),
                reading=f"On the front: {', '.join(front) or 'nothing'}.",
            )
        )
    return plots


def _front_matrix(body: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Any two measures, and what is on their front."""
    titles = {curve["key"]: curve["title"] for curve in body["curves"]}
    titles[_BUDGET_KEY] = "Budget (less is better)"
    return [
        (
            titles[front["first"]],
            titles[front["second"]],
            ", ".join(point_name(point) for point in front["points"]),
        )
        for front in body["fronts"]
    ]


def _budget_rows(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first measure at each budget, and what the budget costs."""
    if not body["curves"]:
        return []
    curve = body["curves"][0]
    knees = {series_name(choice["series"]): choice for choice in body["choices"]}
    rows = []
    for name, points in _by_series(body, curve).items():
        for point in points:
            choice, lost = knees[name], point["lost"]
            marks = [
                text
                for text, there in (
                    ("knee", choice["knee"] == point["epsilon"]),
                    ("least that loses little", choice["enough"] == point["epsilon"]),
                )
                if there
            ]
            rows.append(
                {
                    "series": name,
                    "budget": budget_title(point["epsilon"]),
                    "value": value_text(curve, point["value"]),
                    "interval": formats.interval(_ends(point), curve["unit"]),
                    "lost": "" if lost is None or lost["value"] is None else _signed(curve, lost["value"]),
                    "lost_interval": ""
                    if lost is None or lost["low"] is None
                    else f"[{_signed(curve, lost['low'])}, {_signed(curve, lost['high'])}]",
                    "marks": ", ".join(marks),
                }
            )
    return rows


def _ends(point: Mapping[str, Any]) -> tuple[float, float] | None:
    return None if point["low"] is None else (point["low"], point["high"])


def _signed(curve: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:+.2f}" if curve["unit"] == "share" else f"{value:+.3g}"


def _statement(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **line,
        "name": point_name(line),
        "shown_delta": formats.delta(line["delta"]),
        "shown_mu": formats.number(line["mu"], 3),
        "shown_true": formats.ABSENT
        if line["true_positives"] is None
        else f"{100 * line['true_positives']:.2g} %",
        "shown_posterior": formats.ABSENT
        if line["posterior"] is None
        else f"{100 * line['posterior']:.3g} %",
    }


def _times(spent: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Processor seconds of what was computed now; assessors share what judging took as their wall times do."""
    rows = [
        ("composing, sampling plans and calibrating noise", spent["preparing"]),
        ("training, all runs as stacks", spent["training"]),
        ("claims of each run", spent["accounting"]),
    ]
    whole = sum(spent["assessors"].values())
    rest = spent["judging"]
    for name, seconds in sorted(spent["assessors"].items(), key=lambda entry: -entry[1]):
        if whole and seconds / whole >= _LEAST_SHARE:
            share = spent["judging"] * seconds / whole
            rows.append((f"judging: {formats.status(name)}", share))
            rest -= share
    rows.append(("judging: all else", rest))
    known = sum(seconds for _, seconds in rows)
    rows.append(
        ("start-up of processes, checks before the first run, tables", max(0.0, spent["processors"] - known))
    )
    return rows


def closing_rows(body: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table that the command ends with: each budget, and what it costs."""
    several = len(body["settings"]["series"]) > 1
    heads = [
        "budget",
        body["curves"][0]["title"].lower() if body["curves"] else "",
        "95 %",
        "cost",
        "95 %",
        "",
    ]
    rows = [
        [
            *([row["series"]] if several else []),
            *(str(row[key]) for key in ("budget", "value", "interval", "lost", "lost_interval", "marks")),
        ]
        for row in _budget_rows(body)
    ]
    return (["runs", *heads] if several else heads), rows


def time_rows(body: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of where the processors' time went."""
    return ["where the time went", "s"], [[part, f"{seconds:.1f}"] for part, seconds in _times(body["time"])]
