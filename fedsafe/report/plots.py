"""The plots of a report, as SVG that takes its colours from the page.

Each function returns one ``<svg>`` element. The colours are variables of the page's style sheet, so that a
plot follows the light, dark and print themes.
"""

from collections.abc import Mapping, Sequence

from fedsafe.report.drawing import (
    INK,
    LEGEND,
    MAIN,
    SECOND,
    TARGET,
    Ends,
    as_svg,
    gaps,
    new_figure,
    note,
    short,
    whole,
)


def learning_plot(
    rounds: Sequence[int],
    values: Sequence[float | None],
    *,
    label: str,
    percent: bool = False,
    intervals: Mapping[int, tuple[float, float]] | None = None,
    anchors: Mapping[str, float] | None = None,
) -> str:
    """A metric of the global model against rounds.

    Args:
        rounds: Numbers of the rounds.
        values: One value for each round; None where it was not finite, drawn as a gap.
        label: What the vertical axis shows.
        percent: Whether the values are shares, shown in percent.
        intervals: Confidence intervals at the rounds that were assessed.
        anchors: Reference values drawn as dashed lines, by name.
    """
    figure, axes = new_figure(label)
    scale = 100.0 if percent else 1.0
    axes.plot(rounds, gaps(values, scale), color=MAIN, lw=1.6, marker="o" if len(rounds) < 3 else None, ms=4)
    for round_, (low, high) in (intervals or {}).items():
        axes.plot([round_, round_], [low * scale, high * scale], color=MAIN, lw=4, alpha=0.35)
    for name, value in (anchors or {}).items():
        axes.axhline(value * scale, color=TARGET, lw=1.1, ls=(0, (4, 3)))
        note(axes, value * scale, name)
    axes.set_xlabel("round")
    axes.margins(y=0.12)
    whole(axes.xaxis)
    return as_svg(figure, f"learning-{label}")


def spend_plot(
    rounds: Sequence[int],
    values: Sequence[float | None],
    *,
    label: str,
    planned_rounds: int | None,
    target: float | None,
) -> str:
    """Planned epsilon so far against rounds, with the target as a line.

    Args:
        rounds: Numbers of the complete rounds.
        values: Planned epsilon after each.
        label: What the vertical axis shows.
        planned_rounds: Most rounds of the plan, the end of the horizontal axis.
        target: Epsilon of the plan, or None.
    """
    figure, axes = new_figure(label)
    axes.plot([0, *rounds], [0.0, *gaps(values, 1.0)], color=MAIN, lw=1.6)
    axes.fill_between([0, *rounds], [0.0, *gaps(values, 1.0)], color=MAIN, alpha=0.12, lw=0)
    if target is not None:
        axes.axhline(target, color=TARGET, lw=1.1, ls=(0, (4, 3)))
        note(axes, target, f"target {target:.4g}")
    axes.set_xlim(0, max([1, planned_rounds or 1, *rounds]))
    axes.set_ylim(0, 1.18 * max([target or 0.0, *(value for value in values if value is not None)]) or 1.0)
    axes.set_xlabel("round of the plan")
    whole(axes.xaxis)
    return as_svg(figure, f"spend-{label}")


def bars_plot(
    labels: Sequence[str], values: Sequence[float], *, intervals: Sequence[Ends], label: str
) -> str:
    """Horizontal bars, the first one on top.

    Args:
        labels: What each bar stands for; drawn as written, never as mathematics.
        values: Length of each bar, 0 or more.
        intervals: Confidence interval of each; one with an open end is not drawn.
        label: What the bars show.
    """
    figure, axes = new_figure(label, height=0.55 + 0.2 * len(labels), grid="x")
    places = range(len(labels))
    axes.barh(places, values, height=0.62, color=MAIN, alpha=0.85)
    axes.set_yticks(places, [short(text) for text in labels], parse_math=False)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.invert_yaxis()
    for place, (low, high) in zip(places, intervals, strict=True):
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=INK, lw=1.1, marker="|", ms=4)
    axes.margins(y=0.02)
    return as_svg(figure, f"bars-{label}")


