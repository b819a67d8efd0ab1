"""The page of a comparison of budgets, from ``comparison.json`` alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedsafe.report import formats
from fedsafe.report.comparison_panels import Panel, Plot, by_series, label_of, panels_of
from fedsafe.report.comparison_plots import budget_plot, front_plot
from fedsafe.report.comparison_reading import (
    audit_reading,
    budget_title,
    choice_readings,
    curve_reading,
    ordered,
    point_name,
    series_name,
    value_text,
    who_pays,
)
from fedsafe.report.comparison_tuning import tuning_section
from fedsafe.report.page import page

_BUDGET_KEY = "epsilon"
# Assessors that take less than this share of all are not listed one by one.
_LEAST_SHARE = 0.02


def render_comparison(body: Mapping[str, Any], command: str = "") -> str:
    """The page of a comparison, with its style sheet and plots inside.

    Args:
        body: The content of ``comparison.json``.
        command: How it was made.
    """
    group_plots = _group_plots(body)
    panels = panels_of(body)
    return page(
        "comparison.html.j2",
        body=body,
        command=command,
        panels=panels,
        plots=[plot for curve in body["curves"] for plot in _curve_plots(body, curve, panels)],
        audits=_audit_plots(body, panels),
        group_plots=group_plots,
        whom=[f"{plot.title[:1].upper()}{plot.title[1:]}: {plot.reading}" for plot in group_plots],
        fronts=_front_plots(body, panels),
        matrix=_front_matrix(body),
        budgets=_budget_rows(body),
        choices=choice_readings(body),
        statements=[_statement(line) for line in body["statements"]],
        publishing=[{**line, "delta": formats.delta(line["delta"])} for line in body["publishing"]],
        times=_times(body["time"]),
        tuning=tuning_section(body),
    )


def _curve_plots(
    body: Mapping[str, Any], curve: Mapping[str, Any], panels: Sequence[Panel]
) -> Iterator[Plot]:
    """A measure against the budget, on an axis for each panel."""
    for place, panel in enumerate(panels):
        series = by_series(body, curve, panel.series)
        yield Plot(
            title=", ".join(text for text in (curve["title"], panel.title) if text),
            about=curve["about"] + (f" ({curve['note']})" if curve["note"] else ""),
            svg=budget_plot(
                series,
                ordered(body["settings"]["epsilons"]),
                label=label_of(curve),
                unit=panel.unit,
                percent=curve["unit"] == "share",
                name=f"{curve['key']}-{place}",
            ),
            reading=" ".join(
                curve_reading(curve, name, points, len(series) > 1) for name, points in series.items()
            ),
            claim=panel.claim,
        )


def _audit_plots(body: Mapping[str, Any], panels: Sequence[Panel]) -> list[Plot]:
    """What canaries prove beside what is accounted for, for each kind of canaries and each series."""
    ends: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for curve in body["audits"]:
        end, unit, _ = curve["key"].split(" ", 2)
        ends.setdefault((unit, curve["note"]), {})[end] = curve
    several = len(body["settings"]["series"]) > 1
    plots = []
    for (unit, about), curves in ends.items():
        for panel in panels:
            if f"per {unit}" not in panel.unit:
                continue
            for series in panel.series:
                name = series_name(series)
                lines = {
                    words: [
                        point for point in by_series(body, curves[end])[name] if point["epsilon"] != "clipped"
                    ]
                    for end, words in (
                        ("audited", "canaries prove at least"),
                        ("accounted", "accounted at most"),
                    )
                    if end in curves
                }
                plots.append(
                    Plot(
                        title=f"{about[:1].upper()}{about[1:]}{f', {name}' if several else ''}",
                        about="An audit gives a lower bound and the accountant an upper one, both at the audit's "
                        "delta and as means over seeds. A low figure is no guarantee: a better audit may prove more.",
                        svg=budget_plot(
                            lines,
                            [
                                budget
                                for budget in ordered(body["settings"]["epsilons"])
                                if budget != "clipped"
                            ],
                            label="epsilon; lower protects more",
                            unit=panel.unit,
                            percent=False,
                            name=f"audit-{about}-{name}",
                        ),
                        reading=audit_reading(lines),
                        claim=panel.claim,
                    )
                )
    return plots


def _group_plots(body: Mapping[str, Any]) -> list[Plot]:
    """Who pays for privacy: each group's accuracy, one plot for each attribute and series."""
    attributes: dict[str, list[Mapping[str, Any]]] = {}
    for curve in body["groups"]:
        attributes.setdefault(curve["note"], []).append(curve)
    several = len(body["settings"]["series"]) > 1
    plots = []
    placed = [(panel, series) for panel in panels_of(body) for series in panel.series]
    for attribute, members in attributes.items():
        for panel, series in placed:
            name = series_name(series)
            lines = {curve["title"]: by_series(body, curve)[name] for curve in members}
            plots.append(
                Plot(
                    title=f"{attribute}{f', {name}' if several else ''}",
                    about="Groups that are too small to be measured are left out.",
                    svg=budget_plot(
                        lines,
                        ordered(body["settings"]["epsilons"]),
                        label=label_of(members[0], "accuracy"),
                        unit=panel.unit,
                        percent=True,
                        name=f"group-{attribute}-{name}",
                    ),
                    reading=who_pays(members[0], lines),
                    claim=panel.claim,
                )
            )
    return plots


def _front_plots(body: Mapping[str, Any], panels: Sequence[Panel]) -> list[Plot]:
    """The first measure against each of the others; unlike budgets apart."""
    directed = [curve for curve in body["curves"] if curve["direction"] != "none"]
    if len(directed) < 2:
        return []
    main = directed[0]
    fronts = {(front["panel"], front["first"], front["second"]): front["points"] for front in body["fronts"]}
    plots = []
    for other in directed[1:]:
        for place, panel in enumerate(panels):
            name = point_name if len(panel.series) > 1 else _budget_of
            front = [name(point) for point in fronts.get((place, main["key"], other["key"]), ())]
            values = {
                name(point): point["value"] for point in main["points"] if point["series"] in panel.series
            }
            points = [
                (name(point), values[name(point)], point["value"], name(point) in front)
                for point in other["points"]
                if point["series"] in panel.series
                if point["value"] is not None and values.get(name(point)) is not None
            ]
            if not points:
                continue
            title = f"{main['title']} and {other['title'][:1].lower()}{other['title'][1:]}"
            plots.append(
                Plot(
                    title=", ".join(text for text in (title, panel.title) if text),
                    about="Filled: no other run is better in both.",
                    svg=front_plot(
                        points,
                        labels=(label_of(main, main["title"]), label_of(other, other["title"])),
                        percent=(main["unit"] == "share", other["unit"] == "share"),
                        name=f"{main['key']}-{other['key']}-{place}",
                    ),
                    reading=f"On the front: {', '.join(front) or 'nothing'}.",
                )
            )
    return plots


def _budget_of(point: Mapping[str, Any]) -> str:
    """The budget alone, where there is one series."""
    return budget_title(point["epsilon"])


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
    for name, points in by_series(body, curve).items():
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
    if spent["auditing"]:
        rows.append(("audits: second trainings with canaries", spent["auditing"]))
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
