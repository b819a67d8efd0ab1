"""The page of a comparison of budgets, from ``comparison.json`` alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsafe.report import formats
from fedsafe.report.comparison_plots import budget_plot, front_plot
from fedsafe.report.page import page

_BUDGETLESS = {"inf": "no privacy", "clipped": "clipped, no noise"}
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
        choices=_choices(body),
        statements=[_statement(line) for line in body["statements"]],
        publishing=[{**line, "delta": formats.delta(line["delta"])} for line in body["publishing"]],
        times=_times(body["time"]),
    )


def series_name(series: Mapping[str, str]) -> str:
    """``clip = 0.5, rounds = 40``; "all runs" where nothing but the budget differs."""
    return ", ".join(f"{key} = {value}" for key, value in series.items()) or "all runs"


def _name(budget: str) -> str:
    return _BUDGETLESS.get(budget, budget)


def _point_name(point: Mapping[str, Any]) -> str:
    series = f" ({series_name(point['series'])})" if point["series"] else ""
    return f"{_name(point['epsilon'])}{series}"


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


def _ordered(budgets: Sequence[str]) -> list[str]:
    numbers = sorted((budget for budget in budgets if budget not in _BUDGETLESS), key=float)
    return [*numbers, *(budget for budget in ("clipped", "inf") if budget in budgets)]


def _by_series(body: Mapping[str, Any], curve: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    order = _ordered(body["settings"]["epsilons"])
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
            _ordered(body["settings"]["epsilons"]),
            label=_label(curve),
            unit=_axis_unit(body),
            percent=curve["unit"] == "share",
            name=curve["key"],
        ),
        reading=" ".join(_reading(curve, name, points, len(series) > 1) for name, points in series.items()),
    )


def _reading(curve: Mapping[str, Any], name: str, points: Sequence[Mapping[str, Any]], several: bool) -> str:
    """What one curve says, in one sentence."""
    start = f"{name}: " if several else ""
    known = [point for point in points if point["value"] is not None]
    private = [point for point in known if point["epsilon"] not in _BUDGETLESS]
    if not private:
        return f"{start}no run with a budget was measured."
    least, most = private[0], private[-1]
    text = f"at epsilon {least['epsilon']} it is {_value(curve, least['value'])}"
    if most is not least:
        text += f", at epsilon {most['epsilon']} {_value(curve, most['value'])}"
    free = next((point for point in known if point["epsilon"] == "inf"), None)
    if free is not None:
        text += f", without privacy {_value(curve, free['value'])}"
        text += f"; {_loss(curve, most)}"
    sentence = f"{start}{text}."
    return sentence[:1].upper() + sentence[1:]


def _loss(curve: Mapping[str, Any], point: Mapping[str, Any]) -> str:
    """What a budget costs against no privacy, and whether chance could be all of it."""
    lost = point["lost"]
    if lost is None or lost["value"] is None:
        return "the cost was not measured in pairs"
    if lost["low"] is None:
        return f"epsilon {point['epsilon']} changes it by {_difference(curve, lost['value'])}, of one seed"
    sign = -1.0 if curve["direction"] == "lower" else 1.0
    clear = lost["low"] > 0 or lost["high"] < 0
    better = "" if curve["direction"] == "none" else (" better" if sign * lost["value"] > 0 else " worse")
    if not clear:
        return f"the difference at epsilon {point['epsilon']} may be chance ({_pair(curve, lost)})"
    size = _difference(curve, abs(lost["value"]))
    return f"epsilon {point['epsilon']} makes it {size}{better} ({_pair(curve, lost)})"


def _pair(curve: Mapping[str, Any], lost: Mapping[str, Any]) -> str:
    if curve["unit"] == "share":
        return f"95 % interval {100 * lost['low']:+.2f} to {100 * lost['high']:+.2f} points"
    return f"95 % interval {lost['low']:+.3g} to {lost['high']:+.3g}"


def _value(curve: Mapping[str, Any], value: float | None) -> str:
    return formats.quantity(value, curve["unit"])


def _difference(curve: Mapping[str, Any], value: float) -> str:
    return f"{100 * value:.2f} points" if curve["unit"] == "share" else f"{value:.3g}"


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
                        _ordered(body["settings"]["epsilons"]),
                        label=_label(members[0], "accuracy"),
                        unit=_axis_unit(body),
                        percent=True,
                        name=f"group-{attribute}-{name}",
                    ),
                    reading=_who_pays(members[0], lines),
                )
            )
    return plots


def _who_pays(curve: Mapping[str, Any], lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Which group loses most at the smallest budget at which losses are known."""
    losses: dict[str, dict[str, float]] = {}
    for group, points in lines.items():
        for point in points:
            lost = point["lost"]
            if point["epsilon"] not in _BUDGETLESS and lost is not None and lost["value"] is not None:
                losses.setdefault(point["epsilon"], {})[group] = lost["value"]
    whole = [budget for budget in _ordered(list(losses)) if len(losses[budget]) > 1]
    if not whole:
        return "What each group loses is not known: there is no run without privacy to compare with."
    here = losses[whole[0]]
    most, least = min(here, key=lambda group: here[group]), max(here, key=lambda group: here[group])
    return (
        f"At epsilon {whole[0]}, {most} pays most ({_difference(curve, here[most])} against no privacy) and {least} "
        f"least ({_difference(curve, here[least])})."
    )


