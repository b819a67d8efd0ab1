"""Write the tables and the plot of ``experiments/secure/README.md`` from what ``secure_costs.py`` left behind.

python experiments/secure_shown.py comparisons/secure    # record new results, then write
python experiments/secure_shown.py                       # write from ``experiments/secure/results.json`` alone
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plots import STYLES
from tables import with_block

FOLDER = Path(__file__).resolve().parent / "secure"
PARTS = ("clients", "parameters", "accuracy")
Row = Mapping[str, Any]
_HEAD = (
    "clients",
    "parameters",
    "neighbours",
    "CPU of a client, ms",
    "plain",
    "CPU of the server, s",
    "plain",
    "up a client, kB",
    "plain",
    "down a client, kB",
)


def main(arguments: Sequence[str]) -> int:
    """Record results if a folder is given, and write the README and the plot."""
    path = FOLDER / "results.json"
    if arguments:
        read = {name: json.loads((Path(arguments[0]) / f"{name}.json").read_text()) for name in PARTS}
        path.write_text(json.dumps(_rounded(read), indent=1) + "\n", encoding="utf-8")
    kept = json.loads(path.read_text(encoding="utf-8"))
    readme = FOLDER / "README.md"
    text = readme.read_text(encoding="utf-8")
    for part in PARTS:
        text = with_block(text, part, block(part, kept[part]))
    readme.write_text(text, encoding="utf-8")
    draw(kept)
    return 0


def block(part: str, rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    return _accuracies(rows) if part == "accuracy" else _costs(rows)


def _costs(rows: Sequence[Row]) -> str:
    lines = [f"| {' | '.join(_HEAD)} |", "|---" * len(_HEAD) + "|"]
    for row in rows:
        plain = row["plain"]
        lines.append(
            f"| {row['clients']:,} | {row['parameters']:,} | {row['neighbours']} | "
            f"{1e3 * row['client_seconds']:.0f} | {1e3 * plain['client_seconds']:.2f} | "
            f"{row['server_seconds']:.2f} | {plain['server_seconds']:.3f} | "
            f"{row['up_bytes'] / 1e3:,.0f} | {plain['up_bytes'] / 1e3:,.0f} | {row['down_bytes'] / 1e3:,.0f} |"
        )
    return "\n".join(lines)


def _accuracies(rows: Sequence[Row]) -> str:
    lines = ["| bits | epsilon | accuracy, %: mean (least to most) | seeds |", "|---|---|---|---|"]
    for row in rows:
        if "refused" in row:
            lines.append(f"| {row['modulus']} | | refused: {row['refused']} | |")
            continue
        reached = [100 * value for value in row["accuracy"]]
        lines.append(
            f"| {row['modulus']} | {row['epsilon']:.3f} | {np.mean(reached):.1f} ({min(reached):.1f} to "
            f"{max(reached):.1f}) | {len(reached)} |"
        )
    return "\n".join(lines)


def draw(kept: Mapping[str, Sequence[Row]]) -> None:
    """CPU and traffic beside the plain average, and accuracy against bits."""
    figure = Figure(figsize=(8.8, 6.4), layout="constrained")
    panels = figure.subplots(2, 2)
    by_clients, by_parameters = kept["clients"], kept["parameters"]
    few, many = by_clients[0]["parameters"], by_parameters[0]["clients"]
    _lines(
        panels[0][0], f"CPU of a client and round, ms ({few:,} parameters)", by_clients, "clients",
        {"secure": lambda row: 1e3 * row["client_seconds"], "plain": lambda row: 1e3 * row["plain"]["client_seconds"]},
    )  # fmt: skip
    _lines(
        panels[0][1], f"traffic of a client and round, kB ({few:,} parameters)", by_clients, "clients",
        {
            "secure, up": lambda row: row["up_bytes"] / 1e3,
            "secure, down": lambda row: row["down_bytes"] / 1e3,
            "plain, up": lambda row: row["plain"]["up_bytes"] / 1e3,
        },
    )  # fmt: skip
    _lines(
        panels[1][0], f"CPU of a client and round, ms ({many} clients)", by_parameters, "parameters",
        {"secure": lambda row: 1e3 * row["client_seconds"], "plain": lambda row: 1e3 * row["plain"]["client_seconds"]},
    )  # fmt: skip
    axes = panels[1][1]
    _plain(axes, "accuracy on Adult, %, one target for all")
    rows = [row for row in kept["accuracy"] if "refused" not in row]
    means = [100 * float(np.mean(row["accuracy"])) for row in rows]
    axes.plot([row["modulus"] for row in rows], means, color=STYLES[0][0], marker="o", ms=4.5, lw=1.4)
    for row in rows:
        reached = [100 * value for value in row["accuracy"]]
        axes.plot([row["modulus"]] * 2, [min(reached), max(reached)], color=STYLES[0][0], lw=1.0)
    for row in kept["accuracy"]:
        if "refused" in row:
            axes.axvspan(row["modulus"] - 1, row["modulus"] + 1, color="#eeeeee")
            axes.text(row["modulus"], np.mean(axes.get_ylim()), "refused", rotation=90, size=7.5, ha="center")
    axes.set_xticks([row["modulus"] for row in kept["accuracy"]])
    axes.set_xlabel("bits of the modulus", size=8.5)
    figure.savefig(
        FOLDER / "costs.png", format="png", dpi=110, facecolor="white", metadata={"Software": None}
    )


def _lines(axes: Axes, title: str, rows: Sequence[Row], along: str, series: Mapping[str, Any]) -> None:
    _plain(axes, title)
    for (name, value), (colour, dash, marker) in zip(series.items(), STYLES, strict=False):
        axes.plot(
            [row[along] for row in rows], [value(row) for row in rows],
            color=colour, ls=dash, marker=marker, ms=4.5, lw=1.4, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(along, size=8.5)
    axes.legend(frameon=False, fontsize=7.5, handlelength=3.2)


def _plain(axes: Axes, title: str) -> None:
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#777777")
    axes.tick_params(labelsize=8, length=0)
    axes.grid(axis="y", color="#dddddd", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", size=9)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
