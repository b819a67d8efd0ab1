"""What each client of a partition holds: a table, a text and a picture.

These are exact figures about the clients' records. They are for simulations on public data, and for the
owner of the data; they are no private release.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.dataset import Examples, Task
from fedsafe.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Parts = Sequence[NDArray[np.int64]]

_FORMATS = (".png", ".svg", ".pdf")
_INK, _QUIET = "#22303c", "#8a97a3"
_HUES = (
    "#3b6ea8", "#e08a3c", "#5a9e6f", "#b5566b", "#7d6bb0", "#4aa3a8", "#c2a83e", "#8c6d5a", "#9aa5b1", "#d48fb0",
)  # fmt: skip


def describe(task: Task, parts: Parts) -> "pd.DataFrame":
    """One row per client: its records, the share of each label, and the share of each group.

    Args:
        task: The task.
        parts: Indices into the training records, as :func:`fedsafe.data.partition` gives them.

    Returns:
        A frame indexed by ``client`` with ``records``, ``label=<class>`` and ``<group column>=<group>``;
        shares of one label or group column sum to 1.

    Raises:
        DataError: If there is no client, or one has no record.
    """
    import pandas as pd

    if not len(parts) or not all(len(part) for part in parts):
        raise DataError("A description needs at least one client, each with at least one record.")
    frame = pd.DataFrame({"records": [len(part) for part in parts]}, dtype=np.int64)
    frame.index.name = "client"
    for title, values, names in _attributes(task, task.train):
        counts = np.stack([(values[part][:, None] == names).sum(axis=0) for part in parts])
        shares = counts / frame["records"].to_numpy()[:, None]
        for name, column in zip(names, shares.T, strict=True):
            frame[f"{title}={name}"] = column
    return frame


def summary_text(task: Task, parts: Parts) -> str:
    """A few lines on how records, labels and groups are spread.

    Raises:
        DataError: If there is no client, or one has no record.
    """
    frame = describe(task, parts)
    records = frame["records"]
    evaluation = f"{len(task.evaluation):,} for evaluation ({task.evaluation_name})"
    spread = f"{records.min():,} to {records.max():,} records, median {records.median():,.0f}"
    lines = [
        f"{task.name}: {int(records.sum()):,} training records, {evaluation}, {task.features} features",
        f"{len(frame):,} clients with {spread}",
    ]
    width = max(len(name) for name in frame.columns)
    lines.append(f"{'share of':<{width}}  {'all':>6}  {'client 5 %':>10}  {'median':>6}  {'95 %':>6}")
    for name in frame.columns[1:]:
        low, middle, high = np.quantile(frame[name], (0.05, 0.5, 0.95))
        overall = float(np.average(frame[name], weights=records))
        lines.append(f"{name:<{width}}  {overall:6.1%}  {low:10.1%}  {middle:6.1%}  {high:6.1%}")
    return "\n".join(lines)


def draw(task: Task, parts: Parts, path: Path) -> Path:
    """A picture of the partition: client sizes, labels per client, and how groups spread over clients.

    Args:
        task: The task.
        parts: Indices into the training records.
        path: The file to write, named ``*.png``, ``*.svg`` or ``*.pdf``; missing folders are made.

    Returns:
        ``path``.

    Raises:
        ConfigError: If the file's name ends otherwise.
        DataError: If there is no client, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise ConfigError(f"{path} is no picture: use a name that ends in .png (or .svg, .pdf).")
    frame = describe(task, parts)
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(11.0, 6.4), dpi=150, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    grouped = bool(task.train.groups)
    grid = figure.add_gridspec(2, 2 if grouped else 1, width_ratios=(3, 2) if grouped else None)
    _draw_sizes(figure.add_subplot(grid[0, 0]), frame)
    _draw_labels(figure.add_subplot(grid[1, 0]), frame, task)
    if grouped:
        _draw_groups(figure.add_subplot(grid[:, 1]), frame, task)
    title = f"{task.name}: {int(frame['records'].sum()):,} records over {len(frame):,} clients"
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=_INK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=suffix.removeprefix("."))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def _attributes(task: Task, examples: Examples) -> list[tuple[str, NDArray[np.str_], NDArray[np.str_]]]:
    """``(title, value of each record, all values)`` of the label and of each group column."""
    classes = np.array(task.classes, dtype=np.str_)
    groups = [(name, values, np.unique(values)) for name, values in examples.groups.items()]
    return [("label", classes[examples.y], classes), *groups]


def _style(axes: "Axes", title: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.set_xlabel(xlabel, color=_QUIET, fontsize=9)
    axes.set_ylabel(ylabel, color=_QUIET, fontsize=9)
    axes.tick_params(colors=_QUIET, labelsize=8, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#d5dbe0")


def _edges(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps of width 1, one per client, the last repeated so that it is drawn to its end."""
    return np.arange(len(values) + 1), np.append(values, values[-1])


def _draw_sizes(axes: "Axes", frame: "pd.DataFrame") -> None:
    sizes = np.sort(frame["records"].to_numpy(dtype=np.float64))[::-1]
    median = float(np.median(sizes))
    x, height = _edges(sizes)
    axes.fill_between(x, height, step="post", color=_HUES[0], linewidth=0)
    axes.axhline(median, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"median {median:,.0f}", (len(sizes), median), (-4, 4), textcoords="offset points", ha="right",
        fontsize=9, color=_INK,
    )  # fmt: skip
    axes.set_xlim(0, len(sizes))
    axes.set_ylim(0, sizes[0] * 1.06)
    _style(axes, "Records per client", "clients, largest first", "records")


def _draw_labels(axes: "Axes", frame: "pd.DataFrame", task: Task) -> None:
    columns = [f"label={name}" for name in task.classes]
    shares = frame[columns].sort_values(columns[::-1]).to_numpy(dtype=np.float64)
    base = np.zeros(len(shares))
    for code in reversed(range(len(columns))):
        top = base + shares[:, code]
        x, low = _edges(base)
        hue = _HUES[code % len(_HUES)]
        name = task.classes[code]
        axes.fill_between(x, low, _edges(top)[1], step="post", color=hue, linewidth=0, label=name)
        base = top
    axes.set_xlim(0, len(shares))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=min(len(columns), 5), frameon=False, fontsize=8,
        labelcolor=_INK, borderpad=0, handlelength=1, columnspacing=1,
    )  # fmt: skip
    _style(axes, "Labels", f"clients, by share of {task.classes[-1]}", "share of the client's records")


def _draw_groups(axes: "Axes", frame: "pd.DataFrame", task: Task) -> None:
    ticks, names, y = [], [], 0.0
    weights = frame["records"]
    for position, (title, _, values) in enumerate(_attributes(task, task.train)[1:]):
        hue = _HUES[(position + 2) % len(_HUES)]
        axes.text(0, y, title, fontsize=10, fontweight="bold", color=_INK, va="center")
        y += 1
        for value in values:
            share = frame[f"{title}={value}"]
            low, high = np.quantile(share, (0.05, 0.95))
            axes.barh(y, float(np.average(share, weights=weights)), height=0.62, color=hue, alpha=0.45)
            axes.plot((low, high), (y, y), color=_INK, linewidth=1.4, solid_capstyle="round")
            ticks.append(y)
            names.append(str(value))
            y += 1
        y += 0.4
    axes.set_yticks(ticks, names)
    axes.set_ylim(y - 0.4, -0.8)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _style(axes, "Groups", "bar: share of all records; line: 5 % to 95 % of clients", "")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, colors=_INK)
