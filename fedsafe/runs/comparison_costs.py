"""What the budgets of a comparison mean, whether they may share an axis, and what publishing its runs costs."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from fedsafe.data import Task
from fedsafe.errors import ConfigError, PlanViolation
from fedsafe.privacy.accounting import (
    Accounted,
    Release,
    account,
    analytic_noise,
    group_epsilon,
    search_cost,
)
from fedsafe.privacy.claim import COMPARED, differences, require_comparable
from fedsafe.runs.audit import check_audit
from fedsafe.runs.byzantine_cell import read_release
from fedsafe.runs.cells import Result
from fedsafe.runs.comparison import CLIPPED, Cell, Comparison, budget_name
from fedsafe.runs.compose import Parts
from fedsafe.runs.stacked_runs import prepare_runs

FALSE_POSITIVES = 0.001
"""The rate of false alarms at which an attacker's success is stated."""


def check_cells(cells: Sequence[Cell], *, model: nn.Module | None = None, data: Task | None = None) -> Parts:
    """Compose a cell of each kind, so that a wrong request is one line before anything slow.

    Returns:
        The parts of the first cell.

    Raises:
        FedSafeError: A cell is not possible.
    """
    kinds: dict[tuple[Any, ...], Cell] = {}
    for cell in cells:
        private = math.isfinite(cell.epsilon) and cell.epsilon != CLIPPED
        kinds.setdefault((*cell.series.values(), private), cell)
    runs = prepare_runs([cell.config for cell in kinds.values()], model=model, data=data)
    for run in runs:
        check_audit(run.parts)
    return runs[0].parts


def require_one_axis(claims: Sequence[Mapping[str, Any]]) -> None:
    """Refuse epsilons of one unit that are not about the same thing; those without a guarantee stand apart anyway.

    Raises:
        PlanViolation: It names everything that differs.
    """
    finite = [claim for claim in claims if claim["epsilon"] is not None]
    for claim in finite[1:]:
        try:
            require_comparable(finite[0], claim)
        except PlanViolation as error:
            raise PlanViolation(f"no common axis of {claim['unit']}-level budgets: {error}") from error


