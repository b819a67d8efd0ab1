"""What every plot of a page is made with: a figure, and its SVG with the colours of the page's style sheet.

Text stays text, and nothing here touches pyplot, or global state beyond the block that saves a figure.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Stand-ins that matplotlib accepts, each replaced by a variable of the style sheet in the finished SVG.
INK, MUTED, GRID, MAIN, SECOND, TARGET = (f"#0a0b{code:02x}" for code in range(6))
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--rule",
    MAIN: "--main",
    SECOND: "--second",
    TARGET: "--target",
}
LEGEND = {"frameon": False, "fontsize": 8, "labelcolor": MUTED}

Ends = tuple[float | None, float | None]


def new_figure(title: str, *, height: float = 2.5, grid: str = "y") -> "tuple[Figure, Axes]":
    """An empty figure in the style of the page.

    Args:
        title: Above it, on the left; drawn as written, never as mathematics.
        height: In inches; the width is 4.6.
        grid: Axis with grid lines, "x" or "y".
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, height), layout="constrained")
    axes = figure.subplots()
    for side, spine in axes.spines.items():
        spine.set_visible(side == ("bottom" if grid == "y" else "left"))
        spine.set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.grid(axis="x" if grid == "x" else "y", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=MUTED, size=8.5)
    axes.set_title(title, loc="left", color=INK, size=9.5, parse_math=False)
    return figure, axes


def as_svg(figure: "Figure", name: str) -> str:
    """One ``<svg>`` element, the same bytes each time, with identifiers of its own and the page's colours."""
    import matplotlib

    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    text = io.StringIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": slug}),
        warnings.catch_warnings(),
    ):
        # the browser draws the text, with fonts of its own
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r'\1 aria-hidden="true" class="plot"', svg, count=1
    )
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{slug}-\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{slug}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.strip()


def gaps(values: Sequence[float | None], scale: float) -> list[float]:
    """Values times a scale; NaN, which is drawn as a gap, where there is none."""
    return [float("nan") if value is None else value * scale for value in values]


def note(axes: "Axes", height: float, text: str) -> None:
    """Writes beside a horizontal line, at its right end."""
    axes.annotate(
        text,
        xy=(1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=TARGET,
        size=8,
        parse_math=False,
    )


def whole(axis: "Axis") -> None:
    """Puts ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))


def short(text: str, limit: int = 28) -> str:
    """The text, cut to so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
