"""The page of a grid under attack: a heat map for each partition, budget and share, from ``grid.json`` alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedsafe.report import formats
from fedsafe.report.byzantine_plots import worst_plot
from fedsafe.report.page import page

NO_ATTACK = "none"
# Points lost from which a cell is shaded one step darker.
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
_DARKEST = len(_STEPS)


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One cell of a heat map.

    Attributes:
        value: As text.
        interval: As text.
        shade: From 0, nothing lost, to 5.
        lost: Against the reference, as text; "" where there is none, or as much is left.
        worst: Whether no attack leaves the rule less.
        note: What else there is to say: how often a backdoor works.
    """

    value: str
    interval: str
    shade: int
    lost: str
    worst: bool
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Attacks by rules, at one share.

    Attributes:
        title: Which share, in words.
        aggregators: Of the columns.
        rows: Attack and its cells, in the order of the columns.
        reading: One sentence.
    """

    title: str
    aggregators: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]
    reading: str


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One partition and budget.

    Attributes:
        title: In words.
        warnings: Where noise makes every rule vacuous.
        plot: Least accuracy against the share, as SVG; "" with one share.
        plot_reading: One sentence.
        maps: One for each share.
    """

    title: str
    warnings: tuple[str, ...]
    plot: str
    plot_reading: str
    maps: tuple[HeatMap, ...]


def render_byzantine(body: Mapping[str, Any], command: str = "") -> str:
    """The page of a grid, with its style sheet and plots inside.

    Args:
        body: The content of ``grid.json``.
        command: How it was made.
    """
    return page(
        "byzantine.html.j2",
        body=body,
        command=command,
        settings=_settings(body),
        noise=[
            {
                **figures,
                "shown_epsilon": _budget(figures["epsilon"]),
                "shown_share": formats.share(figures["share"]),
            }
            for figures in body["noise"]
        ],
        delta=formats.delta(body["composed"]["delta"]),
        claims=[{**claim, "delta": formats.delta(claim["delta"])} for claim in body["claims"]],
        steps=[f"{100 * step:g}" for step in _STEPS],
        reference=_reference(body),
    )


def _reference(body: Mapping[str, Any]) -> str:
    if "mean" in body["settings"]["aggregators"]:
        return "the mean of all updates without any attack, in the same partition and budget"
    return "the same rule without any attack"


def _settings(body: Mapping[str, Any]) -> list[Setting]:
    asked = body["settings"]
    return [
        _setting(body, partition, epsilon)
        for partition in asked["partitions"]
        for epsilon in asked["epsilons"]
    ]


def _setting(body: Mapping[str, Any], partition: str, epsilon: float | str) -> Setting:
    here = [line for line in body["cells"] if line["partition"] == partition and line["epsilon"] == epsilon]
    worst = [line for line in body["worst"] if line["partition"] == partition and line["epsilon"] == epsilon]
    shares = body["settings"]["shares"]
    series = {
        name: [
            (line["share"], line["value"], (line["low"], line["high"]))
            for line in sorted(worst, key=lambda line: float(line["share"]))
            if line["aggregator"] == name and line["value"] is not None
        ]
        for name in body["settings"]["aggregators"]
    }
    unit = _unit(body)
    return Setting(
        title=f"{'IID' if partition == 'iid' else partition.capitalize()} records, {_budget(epsilon)}",
        warnings=tuple(
            figures["warning"]
            for figures in body["noise"]
            if figures["warning"] and figures["partition"] == partition and figures["epsilon"] == epsilon
        ),
        plot=worst_plot(
            series,
            label=f"least {body['metric']} under any attack",
            percent=unit == "share",
            name=f"{partition}-{epsilon}",
        )
        if len(shares) > 1
        else "",
        plot_reading=_plot_reading(series, unit),
        maps=tuple(
            _heat_map(
                body,
                share,
                [line for line in here if line["share"] == share],
                [line for line in worst if line["share"] == share],
            )
            for share in shares
        ),
    )


