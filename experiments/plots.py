"""The plots of the READMEs of experiments: measures against the budget, and clients beside each other, as small PNGs.

Series differ in marker and dash besides colour, so that they can be told apart in grey.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Dark to light, so that the order survives a grey printer; after Okabe and Ito (2008).
STYLES = (
    ("#1b1b1b", "-", "o"),
    ("#0072b2", (0, (5, 1.5)), "s"),
    ("#d55e00", (0, (1.2, 1.2)), "^"),
    ("#009e73", (0, (4, 1, 1, 1)), "D"),
    ("#cc79a7", (0, (7, 2)), "v"),
    ("#7a7a7a", (0, (2, 2)), "X"),
    ("#56b4e9", (0, (6, 1, 1, 1, 1, 1)), "P"),
    ("#b8860b", (0, (3, 1)), "*"),
    ("#444444", (0, (1, 3)), "<"),
)
Point = Mapping[str, Any]


def budgets_plot(
    path: Path,
    panels: Sequence[tuple[str, Mapping[str, Sequence[Point]]]],
    unit: str,
) -> None:
    """Measures against the budget, side by side, with intervals.

    Args:
        path: Of the PNG.
        panels: Title, and name to points with ``epsilon``, ``value``, ``low`` and ``high``, as shares.
        unit: What the horizontal axes show.
    """
    figure = Figure(figsize=(4.4 * len(panels), 3.5), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, series) in zip(every, panels, strict=True):
        _prepare(axes, title)
        names = list(dict.fromkeys(point["epsilon"] for points in series.values() for point in points))
        numbered = sorted((name for name in names if name != "inf"), key=float)
        places = {name: float(place) for place, name in enumerate(numbered)}
        if "inf" in names:
            places["inf"] = len(numbered) + 0.3
            axes.axvline(len(numbered) - 0.35, color="#999999", lw=0.8, ls=(0, (2, 3)))
        for number, (name, points) in enumerate(series.items()):
            colour, dash, marker = STYLES[number % len(STYLES)]
            shift = 0.07 * (number - (len(series) - 1) / 2)
            known = sorted(
                (point for point in points if point["value"] is not None), key=lambda p: float(p["epsilon"])
            )
            finite = [point for point in known if point["epsilon"] != "inf"]
            at = [places[point["epsilon"]] + shift for point in known]
            axes.plot(
                at[: len(finite)], [100 * point["value"] for point in finite], color=colour, ls=dash, lw=1.4
            )
            axes.plot(
                at, [100 * point["value"] for point in known], color=colour, marker=marker, ms=4.5, ls="none"
            )
            axes.plot([], [], color=colour, ls=dash, marker=marker, ms=4.5, lw=1.4, label=name)
            for place, point in zip(at, known, strict=True):
                if point["low"] is not None:
                    axes.plot([place, place], [100 * point["low"], 100 * point["high"]], color=colour, lw=1.0)
        axes.set_xticks(list(places.values()), ["no\nprivacy" if name == "inf" else name for name in places])
        axes.set_xlabel(unit, size=8.5)
        if len(series) > 1:
            # Below, where no curve is.
            axes.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.24),
                frameon=False,
                fontsize=7.5,
                ncols=2,
                handlelength=3.2,
            )
    _write(figure, path)


def clients_plot(
    path: Path, title: str, names: Sequence[str], series: Mapping[str, Mapping[str, Point]]
) -> None:
    """Ways beside each other for each client, with intervals; clients from top to bottom.

    Args:
        path: Of the PNG.
        title: What is shown.
        names: The clients, with their labels.
        series: Name of a way to each client's ``value``, ``low`` and ``high``, as shares.
    """
    figure = Figure(figsize=(5.4, 0.9 + len(names) * (0.15 + 0.13 * len(series))), layout="constrained")
    axes = figure.subplots()
    _prepare(axes, title, along="x")
    for number, (name, by_client) in enumerate(series.items()):
        colour, dash, marker = STYLES[number % len(STYLES)]
        shift = 0.2 * (number - (len(series) - 1) / 2)
        for place, client in enumerate(names):
            point = by_client[client]
            height = place + shift
            axes.plot(
                [100 * point["low"], 100 * point["high"]], [height, height], color=colour, lw=1.1, ls=dash
            )
            axes.plot([100 * point["value"]], [height], color=colour, marker=marker, ms=4.5, ls="none")
        axes.plot([], [], color=colour, ls=dash, marker=marker, ms=4.5, lw=1.1, label=name)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    figure.legend(
        loc="outside lower center", frameon=False, fontsize=8, ncols=min(4, len(series)), handlelength=3.2
    )
    _write(figure, path)


def _prepare(axes: Axes, title: str, along: str = "y") -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side == ("bottom" if along == "y" else "left"))
        spine.set_color("#777777")
    axes.tick_params(labelsize=8, length=0)
    axes.grid(axis=along, color="#dddddd", lw=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", size=9)
    axes.margins(0.05, 0.1)


def _write(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="png", dpi=110, facecolor="white", metadata={"Software": None})
