"""The plot of ``fedsafe budget``: epsilon along the run, and against noise."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsafe.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fedsafe.privacy.planner import Plan

_POINTS = 12
_FORMATS = (".svg", ".png", ".pdf")


def require_place(path: Path) -> None:
    """Refuse a file that could not be written, before anything is computed.

    Raises:
        ConfigError: The ending is not that of a picture, or there is no such folder.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--plot {path} has no format that can be drawn: end it in {', '.join(_FORMATS)}")
    if path.is_dir():
        raise ConfigError(f"--plot {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot {path} is in a folder that does not exist: make {path.parent} first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"--plot {path} cannot be written: name a file in a folder of yours")


def draw(plans: "Sequence[Plan]", path: Path) -> None:
    """Write a row of two plots for each level.

    Args:
        plans: Complete ones.
        path: Where to; its ending is the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2 * len(plans)), layout="constrained")
    axes = figure.subplots(len(plans), 2, squeeze=False)
    for (along, against), plan in zip(axes, plans, strict=True):
        _along(along, plan)
        _against_noise(against, plan)
    figure.savefig(path)


def _along(axes: "Axes", plan: "Plan") -> None:
    from fedsafe.privacy.accounting import COARSE

    asked = plan.question
    counts = sorted({max(1, round(asked.count * step / _POINTS)) for step in range(1, _POINTS + 1)})
    # The same levels of sampling and noise, as long as that: steps at a client, rounds of the server.
    length: dict[str, Any] = {"steps": None, "per_round": None, "epochs": None, "rounds": None}
    if asked.unit == "record":
        length["participation"] = None
    key = "steps" if asked.unit == "record" else "rounds"
    bounds = [replace(asked, **{**length, key: n}).cost(COARSE) for n in counts]
    axes.plot([0, *counts], [0.0, *bounds], marker="o", markersize=3)
    what = "steps of one client" if plan.question.unit == "record" else "rounds"
    axes.set(
        xlabel=what, ylabel="epsilon", title=f"{plan.question.unit} level, delta {plan.question.delta:g}"
    )
    axes.set_ylim(bottom=0.0)


def _against_noise(axes: "Axes", plan: "Plan") -> None:
    from fedsafe.privacy.accounting import COARSE

    asked, noise = plan.question, plan.question.noise or 1.0
    values = [noise * 2.0 ** (step / (_POINTS / 3) - 1.0) for step in range(_POINTS + 1)]
    bounds = [replace(asked, noise=n).cost(COARSE) for n in values]
    axes.loglog(values, bounds, marker="o", markersize=3)
    axes.plot([noise], [plan.epsilon], marker="o", color="black")
    axes.set(xlabel="noise multiplier", ylabel="epsilon", title=f"after {asked.count}")