def _front_plots(body: Mapping[str, Any]) -> list[Plot]:
    """The first measure against each of the others."""
    directed = [curve for curve in body["curves"] if curve["direction"] != "none"]
    if len(directed) < 2:
        return []
    main = directed[0]
    fronts = {(front["first"], front["second"]): front["points"] for front in body["fronts"]}
    plots = []
    for other in directed[1:]:
        front = [_point_name(point) for point in fronts.get((main["key"], other["key"]), ())]
        values = {_point_name(point): point["value"] for point in main["points"]}
        points = [
            (_point_name(point), values[_point_name(point)], point["value"], _point_name(point) in front)
            for point in other["points"]
            if point["value"] is not None and values.get(_point_name(point)) is not None
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
            ", ".join(_point_name(point) for point in front["points"]),
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
                    "budget": _name(point["epsilon"]),
                    "value": _value(curve, point["value"]),
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


def _choices(body: Mapping[str, Any]) -> list[str]:
    """What the curve of the first measure says about which budget to take, one paragraph for each series."""
    lines = []
    for choice in body["choices"]:
        name = series_name(choice["series"])
        parts = []
        if choice["knee"] is not None:
            parts.append(
                f"the curve bends most at epsilon {choice['knee']}: beyond it, more budget buys less"
            )
        else:
            parts.append("the curve has no knee among these budgets")
        if choice["enough"] is not None:
            parts.append(
                f"epsilon {choice['enough']} is the least budget that is shown to lose no more than "
                f"{100 * choice['tolerance']:g} point{'' if choice['tolerance'] == 0.01 else 's'} against no privacy"
            )
        elif body["settings"]["seeds"] > 1 and "inf" in body["settings"]["epsilons"]:
            parts.append(
                f"no budget here is shown to lose no more than {100 * choice['tolerance']:g} point against no privacy"
            )
        if choice["trend"] is not None:
            shown = "gets better" if choice["trend"]["p"] < 0.05 else "is not shown to get better"
            parts.append(
                f"over the budgets the measure {shown} (paired over seeds, one-sided p = {choice['trend']['p']:.2g})"
            )
        text = "; ".join(parts)
        start = f"{name}: {text}" if len(body["choices"]) > 1 else text
        lines.append(f"{start[:1].upper()}{start[1:]}.")
    return lines


def _statement(line: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **line,
        "name": _point_name(line),
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
