"""The plot of a grid under attack: what each rule keeps under its worst attack, against the share of adversaries."""

from collections.abc import Mapping, Sequence

from fedsafe.report.area_plots import legend_below
from fedsafe.report.drawing import INK, MAIN, SECOND, TARGET, Ends, as_svg, new_figure, short

# Told apart by line and marker, so that a grey print reads as well.
STYLES = (
    (MAIN, "-", "o"),
    (SECOND, "--", "s"),
    (INK, ":", "^"),
    (TARGET, "-.", "D"),
    (MAIN, (0, (1, 1)), "v"),
    (SECOND, (0, (5, 1, 1, 1, 1, 1)), "P"),
    (INK, "-", "X"),
    (TARGET, "--", "*"),
)


def worst_plot(
    series: Mapping[str, Sequence[tuple[float, float, Ends]]], *, label: str, percent: bool, name: str
) -> str:
    """What is left under the worst attack.

    Args:
        series: Rule to points (share, value, its interval), in the order of the share.
        label: What the vertical axis shows.
        percent: Whether values are shares, shown in percent.
        name: Tells the plots of a page apart.
    """
    figure, axes = new_figure(f"{label}, %" if percent else label, height=3.0)
    scale = 100.0 if percent else 1.0
    count = max(1, len(series))
    for place, ((rule, points), (colour, dash, marker)) in enumerate(
        zip(series.items(), STYLES * (1 + count // len(STYLES)), strict=False)
    ):
        # Side by side, so that intervals do not hide each other.
        shift = 0.25 * (place - (count - 1) / 2)
        shares = [100 * share + shift for share, _, _ in points]
        values = [scale * value for _, value, _ in points]
        axes.plot(shares, values, color=colour, ls=dash, marker=marker, ms=4, lw=1.3, label=short(rule, 40))
        for x, (_, _, (low, high)) in zip(shares, points, strict=True):
            if low is not None and high is not None:
                axes.plot([x, x], [scale * low, scale * high], color=colour, lw=1.0)
    axes.set_xlabel("adversaries, % of the clients")
    axes.margins(y=0.1)
    if series:
        legend_below(figure, max(map(len, series)))
    return as_svg(figure, f"byzantine-{name}")
