"""The plot of ``fedsafe budget``: epsilon along the run, and against noise."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedsafe.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fedsafe.privacy.planner import Plan

_POINTS = 12
_FORMATS = (".svg", ".png", ".pdf")


def draw(plans: "Sequence[Plan]", path: Path) -> None:
    """Write a row of two plots for each level.

    Args:
        plans: Complete ones.
        path: Where to; its ending is the format.

    Raises:
        ConfigError: The ending is not that of a picture.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"--plot {path} has no format that can be drawn: end it in {', '.join(_FORMATS)}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2 * len(plans)), layout="constrained")
    axes = figure.subplots(len(plans), 2, squeeze=False)
    for (along, against), plan in zip(axes, plans, strict=True):
        _along(along, plan)
        _against_noise(against, plan)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _along(axes: "Axes", plan: "Plan") -> None:
    from fedsafe.privacy.accounting import COARSE, account

    release = plan.question.release()
    counts = sorted({max(1, round(release.count * step / _POINTS)) for step in range(1, _POINTS + 1)})
    bounds = [
        account([replace(release, count=n)], plan.question.delta, interval=COARSE).epsilon for n in counts
    ]
    axes.plot([0, *counts], [0.0, *bounds], marker="o", markersize=3)
    what = "steps of one client" if plan.question.unit == "record" else "rounds"
    axes.set(
        xlabel=what, ylabel="epsilon", title=f"{plan.question.unit} level, delta {plan.question.delta:g}"
    )
    axes.set_ylim(bottom=0.0)


def _against_noise(axes: "Axes", plan: "Plan") -> None:
    from fedsafe.privacy.accounting import COARSE, account

    release, noise = plan.question.release(), plan.question.noise or 1.0
    values = [noise * 2.0 ** (step / (_POINTS / 3) - 1.0) for step in range(_POINTS + 1)]
    bounds = [
        account([replace(release, noise=n)], plan.question.delta, interval=COARSE).epsilon for n in values
    ]
    axes.loglog(values, bounds, marker="o", markersize=3)
    axes.plot([noise], [plan.accounted.epsilon], marker="o", color="black")
    axes.set(xlabel="noise multiplier", ylabel="epsilon", title=f"after {release.count}")
