"""What each client of a partition holds: a table, a text and a picture.

These are exact figures about the clients' records. They are for simulations on public data, and for the
owner of the data; they are no private release.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.dataset import Examples, Task
from fedsafe.data.federate import Federated
from fedsafe.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

Parts = Sequence[NDArray[np.int64]]

_TARGET_BINS, _TOKENS, _NAMED = 5, 8, 24
_FORMATS = (".png", ".svg", ".pdf")
_HEADINGS = {"label": "Labels", "token": "Tokens"}
_INK, _QUIET = "#22303c", "#8a97a3"
_HUES = (
    "#3b6ea8", "#e08a3c", "#5a9e6f", "#b5566b", "#7d6bb0", "#4aa3a8", "#c2a83e", "#8c6d5a", "#9aa5b1", "#d48fb0",
)  # fmt: skip


def describe(task: Task, parts: Parts) -> "pd.DataFrame":
    """One row per client: its records, the shares of its targets, and the share of each group.

    Args:
        task: The task.
        parts: Indices into the training records, as :func:`fedsafe.data.partition` gives them.

    Returns:
        A frame indexed by ``client`` with ``records``, the targets, and ``<group column>=<group>``. The targets are
        ``label=<class>``; for a regression, intervals of equal width between the target's public bounds; for next
        tokens, the most frequent ones and the rest. Shares of the targets, and of one group column, sum to 1.

    Raises:
        DataError: If there is no client, or one has no record.
    """
    import pandas as pd

    if not len(parts) or not all(len(part) for part in parts):
        raise DataError("A description needs at least one client, each with at least one record.")
    frame = pd.DataFrame({"records": [len(part) for part in parts]}, dtype=np.int64)
    frame.index.name = "client"
    for attribute in _attributes(task, task.train):
        shares = np.stack([attribute.shares(part) for part in parts])
        for name, column in zip(attribute.columns, shares.T, strict=True):
            frame[name] = column
    return frame


def summary_text(task: Task, parts: Parts) -> str:
    """A few lines on how records, targets and groups are spread.

    Raises:
        DataError: If there is no client, or one has no record.
    """
    frame = describe(task, parts)
    records = frame["records"]
    evaluation = f"{len(task.evaluation):,} for evaluation ({task.evaluation_name})"
    spread = f"{records.min():,} to {records.max():,} records, median {records.median():,.0f}"
    lines = [
        f"{task.name}: {int(records.sum()):,} training records, {evaluation}, {_inputs(task)}",
        f"{len(frame):,} clients with {spread}",
    ]
    width = max(len(name) for name in frame.columns)
    lines.append(f"{'share of':<{width}}  {'all':>6}  {'client 5 %':>10}  {'median':>6}  {'95 %':>6}")
    for name in frame.columns[1:]:
        low, middle, high = np.quantile(frame[name], (0.05, 0.5, 0.95))
        overall = float(np.average(frame[name], weights=records))
        lines.append(f"{name:<{width}}  {overall:6.1%}  {low:10.1%}  {middle:6.1%}  {high:6.1%}")
    return "\n".join(lines)


def federation_text(cut: Federated) -> str:
    """:func:`summary_text` of what the clients hold, and a line on each thing that a federation adds to it.

    Raises:
        DataError: If there is no client.
    """
    lines = [summary_text(cut.task, holdings(cut))]
    if cut.names is not None:
        sizes = [len(part) for part in holdings(cut)]
        largest = sorted(range(len(sizes)), key=lambda client: -sizes[client])[:3]
        lines.append(
            "largest clients: " + ", ".join(f"{cut.names[k]} ({sizes[k]:,} records)" for k in largest)
        )
    if cut.unseen is not None:
        lines.append(
            f"{len(cut.unseen):,} records more belong to held-out clients, who take no part in training"
        )
    kept = sum(map(len, cut.validation))
    if kept:
        lines.append(f"{kept:,} of the training records are kept by their clients for their own validation")
    return "\n".join(lines)


def holdings(cut: Federated) -> list[NDArray[np.int64]]:
    """Sorted rows of the training records that each client holds, for training or for its own validation."""
    return [np.sort(np.concatenate(both)) for both in zip(cut.records, cut.validation, strict=True)]


def draw(task: Task, parts: Parts, path: Path, names: Sequence[str] | None = None) -> Path:
    """A picture of the partition: client sizes, targets per client, and how groups spread over clients.

    Args:
        task: The task.
        parts: Indices into the training records.
        path: The file to write, named ``*.png``, ``*.svg`` or ``*.pdf``; missing folders are made.
        names: What the clients are called; written at the axes if there are few.

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
    shown = list(names) if names is not None and len(frame) <= _NAMED else None
    attributes = _attributes(task, task.train)
    _draw_sizes(figure.add_subplot(grid[0, 0]), frame, shown)
    _draw_targets(figure.add_subplot(grid[1, 0]), frame, attributes[0], shown)
    if grouped:
        _draw_groups(figure.add_subplot(grid[:, 1]), frame, attributes[1:])
    title = f"{task.name}: {int(frame['records'].sum()):,} records over {len(frame):,} clients"
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=_INK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=suffix.removeprefix("."))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


