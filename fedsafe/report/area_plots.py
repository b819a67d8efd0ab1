"""The plots of single areas: brackets, error bars of corruptions and groups, curves with their control, ROC.

None needs colour: lines differ by dash and marker, bars by their place, and every interval is drawn.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fedsafe.report.drawing import GRID, INK, LEGEND, MAIN, SECOND, TARGET, Ends, as_svg, new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MplFigure

STYLES = ((MAIN, "-", "o"), (SECOND, "--", "s"), (INK, ":", "^"), (TARGET, "-.", "D"), (MAIN, "--", "v"))
"""Colour, dash and marker of the lines of a plot, in their order."""

# Characters of a label that has half a plot's width; inches of a line of a legend.
_NARROW, _LINE = 32, 0.17
# Characters of a label that has all of it.
_LONGEST = 62
# Radii that differ by more than this factor are drawn on a logarithmic axis.
_WIDE = 8.0

Point = tuple[float, float, Ends | None]
"""Place on the horizontal axis, share in [0, 1], and its interval."""


def bracket_plot(
    upper: Sequence[Point], lower: Mapping[str, Sequence[Point]], *, clean: float | None, label: str
) -> str:
    """Accuracy under attack and what is certified, against the radius: the truth lies in the band between.

    Args:
        upper: What the worst attack left, in the order of the radius.
        lower: For each method, what it certifies.
        clean: Accuracy without any change, or None.
        label: Above the plot.
    """
    figure, axes = new_figure(label, height=2.8)
    series = [
        ("worst attack (upper bound)", upper),
        *((f"{name} (lower bound)", p) for name, p in lower.items()),
    ]
    proven: dict[float, float] = {}
    for points in lower.values():
        for radius, share, _ in points:
            proven[radius] = max(proven.get(radius, 0.0), share)
    both = [(radius, share, proven[radius]) for radius, share, _ in upper if radius in proven]
    if both:
        axes.fill_between(
            [radius for radius, _, _ in both],
            [100 * low for _, _, low in both],
            [100 * high for _, high, _ in both],
            facecolor="none",
            edgecolor=GRID,
            hatch="///",
            lw=0,
        )
    for (name, points), (colour, dash, marker) in zip(series, STYLES, strict=False):
        axes.plot(
            [radius for radius, _, _ in points],
            [100 * share for _, share, _ in points],
            color=colour, ls=dash, marker=marker, ms=3.5, lw=1.4, label=short(name, _LONGEST),
        )  # fmt: skip
        for radius, _, ends in points:
            if ends and None not in ends:
                axes.plot(
                    [radius, radius], [100 * float(end or 0) for end in ends], color=colour, lw=3, alpha=0.3
                )
    if clean is not None:
        axes.axhline(
            100 * clean, color=TARGET, lw=1.1, ls=(0, (4, 3)), label=f"unchanged inputs, {100 * clean:.1f} %"
        )
    axes.set_xlabel("radius, in units of the encoded features")
    axes.set_ylim(0, 102)
    _radii(axes, sorted({radius for _, points in series for radius, _, _ in points}))
    legend_below(figure, max(len(name) for name, _ in series))
    return as_svg(figure, f"bracket-{label}")


def intervals_plot(
    labels: Sequence[str],
    values: Sequence[float],
    *,
    intervals: Sequence[Ends | None],
    label: str,
    references: Sequence[float | None] = (),
    reference: str = "",
    line: float | None = None,
) -> str:
    """Points with their intervals, one to a line, the first one on top.

    Args:
        labels: Of the lines.
        values: Shares in [0, 1].
        intervals: Of each, or None.
        label: Above the plot.
        references: A second value for each line, drawn as a hollow square, or nothing.
        reference: What that is.
        line: A value to compare all with, drawn as a dashed line.
    """
    figure, axes = new_figure("", height=0.75 + 0.2 * len(labels), grid="x")
    # From the left edge of the figure: beside long labels, the axes are too narrow for it.
    figure.suptitle(label, x=0.0, ha="left", color=INK, size=9.5).set_parse_math(False)
    places = list(range(len(labels)))
    for place, ends in zip(places, intervals, strict=True):
        if ends is not None and None not in ends:
            axes.plot(
                [100 * float(end or 0) for end in ends], [place, place], color=MAIN, lw=1.6, marker="|", ms=5
            )
    axes.plot(
        [100 * value for value in values],
        places,
        color=MAIN,
        ls="none",
        marker="o",
        ms=4.5,
        label="this model",
    )
    known = [
        (100 * value, place) for value, place in zip(references, places, strict=False) if value is not None
    ]
    if known:
        axes.plot(
            [value for value, _ in known], [place for _, place in known],
            color=INK, ls="none", marker="s", mfc="none", ms=5, label=short(reference, _LONGEST),
        )  # fmt: skip
        legend_below(figure, len(reference))
    if line is not None:
        axes.axvline(100 * line, color=TARGET, lw=1.1, ls=(0, (4, 3)))
    axes.set_yticks(places, [short(text) for text in labels], parse_math=False)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    return as_svg(figure, f"intervals-{label}")


def controlled_plot(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    label: str,
    across: str,
    percent: bool = True,
    bands: Mapping[str, Sequence[Ends | None]] | None = None,
) -> str:
    """Curves beside their control.

    Args:
        series: Name to points, in the order of the horizontal axis.
        label: Above the plot.
        across: What the horizontal axis shows.
        percent: Whether the values are shares, shown in percent.
        bands: Intervals of the points of some curves.
    """
    figure, axes = new_figure(label)
    scale = 100.0 if percent else 1.0
    for (name, ends), (colour, _, _) in zip((bands or {}).items(), STYLES * len(bands or {}), strict=False):
        known = [
            (place, scale * low, scale * high)
            for (place, _), (low, high) in zip(
                series[name], (pair or (None, None) for pair in ends), strict=True
            )
            if low is not None and high is not None
        ]
        if known:
            places, lows, highs = zip(*known, strict=True)
            axes.fill_between(places, lows, highs, color=colour, alpha=0.18, lw=0)
    for (name, points), (colour, dash, marker) in zip(series.items(), STYLES * len(series), strict=False):
        axes.plot(
            [place for place, _ in points],
            [scale * value for _, value in points],
            color=colour, ls=dash, marker=marker, ms=3, lw=1.4, label=short(name, _LONGEST),
        )  # fmt: skip
    axes.set_xlabel(across)
    axes.margins(y=0.12)
    if len(series) > 1:
        legend_below(figure, max(map(len, series)))
    return as_svg(figure, f"controlled-{label}")


def roc_plot(series: Mapping[str, Sequence[tuple[float, float]]], *, label: str, smallest: float) -> str:
    """True against false positive rates on two logarithmic axes (Carlini et al., 2022), with chance as a line.

    Args:
        series: Name to (false positive rate, true positive rate), in the order of the first.
        label: Above the plot.
        smallest: The smallest rate that the sample resolves; below it nothing is drawn.
    """
    figure, axes = new_figure(label, height=3.0)
    for (name, points), (colour, dash, _) in zip(series.items(), STYLES * len(series), strict=False):
        drawn = [(false, max(true, smallest)) for false, true in points if false >= smallest]
        axes.plot(
            [false for false, _ in drawn], [true for _, true in drawn],
            color=colour, ls=dash, lw=1.5, label=short(name, _LONGEST),
        )  # fmt: skip
    axes.plot([smallest, 1], [smallest, 1], color=TARGET, lw=1.1, ls=(0, (4, 3)), label="chance")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(smallest, 1)
    axes.set_ylim(smallest, 1.1)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate", color=INK, size=8.5)
    legend_below(figure, max(map(len, series)))
    return as_svg(figure, f"roc-{label}")


def _radii(axes: "Axes", radii: Sequence[float]) -> None:
    """A logarithmic axis where radii differ by much, with plain numbers."""
    if not radii or radii[0] <= 0 or radii[-1] < _WIDE * radii[0]:
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    shown: list[float] = []
    for radius in radii:
        if not shown or radius >= 1.8 * shown[-1]:  # no nearer, or their numbers would touch
            shown.append(radius)
    axes.set_xticks(shown, [f"{radius:g}" for radius in shown])
    axes.set_xticks([], minor=True)


def legend_below(figure: "MplFigure", longest: int) -> None:
    """Below the plot, where it hides no line; the figure grows by what it takes.

    Args:
        figure: With labelled lines.
        longest: Characters of the longest label.
    """
    (axes,) = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    columns = 2 if longest <= _NARROW and len(labels) > 1 else 1
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + _LINE * -(-len(labels) // columns))
    legend = figure.legend(handles, labels, loc="outside lower left", ncols=columns, **LEGEND)
    for text in legend.get_texts():
        text.set_parse_math(False)