def _heat_map(
    body: Mapping[str, Any],
    share: float,
    lines: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]],
) -> HeatMap:
    aggregators = tuple(body["settings"]["aggregators"])
    least = {line["aggregator"]: line["attack"] for line in worst}
    found = {(line["attack"], line["aggregator"]): line for line in lines}
    unit = _unit(body)
    rows = tuple(
        (
            attack,
            tuple(_heat_cell(found[attack, name], unit, least.get(name) == attack) for name in aggregators),
        )
        for attack in (NO_ATTACK, *body["settings"]["attacks"])
    )
    count = max((line["adversaries"] for line in lines), default=0)
    return HeatMap(
        title=f"{count} of {body['settings']['clients']} clients are adversaries ({100 * share:g} %)",
        aggregators=aggregators,
        rows=rows,
        reading=_reading(worst, unit),
    )


def _heat_cell(line: Mapping[str, Any], unit: str, worst: bool) -> HeatCell:
    lost = line["lost"]
    # What is not finite has lost everything.
    shade = _DARKEST if line["value"] is None else sum((lost or 0.0) >= step - 1e-12 for step in _STEPS)
    ends = None if line["low"] is None else (line["low"], line["high"])
    success = line["backdoor_success"]
    return HeatCell(
        value="diverged" if line["value"] is None else _plain(line["value"], unit),
        interval=formats.interval(ends, unit),
        shade=shade,
        lost="" if lost is None else _lost(lost, unit),
        worst=worst,
        note="" if success is None else f"backdoor {formats.share(success)}",
    )


def _reading(worst: Sequence[Mapping[str, Any]], unit: str) -> str:
    """What a heat map says, in one sentence."""
    measured = [line for line in worst if line["value"] is not None]
    if not measured:
        return "No rule was left with a finite model under its worst attack."
    best, least = (pick(measured, key=lambda line: float(line["value"])) for pick in (max, min))
    lost = "" if best["lost"] is None else f", {_less(best['lost'], unit)} than the reference"
    text = (
        f"Under its worst attack, {best['aggregator']} keeps most: {_plain(best['value'], unit)} under "
        f"{best['attack']}{lost}"
    )
    if least["aggregator"] == best["aggregator"]:
        return f"{text}."
    return (
        f"{text}; {least['aggregator']} keeps least: {_plain(least['value'], unit)} under {least['attack']}."
    )


def _plot_reading(series: Mapping[str, Sequence[tuple[float, float, Any]]], unit: str) -> str:
    fallen = {name: points[0][1] - points[-1][1] for name, points in series.items() if len(points) > 1}
    if not fallen:
        return ""
    most, least = max(fallen, key=fallen.__getitem__), min(fallen, key=fallen.__getitem__)
    first, last = (f"{100 * series[most][place][0]:g} %" for place in (0, -1))
    text = f"From {first} to {last} of adversaries, {most} loses most ({_difference(fallen[most], unit)})"
    return f"{text}, {least} least ({_difference(fallen[least], unit)})." if least != most else f"{text}."


def _unit(body: Mapping[str, Any]) -> str:
    return "share" if body["metric"] == "accuracy" else ""


def _plain(value: float, unit: str) -> str:
    return formats.share(value) if unit == "share" else f"{value:.3f}"


def _difference(value: float, unit: str) -> str:
    return f"{100 * value:.1f} points" if unit == "share" else f"{value:.3f}"


def _lost(lost: float, unit: str) -> str:
    """``0.6 lost``; "" where nothing would be seen of it."""
    shown = f"{100 * abs(lost):.1f}" if unit == "share" else f"{abs(lost):.3f}"
    if float(shown) == 0.0:
        return ""
    return f"{shown} {'lost' if lost > 0 else 'more'}"


def _less(lost: float, unit: str) -> str:
    return f"{_difference(abs(lost), unit)} {'less' if lost >= 0 else 'more'}"


def _budget(epsilon: float | str) -> str:
    return "no record-level privacy" if epsilon == "inf" else f"record-level epsilon {epsilon:g}"
