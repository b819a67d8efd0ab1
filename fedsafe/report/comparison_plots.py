"""The plots of a comparison: a measure against the budget, and two measures against each other.

Budgets stand side by side at equal distances, as a logarithmic axis would have doubling ones; what has no budget stands
apart, at the right. Series are told apart by line and marker, so that a grey print reads as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedsafe.report.byzantine_plots import STYLES
from fedsafe.report.drawing import INK, LEGEND, MUTED, as_svg, new_figure, short

NAMES = {"inf": "no\nprivacy", "clipped": "clipped,\nno noise"}
_APART = ("clipped", "inf")

Point = Mapping[str, Any]


def budget_plot(
    series: Mapping[str, Sequence[Point]],
    budgets: Sequence[str],
    *,
    label: str,
    unit: str,
    percent: bool,
    name: str,
) -> str:
    """A measure against the budget, with intervals.

    Args:
        series: Name to points, each with ``epsilon``, ``value``, ``low`` and ``high``; one without a value is left
            out.
        budgets: Names of the budgets, in their order; those without one last.
        label: What the vertical axis shows, and which way is better.
        unit: What the horizontal axis shows.
        percent: Whether values are shares, shown in percent.
        name: Tells the plots of a page apart.
    """
    figure, axes = new_figure(label, height=2.7 + (0.2 * (-(-len(series) // 3)) if len(series) > 1 else 0.0))
    scale = 100.0 if percent else 1.0
    numbered = [budget for budget in budgets if budget not in _APART]
    apart = [budget for budget in budgets if budget in _APART]
    places = {budget: float(place) for place, budget in enumerate(numbered)}
    places |= {budget: len(numbered) + 0.35 + place for place, budget in enumerate(apart)}
    styles = STYLES * (1 + len(series) // len(STYLES))
    for number, ((title, points), (colour, dash, marker)) in enumerate(
        zip(series.items(), styles, strict=False)
    ):
        # Side by side, so that intervals do not hide each other.
        shift = 0.09 * (number - (len(series) - 1) / 2)
        known = [point for point in points if point["value"] is not None]
        joined = [point for point in known if point["epsilon"] in numbered]
        axes.plot(
            [places[point["epsilon"]] + shift for point in joined],
            [scale * point["value"] for point in joined],
            color=colour,
            ls=dash,
            lw=1.4,
        )
        axes.plot(
            [places[point["epsilon"]] + shift for point in known],
            [scale * point["value"] for point in known],
            color=colour,
            ls="none",
            marker=marker,
            ms=4.5,
        )
        axes.plot([], [], color=colour, ls=dash, marker=marker, ms=4.5, lw=1.4, label=short(title, 40))
        for point in known:
            if point["low"] is not None and point["high"] is not None:
                place = places[point["epsilon"]] + shift
                axes.plot([place, place], [scale * point["low"], scale * point["high"]], color=colour, lw=1.0)
    if numbered and apart:
        axes.axvline(len(numbered) - 0.3, color=MUTED, lw=0.8, ls=(0, (2, 3)))
    axes.set_xticks(list(places.values()), [NAMES.get(budget, budget) for budget in places], parse_math=False)
    axes.set_xlabel(unit, parse_math=False)
    axes.margins(y=0.12, x=0.06)
    if len(series) > 1:
        legend = figure.legend(loc="outside lower center", **{**LEGEND, "ncols": 3})
        for text in legend.get_texts():
            text.set_parse_math(False)
    return as_svg(figure, f"budget-{name}")


def front_plot(
    points: Sequence[tuple[str, float, float, bool]],
    *,
    labels: tuple[str, str],
    percent: tuple[bool, bool],
    name: str,
) -> str:
    """Two measures against each other, with the points of which no other is better in both.

    Args:
        points: Name, both values, and whether it is on the front: those are filled and named in bold.
        labels: What the axes show, and which way is better.
        percent: Whether values are shares, shown in percent.
        name: Tells the plots of a page apart.
    """
    figure, axes = new_figure(labels[1], height=2.9)
    scales = [100.0 if share else 1.0 for share in percent]
    for title, first, second, on_front in points:
        x, y = scales[0] * first, scales[1] * second
        axes.plot([x], [y], marker="o", ms=6, color=INK, mfc=INK if on_front else "none", ls="none")
        axes.annotate(
            title,
            (x, y),
            xytext=(5, 4),
            textcoords="offset points",
            size=8,
            color=INK if on_front else MUTED,
            weight="bold" if on_front else "normal",
            parse_math=False,
        )
    axes.set_xlabel(labels[0], parse_math=False)
    axes.margins(0.14)
    return as_svg(figure, f"front-{name}")