@dataclass(frozen=True)
class _Attribute:
    """Something that records have: the number of its value, for each record (and position), and the values' names."""

    title: str
    codes: NDArray[np.int64]
    names: Sequence[str]

    @property
    def columns(self) -> list[str]:
        return [f"{self.title}={name}" for name in self.names]

    def shares(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        counts = np.bincount(self.codes[rows].ravel(), minlength=len(self.names))
        return np.asarray(counts / counts.sum(), np.float64)


def _attributes(task: Task, examples: Examples) -> list[_Attribute]:
    """The targets, then each group column."""
    found = [_targets(task, examples.y)]
    for name, values in examples.groups.items():
        groups, codes = np.unique(values, return_inverse=True)
        found.append(_Attribute(name, codes, [str(group) for group in groups]))
    return found


def _targets(task: Task, y: NDArray[np.int64]) -> _Attribute:
    if task.target is not None:
        edges = np.linspace(task.target.low, task.target.high, _TARGET_BINS + 1)
        names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        return _Attribute(task.target.name, np.digitize(task.target.decode(y), edges[1:-1]), names)
    if task.kind == "next_token":
        often = np.argsort(-np.bincount(y.ravel(), minlength=len(task.classes)), kind="stable")[:_TOKENS]
        place = np.full(len(task.classes), len(often))
        place[often] = np.arange(len(often))
        return _Attribute("token", place[y], [*(repr(task.classes[token]) for token in often), "others"])
    return _Attribute("label", y, task.classes)


def _inputs(task: Task) -> str:
    if task.schema.vocabulary is not None:
        return f"windows of {task.features} tokens out of {task.schema.vocabulary}"
    shape = task.schema.shape
    return f"{task.features} features" if len(shape) == 1 else f"inputs of {' x '.join(map(str, shape))}"


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


def _draw_sizes(axes: "Axes", frame: "pd.DataFrame", names: list[str] | None) -> None:
    order = np.argsort(-frame["records"].to_numpy(), kind="stable")
    sizes = frame["records"].to_numpy(dtype=np.float64)[order]
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
    _name(axes, names, order)


def _draw_targets(axes: "Axes", frame: "pd.DataFrame", targets: _Attribute, names: list[str] | None) -> None:
    columns = targets.columns
    order = frame.reset_index(drop=True).sort_values(columns[::-1], kind="stable").index.to_numpy()
    shares = frame[columns].to_numpy(dtype=np.float64)[order]
    base = np.zeros(len(shares))
    for code in reversed(range(len(columns))):
        top = base + shares[:, code]
        x, low = _edges(base)
        hue = _HUES[code % len(_HUES)]
        axes.fill_between(
            x, low, _edges(top)[1], step="post", color=hue, linewidth=0, label=targets.names[code]
        )
        base = top
    axes.set_xlim(0, len(shares))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=min(len(columns), 5), frameon=False, fontsize=8,
        labelcolor=_INK, borderpad=0, handlelength=1, columnspacing=1,
    )  # fmt: skip
    heading = _HEADINGS.get(targets.title, f"Target: {targets.title}")
    by = (
        f"clients, by share of {targets.names[-1]}"
        if targets.title in _HEADINGS
        else "clients, by their targets"
    )
    _style(axes, heading, by, "share of the client's records")
    _name(axes, names, order)


def _name(axes: "Axes", names: list[str] | None, order: NDArray[np.int64]) -> None:
    if names is not None:
        axes.set_xticks(
            np.arange(len(order)) + 0.5, [names[client] for client in order], rotation=30, ha="right"
        )


def _draw_groups(axes: "Axes", frame: "pd.DataFrame", groups: list[_Attribute]) -> None:
    ticks, names, y = [], [], 0.0
    weights = frame["records"]
    for position, group in enumerate(groups):
        hue = _HUES[(position + 2) % len(_HUES)]
        axes.text(0, y, group.title, fontsize=10, fontweight="bold", color=_INK, va="center")
        y += 1
        for value, column in zip(group.names, group.columns, strict=True):
            share = frame[column]
            low, high = np.quantile(share, (0.05, 0.95))
            axes.barh(y, float(np.average(share, weights=weights)), height=0.62, color=hue, alpha=0.45)
            axes.plot((low, high), (y, y), color=_INK, linewidth=1.4, solid_capstyle="round")
            ticks.append(y)
            names.append(value)
            y += 1
        y += 0.4
    axes.set_yticks(ticks, names)
    axes.set_ylim(y - 0.4, -0.8)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _style(axes, "Groups", "bar: share of all records; line: 5 % to 95 % of clients", "")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, colors=_INK)
