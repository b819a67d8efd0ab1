"""What the runs of a comparison say together: means over seeds, what privacy costs, fronts, and where a curve bends."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from scipy import special

from fedsafe.findings.intervals import t_interval
from fedsafe.runs.cells import Result
from fedsafe.runs.comparison import Cell, budget_name
from fedsafe.runs.comparison_measures import Measured, describe

CONFIDENCE = 0.95
Figures = Callable[[Sequence[Mapping[str, Any]]], list[Measured]]
Curve = dict[str, Any]
# A run on its own: its series, budget and seed, and what a measure gave.
_Place = tuple[tuple[str, ...], float]


def estimate(values: Sequence[float | None], alone: tuple[float, float] | None = None) -> dict[str, Any]:
    """A mean over seeds and its 95 % interval.

    Args:
        values: One for each seed; None where it was not measured, of which one is enough for no mean.
        alone: Interval of a single run, over its evaluation records.

    Returns:
        ``value``, ``low`` and ``high`` (Student's t over seeds; ``alone`` with one), ``n``.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return {"value": None, "low": None, "high": None, "n": len(known)}
    low, high = t_interval(known, CONFIDENCE) if len(known) > 1 else alone or (None, None)
    return {"value": math.fsum(known) / len(known), "low": low, "high": high, "n": len(known)}


def curves(cells: Sequence[Cell], results: Sequence[Result], figures: Figures) -> list[Curve]:
    """Each measure against the budget.

    Args:
        cells: In the comparison's order.
        results: Of them.
        figures: Reads the measures of a run's findings.

    Returns:
        For each measure what its axis says (``comparison_measures.describe``), and ``points``: one for each series and
        budget, with an :func:`estimate`, ``seeds`` (every single value), and ``lost``, the estimate of its difference
        to the run without privacy of the same seed; None where there is no such run.
    """
    axes: dict[str, dict[str, Any]] = {}
    found: dict[str, dict[_Place, dict[int, Measured]]] = {}
    places: dict[_Place, list[int]] = {}
    for cell, result in zip(cells, results, strict=True):
        place = (tuple(cell.series.values()), cell.epsilon)
        places.setdefault(place, []).append(cell.seed)
        for figure in figures(result["findings"]):
            axes.setdefault(figure.key, describe(figure))
            found.setdefault(figure.key, {}).setdefault(place, {})[cell.seed] = figure
    series = {tuple(cell.series.values()): dict(cell.series) for cell in cells}
    return [
        {
            **axis,
            "points": [
                {
                    "series": series[place[0]],
                    "epsilon": budget_name(place[1]),
                    **_point(found[key], place, seeds),
                }
                for place, seeds in places.items()
            ],
        }
        for key, axis in axes.items()
        # A measure of which no run has a value has no curve.
        if any(figure.value is not None for runs in found[key].values() for figure in runs.values())
    ]


def _point(
    runs: Mapping[_Place, Mapping[int, Measured]], place: _Place, seeds: Sequence[int]
) -> dict[str, Any]:
    def values(where: _Place) -> list[float | None]:
        here = runs.get(where, {})
        return [here[seed].value if seed in here else None for seed in seeds]

    own = values(place)
    reference = (place[0], math.inf)
    lost = None
    if reference in runs and place != reference:
        lost = estimate(
            [
                None if one is None or other is None else one - other
                for one, other in zip(own, values(reference), strict=True)
            ]
        )
    first = runs.get(place, {}).get(seeds[0])
    return {**estimate(own, None if first is None else first.interval), "seeds": own, "lost": lost}


def trend(curve: Curve, series: Mapping[str, str]) -> dict[str, Any] | None:
    """Whether a measure gets better with the budget, seed by seed.

    The slope over the order of the budgets is fitted to each seed alone, and the mean slope held to zero (Student's t):
    what the seeds have in common cancels.

    Returns:
        ``slope`` (an :func:`estimate`, for each step from one budget to the next) and ``p`` (one-sided, of a mean slope
        not above zero); None with fewer than two seeds or budgets.
    """
    points = sorted(
        (point for point in curve["points"] if point["series"] == series and point["epsilon"] != "clipped"),
        key=lambda point: float(point["epsilon"]),
    )
    rows = [point["seeds"] for point in points]
    if len(rows) < 2 or len(rows[0]) < 2 or any(value is None for row in rows for value in row):
        return None
    sign = -1.0 if curve["direction"] == "lower" else 1.0
    middle = (len(rows) - 1) / 2
    weights = [place - middle for place in range(len(rows))]
    scale = sum(weight * weight for weight in weights)
    slopes = [
        sign * sum(weight * row[seed] for weight, row in zip(weights, rows, strict=True)) / scale
        for seed in range(len(rows[0]))
    ]
    found = estimate(slopes)
    mean = math.fsum(slopes) / len(slopes)
    error = math.sqrt(sum((slope - mean) ** 2 for slope in slopes) / (len(slopes) - 1) / len(slopes))
    # Equal slopes leave nothing to chance.
    steepness = math.copysign(math.inf, mean) if error == 0.0 else mean / error
    p = float(special.stdtr(len(slopes) - 1, -steepness)) if mean else 0.5
    return {"slope": found, "p": p}


def knee(curve: Curve, series: Mapping[str, str]) -> str | None:
    """The budget where a curve bends most: more budget buys least after it.

    The point farthest from the chord between the ends, on a logarithmic axis, both axes scaled to one (Satopää et al.,
    2011). Of means, without regard to their intervals.

    Returns:
        Name of the budget; None with fewer than three finite ones, or where no point lies above the chord.
    """
    sign = -1.0 if curve["direction"] == "lower" else 1.0
    points = sorted(
        (float(point["epsilon"]), sign * point["value"])
        for point in curve["points"]
        if point["series"] == series
        and point["epsilon"] not in ("inf", "clipped")
        and point["value"] is not None
    )
    if len(points) < 3 or points[-1][1] <= points[0][1]:
        return None
    (first, low), (last, high) = points[0], points[-1]
    above = {
        epsilon: (value - low) / (high - low) - math.log(epsilon / first) / math.log(last / first)
        for epsilon, value in points
    }
    best = max(above, key=lambda epsilon: above[epsilon])
    return budget_name(best) if above[best] > 1e-9 else None


def enough(curve: Curve, series: Mapping[str, str], tolerance: float) -> str | None:
    """The least budget that is shown to lose no more than so much against no privacy: its interval ends before that."""
    sign = -1.0 if curve["direction"] == "lower" else 1.0
    for point in sorted(curve["points"], key=lambda point: _order(point["epsilon"])):
        lost = point["lost"]
        if point["series"] != series or point["epsilon"] in ("inf", "clipped") or lost is None:
            continue
        end = lost["low"] if sign > 0 else lost["high"]
        if end is not None and sign * end >= -tolerance:
            return str(point["epsilon"])
    return None


def fronts(curves: Sequence[Curve], series: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """For any two measures, and for the budget and each: the points of which no other is better in both (Pareto).

    Args:
        curves: Of any series.
        series: Those whose budgets share an axis.

    Returns:
        ``first`` and ``second`` (keys; ``"epsilon"`` is the budget, of which less is better) and ``points`` on the
        front, by their means.
    """
    better: dict[str, dict[tuple[str, str], float]] = {"epsilon": {}}
    shown: dict[tuple[str, str], dict[str, Any]] = {}
    for curve in curves:
        if curve["direction"] == "none":
            continue
        sign = -1.0 if curve["direction"] == "lower" else 1.0
        for point in (point for point in curve["points"] if point["series"] in series):
            place = (repr(point["series"]), point["epsilon"])
            shown[place] = {"series": point["series"], "epsilon": point["epsilon"]}
            better["epsilon"][place] = -_order(point["epsilon"])
            if point["value"] is not None:
                better.setdefault(curve["key"], {})[place] = sign * point["value"]
    return [
        {
            "first": first,
            "second": second,
            "points": [shown[place] for place in _front(better[first], better[second])],
        }
        for first, second in itertools.combinations(better, 2)
    ]


def _front(first: Mapping[Any, float], second: Mapping[Any, float]) -> list[Any]:
    places = [place for place in first if place in second]
    return [
        place
        for place in places
        if not any(
            first[other] >= first[place]
            and second[other] >= second[place]
            and (first[other] > first[place] or second[other] > second[place])
            for other in places
        )
    ]


def _order(epsilon: str) -> float:
    """Clipped without noise protects as little as nothing does."""
    return math.inf if epsilon in ("inf", "clipped") else float(epsilon)


def time_table(results: Iterable[Result]) -> dict[str, Any]:
    """Where the processors' time of some cells went, in seconds."""
    found: dict[str, Any] = {
        "preparing": 0.0,
        "training": 0.0,
        "accounting": 0.0,
        "judging": 0.0,
        "auditing": 0.0,
        "assessors": {},
    }
    for result in results:
        seconds = result["seconds"]
        for part in ("preparing", "training", "accounting", "judging", "auditing"):
            found[part] += seconds[part]
        for name, took in seconds["assessors"].items():
            found["assessors"][name] = found["assessors"].get(name, 0.0) + took
    return found