def panels(
    comparison: Comparison, cells: Sequence[Cell], results: Sequence[Result]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Which series may share an axis, and what every epsilon on it says.

    Returns:
        The panels: each with ``units`` (whom its budgets are for), ``series``, and ``differs`` (what sets its claims
        apart from those of the first one, in words; "" of the first). The claims: for each panel and unit, with
        ``panel`` (its place).

    Raises:
        PlanViolation: The claims of one series are not about the same thing.
    """
    found: list[dict[str, Any]] = []
    claims: list[dict[str, dict[str, Any]]] = []
    for series in comparison.series:
        units = comparison.levels_of(series)
        own = _claims_of(series, units, cells, results)
        for panel, shown in zip(found, claims, strict=True):
            if _unlike(panel["units"], shown, units, own) is None:
                panel["series"].append(series)
                # A series without a guarantee says less than one that has it.
                for unit in units:
                    if shown[unit]["epsilon"] is None:
                        shown[unit] = own[unit]
                break
        else:
            differs = _unlike(found[0]["units"], claims[0], units, own) if found else ""
            found.append({"units": list(units), "series": [series], "differs": differs})
            claims.append(own)
    alike = (*COMPARED, "sampler", "regime", "randomness", "arithmetic", "assumptions", "not_covered")
    return found, [
        {"panel": place, **{key: claim[key] for key in alike}}
        for place, shown in enumerate(claims)
        for claim in shown.values()
    ]


def _claims_of(
    series: Mapping[str, str], units: Sequence[str], cells: Sequence[Cell], results: Sequence[Result]
) -> dict[str, dict[str, Any]]:
    """One claim for each unit of a series: one with a guarantee, where there is any."""
    found = {}
    for unit in units:
        claims = [
            claim
            for cell, result in zip(cells, results, strict=True)
            if cell.series == series
            for claim in result["claims"]
            if claim["unit"] == unit
        ]
        require_one_axis(claims)
        found[unit] = next((claim for claim in claims if claim["epsilon"] is not None), claims[0])
    return found


def _unlike(
    units: Sequence[str],
    claims: Mapping[str, Mapping[str, Any]],
    other_units: Sequence[str],
    others: Mapping[str, Mapping[str, Any]],
) -> str | None:
    """What sets the claims of two series apart, in words; None where they may share an axis."""
    if tuple(units) != tuple(other_units):
        return f"unit ({' and '.join(other_units)}, against {' and '.join(units)})"
    for unit in units:
        if None not in (claims[unit]["epsilon"], others[unit]["epsilon"]):
            differs = differences(others[unit], claims[unit])
            if differs:
                return "; ".join(differs)
    return None


def statements(
    comparison: Comparison, cells: Sequence[Cell], results: Sequence[Result]
) -> list[dict[str, Any]]:
    """Each budget in other words, one line for each series, budget and unit; the worst over the seeds."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell, result in zip(cells, results, strict=True):
        for claim in result["claims"]:
            if claim["unit"] not in comparison.levels_of(cell.series):
                continue
            place = (tuple(cell.series.values()), cell.epsilon, claim["unit"])
            known = found.get(place)
            if known is None or (claim["epsilon"] or 0.0) > (known["bound"] or 0.0):
                found[place] = {
                    "series": dict(cell.series),
                    "epsilon": budget_name(cell.epsilon),
                    "unit": claim["unit"],
                    "bound": claim["epsilon"],
                    "delta": claim["delta"],
                    "noise_multiplier": result["noise"][claim["unit"]],
                    "horizon": claim["horizon"],
                    "statement": claim["statement"],
                    **equivalents(claim["epsilon"], claim["delta"]),
                }
    return list(found.values())


def equivalents(epsilon: float | None, delta: float) -> dict[str, float | None]:
    """An (epsilon, delta) in other words.

    Args:
        epsilon: None without a guarantee.
        delta: Probability that the bound fails.

    Returns:
        ``mu``: of the one Gaussian release that has this epsilon at this delta (Balle and Wang, 2018; Dong, Roth and
        Su, 2022): for comparing, and no bound at another delta. ``true_positives``: most of the members that an
        attacker finds who accuses one in a thousand others (Kairouz, Oh and Viswanath, 2015). ``posterior``: what a
        suspicion of one half becomes at most, but for the probability delta.
    """
    if epsilon is None:
        return {"mu": None, "true_positives": None, "posterior": None}
    found = min(
        1.0,
        math.exp(min(epsilon, 700.0)) * FALSE_POSITIVES + delta,
        1.0 - math.exp(-epsilon) * (1.0 - delta - FALSE_POSITIVES),
    )
    return {
        "mu": 1.0 / analytic_noise(epsilon, delta) if epsilon > 0.0 else 0.0,
        "true_positives": max(found, FALSE_POSITIVES),
        "posterior": 1.0 / (1.0 + math.exp(-epsilon)),
    }


def publishing(comparison: Comparison, results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """What publishing every run of a comparison costs a unit, and what choosing the best of them does.

    Args:
        comparison: It says which units are compared.
        results: By key: the runs that are different.

    Returns:
        For each unit that is compared or has a guarantee: ``runs`` and ``private`` (how many, and how many of them with
        a guarantee), ``group`` (the most records or clients of one person, for all of which the figures are),
        ``counted`` (what figures take for one client, where runs cut the records differently; otherwise None),
        ``epsilon`` of all of the latter runs together, ``best`` of the largest budget's runs where their number had
        been drawn at random (None where runs differ in more than their noise), and ``reason`` where there is none.
    """
    guaranteed = {
        claim["unit"]
        for result in results.values()
        for claim in result["claims"]
        if claim["epsilon"] is not None
    }
    # A level that stays as it is configured is spent again by every run, too.
    return [
        _publishing(comparison, results, unit)
        for unit in ("record", "client")
        if unit in guaranteed or unit in comparison.levels
    ]


def _publishing(comparison: Comparison, results: Mapping[str, Result], unit: str) -> dict[str, Any]:
    claims = {
        key: claim
        for key, result in results.items()
        for claim in result["claims"]
        if claim["unit"] == unit and claim["epsilon"] is not None
    }
    found: dict[str, Any] = {
        "unit": unit,
        "runs": len(results),
        "private": len(claims),
        "delta": max((claim["delta"] for claim in claims.values()), default=None),
        "group": max((results[key]["groups"][unit] for key in claims), default=1),
        "counted": counted_as(comparison, unit),
        "epsilon": None,
        "accountant": None,
        "best": None,
        "best_accountant": None,
        "reason": None,
    }
    if not claims:
        return {**found, "reason": "no run has a guarantee"}
    if comparison.paired:
        return {
            **found,
            "reason": "paired runs share their noise, so that two of them give the updates away: nothing is protected",
        }
    if any(results[key]["releases"][unit] is None for key in claims):
        return {
            **found,
            "reason": "releases of this mechanism do not compose here; each claim is of its run alone",
        }
    releases = {key: [read_release(part) for part in results[key]["releases"][unit]] for key in claims}
    try:
        together = _together([part for parts in releases.values() for part in parts], found)
        found |= {"epsilon": _finite(together.epsilon), "accountant": together.accountant}
    except ConfigError as error:
        return {**found, "reason": str(error)}
    if found["group"] > 1:
        return found  # the bound on the best of several is of one element
    largest = releases[max(claims, key=lambda key: float(claims[key]["epsilon"]))]
    if not all(_dominates(largest, parts) for parts in releases.values()):
        return found  # no run costs most at every order, and the bound is on runs of which one does
    return {**found, **_best_of(largest, found["delta"], len(claims))}


def _dominates(worst: Sequence[Release], others: Sequence[Release]) -> bool:
    """Whether releases differ in nothing but their noise, of which the first have the least."""
    return len(worst) == len(others) and all(
        replace(other, noise=one.noise) == one and other.noise >= one.noise
        for one, other in zip(worst, others, strict=True)
    )


def counted_as(comparison: Comparison, unit: str) -> str | None:
    """What a figure for several runs takes for one client, where not all runs have the same clients; otherwise None."""
    partition = comparison.base.federation.partition
    fixed = partition.get("name") == "natural" or (
        partition.get("name") == "contiguous" and partition.get("sizes", {}).get("name", "equal") == "equal"
    )
    cut = any(
        key.startswith(("federation.partition", "federation.clients", "data.")) for key in comparison.grid
    )
    if unit != "client" or not (cut or (comparison.seeds > 1 and not fixed)):
        return None
    return (
        "the client of one number in every run, though runs cut the records anew, so that it holds other records in "
        "each; for somebody whose records are the same in all runs this is no bound"
    )


def _together(releases: Sequence[Release], about: Mapping[str, Any]) -> Accounted:
    """What all releases cost, of one element or of all that one person has.

    Raises:
        ConfigError: They are not under one adjacency.
    """
    whole = account(releases, about["delta"])
    if about["group"] == 1:
        return whole
    first, *rest = releases
    return replace(
        whole,
        epsilon=group_epsilon(first, about["delta"], about["group"], tuple(rest)),
        accountant=f"{whole.accountant}, for {about['group']} {about['unit']}s of one person",
    )


def _best_of(releases: Sequence[Release], delta: float, runs: int) -> dict[str, Any]:
    # The library says of every order that it leaves out that it does; the others give a bound.
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        cost = search_cost(releases, delta, mean=float(max(1, runs)))
    except ConfigError:
        return {}
    finally:
        log.setLevel(before)
    return {"best": _finite(cost.epsilon), "best_accountant": cost.accountant}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