def robustness_plot(series: Mapping[str, Sequence[tuple[float, float, Ends | None]]]) -> str:
    """Accuracy against the size of a change of the input.

    Args:
        series: Name to points (size, accuracy in [0, 1], its interval or None), in the order of the size.
    """
    figure, axes = new_figure("accuracy, %")
    styles = ((MAIN, "-", "o"), (SECOND, "--", "s"), (INK, ":", "^"), (TARGET, "-.", "D"))
    for (name, points), (colour, dash, marker) in zip(series.items(), styles * len(series), strict=False):
        radii = [radius for radius, _, _ in points]
        shares = [100 * value for _, value, _ in points]
        label = short(name, 40)
        axes.plot(radii, shares, color=colour, ls=dash, marker=marker, ms=3.5, lw=1.4, label=label)
        bands = [(radius, ends) for radius, _, ends in points if ends and None not in ends]
        axes.fill_between(
            [radius for radius, _ in bands],
            [100 * float(ends[0] or 0) for _, ends in bands],
            [100 * float(ends[1] or 0) for _, ends in bands],
            color=colour,
            alpha=0.15,
            lw=0,
        )
    axes.set_xlabel("size of the change, in units of the encoded features")
    axes.locator_params(axis="x", nbins=6)
    axes.set_ylim(0, 100)
    for text in axes.legend(**LEGEND).get_texts():
        text.set_parse_math(False)
    return as_svg(figure, "robustness")


def quantiles_plot(quantiles: Sequence[float], *, label: str) -> str:
    """How a share is spread over clients, as a box.

    Args:
        quantiles: Shares in [0, 1] at the quantiles 0, 10, 25, 50, 75, 90 and 100 % of the clients.
        label: What the box shows.
    """
    least, tenth, lower, median, upper, ninetieth, most = (100 * value for value in quantiles)
    figure, axes = new_figure(label, height=1.3, grid="x")
    axes.spines["left"].set_visible(False)
    axes.plot([least, most], [0, 0], color=MAIN, lw=1.1)
    axes.plot([tenth, ninetieth], [0, 0], color=MAIN, lw=7, alpha=0.35, solid_capstyle="butt")
    axes.plot([lower, upper], [0, 0], color=MAIN, lw=15, alpha=0.75, solid_capstyle="butt")
    axes.plot([median, median], [-0.55, 0.55], color=INK, lw=2)
    axes.plot([least, most], [0, 0], color=MAIN, ls="none", marker="|", ms=11, mew=1.3)
    axes.annotate(
        f"median {median:.1f}",
        (median, 0.6),
        ha="center",
        va="bottom",
        color=INK,
        size=8.5,
        parse_math=False,
    )
    axes.set_ylim(-1, 1.5)
    axes.set_yticks([])
    return as_svg(figure, f"quantiles-{label}")


def whisker(
    value: float | None,
    ends: Ends | None,
    *,
    low: float,
    high: float,
    anchors: Sequence[float] = (),
) -> str:
    """A value with its interval on a small axis from `low` to `high`; hatched where nothing was measured.

    Args:
        value: The value, or None.
        ends: Ends of the interval, or None; an open end runs to the edge.
        low: Left edge of the axis.
        high: Right edge of the axis.
        anchors: Reference values, drawn as ticks.
    """
    width, middle = 190.0, 8.0

    def at(place: float) -> float:
        inside = min(max(place, low), high)
        return 3.0 + (width - 6.0) * ((inside - low) / (high - low) if high > low else 0.5)

    parts = [f'<line class="axis" x1="3" x2="{width - 3:g}" y1="{middle:g}" y2="{middle:g}"/>']
    if value is None:
        parts = ['<rect class="empty" x="3" y="4" width="184" height="8" rx="2"/>']
    else:
        parts += [
            f'<line class="anchor" x1="{at(place):.1f}" x2="{at(place):.1f}" y1="3" y2="13"/>'
            for place in anchors
        ]
        if ends is not None:
            left, right = (
                at(edge if end is None else end) for end, edge in zip(ends, (low, high), strict=True)
            )
            parts.append(f'<line class="bar" x1="{left:.1f}" x2="{right:.1f}" y1="8" y2="8"/>')
            parts += [
                f'<line class="cap" x1="{x:.1f}" x2="{x:.1f}" y1="4.5" y2="11.5"/>' for x in (left, right)
            ]
        parts.append(f'<circle class="dot" cx="{at(value):.1f}" cy="8" r="2.3"/>')
    return f'<svg class="whisker" viewBox="0 0 190 16" aria-hidden="true">{"".join(parts)}</svg>'
