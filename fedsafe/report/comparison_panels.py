"""Which series of a comparison share an axis, and what stands on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsafe.report import formats
from fedsafe.report.comparison_reading import ordered, series_name

_BETTER = {"higher": "higher is better", "lower": "lower is better", "none": "no direction is better"}


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        title: In words.
        about: What is measured.
        svg: The plot.
        reading: One sentence.
        claim: What an epsilon on its axis says, in short; "" where no axis has one.
    """

    title: str
    about: str
    svg: str
    reading: str
    claim: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Series whose budgets share an axis.

    Attributes:
        title: What tells it from other panels; "" where there is one.
        unit: What a budget on the axis is, short enough to stand below it.
        claim: What stands above every axis: unit, delta, adjacency and adversary; whether budgets are simulated.
        differs: What sets its claims apart from those of the first panel, in words; "" of the first.
        axis: Its claims, for the text.
        others: Levels that stay as they are, in words.
        series: What is drawn on it.
    """

    title: str
    unit: str
    claim: str
    differs: str
    axis: list[dict[str, Any]]
    others: list[str]
    series: list[Mapping[str, str]]


def panels_of(body: Mapping[str, Any]) -> list[Panel]:
    """The axes of a comparison; see `fedsafe.runs.comparison_costs.panels`."""
    panels = body["settings"]["panels"]
    simulated = "simulated, no guarantee: " if body["settings"]["reproducible"] else ""
    found = []
    for place, panel in enumerate(panels):
        claims = [claim for claim in body["axis"] if claim["panel"] == place]
        short = [
            f"epsilon per {claim['unit']} at delta {formats.delta(claim['delta'])}, "
            f"{claim['adjacency'].partition(' (')[0]} adjacency, against {claim['adversary']}"
            for claim in claims
        ]
        named = "; ".join(series_name(series) for series in panel["series"])
        found.append(
            Panel(
                title=named if len(panels) > 1 else "",
                unit=f"epsilon per {' and per '.join(panel['units'])}; lower protects more",
                claim=f"{simulated}{'; '.join(short)}",
                differs=panel["differs"],
                axis=[{**claim, "delta": formats.delta(claim["delta"])} for claim in claims],
                others=[_other(level) for level in panel["other"]],
                series=panel["series"],
            )
        )
    return found


def _other(level: Mapping[str, Any]) -> str:
    target = "off" if level["epsilon"] == "inf" else f"at epsilon {level['epsilon']}"
    return f"the {level['unit']} level stays {target} in every run"


def by_series(
    body: Mapping[str, Any], curve: Mapping[str, Any], series: Sequence[Mapping[str, str]] | None = None
) -> dict[str, list[Mapping[str, Any]]]:
    """Points of a curve by the name of their series, in the order of their budgets."""
    order = ordered(body["settings"]["epsilons"])
    return {
        series_name(one): sorted(
            (_inside(point, curve) for point in curve["points"] if point["series"] == one),
            key=lambda point: order.index(point["epsilon"]),
        )
        for one in (body["settings"]["series"] if series is None else series)
    }


def _inside(point: Mapping[str, Any], curve: Mapping[str, Any]) -> dict[str, Any]:
    """A point whose interval stays where the measure can be: t knows nothing of a share's ends."""

    def within(end: float | None) -> float | None:
        if end is None:
            return None
        end = end if curve["low"] is None else max(end, curve["low"])
        return end if curve["high"] is None else min(end, curve["high"])

    return {**point, "low": within(point["low"]), "high": within(point["high"])}


def label_of(curve: Mapping[str, Any], title: str | None = None) -> str:
    """What a vertical axis shows, in its unit, and which way is better."""
    unit = "%" if curve["unit"] == "share" else curve["unit"]
    shown = ", ".join(text for text in (title, unit) if text)
    return f"{shown}; {_BETTER[curve['direction']]}" if shown else _BETTER[curve["direction"]]
