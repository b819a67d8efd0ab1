"""What the budgets of a comparison mean, whether they may share an axis, and what publishing its runs costs."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedsafe.errors import ConfigError, PlanViolation
from fedsafe.privacy.accounting import Release, account, analytic_noise, search_cost
from fedsafe.privacy.claim import COMPARED, require_comparable
from fedsafe.runs.byzantine_cell import read_release
from fedsafe.runs.cells import Result
from fedsafe.runs.comparison import CLIPPED, Cell, Comparison, budget_name
from fedsafe.runs.planning import plan_and_claims
from fedsafe.runs.stacked_runs import prepare_runs

FALSE_POSITIVES = 0.001
"""The rate of false alarms at which an attacker's success is stated."""


def check_cells(comparison: Comparison, cells: Sequence[Cell]) -> None:
    """Compose a cell of each kind, so that a wrong request, or claims that differ, is one line before anything slow.

    Raises:
        FedSafeError: A cell is not possible.
        PlanViolation: The claims of two series are not about the same thing, so that their budgets have no common axis.
    """
    first = cells[0].seed
    kinds: dict[tuple[str, ...], Cell] = {}
    open_ones: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        if cell.seed == first:
            private = math.isfinite(cell.epsilon) and cell.epsilon != CLIPPED
            (kinds if private else open_ones).setdefault(tuple(cell.series.values()), cell)
    prepare_runs([cell.config for cell in open_ones.values()])
    claims: dict[str, list[Mapping[str, Any]]] = {}
    for run in prepare_runs([cell.config for cell in kinds.values()]):
        from_seed = run.parts.config.privacy.noise_key == "seed"
        for claim in plan_and_claims(run.parts, key_from_seed=from_seed).claims:
            claims.setdefault(claim["unit"], []).append(claim)
    for unit in comparison.levels:
        require_one_axis(claims.get(unit, ()))


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


def axis_claims(comparison: Comparison, results: Sequence[Result]) -> list[dict[str, Any]]:
    """What every epsilon on an axis says, for each unit that is compared.

    Raises:
        PlanViolation: Claims differ.
    """
    found = []
    for unit in comparison.levels:
        claims = [claim for result in results for claim in result["claims"] if claim["unit"] == unit]
        require_one_axis(claims)
        shown = next((claim for claim in claims if claim["epsilon"] is not None), claims[0])
        alike = (*COMPARED, "sampler", "regime", "randomness", "arithmetic", "assumptions", "not_covered")
        found.append({key: shown[key] for key in alike})
    return found


def statements(
    comparison: Comparison, cells: Sequence[Cell], results: Sequence[Result]
) -> list[dict[str, Any]]:
    """Each budget in other words, one line for each series, budget and unit; the worst over the seeds."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell, result in zip(cells, results, strict=True):
        for claim in result["claims"]:
            if claim["unit"] not in comparison.levels:
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
        For each unit: ``runs`` and ``private`` (how many, and how many of them with a guarantee), ``epsilon`` of all of
        the latter together, ``best`` of the largest budget's runs where their number had been drawn at random, and
        ``reason`` where there is none.
    """
    return [_publishing(comparison, results, unit) for unit in comparison.levels]


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
        together = account([part for parts in releases.values() for part in parts], found["delta"])
        found |= {"epsilon": _finite(together.epsilon), "accountant": together.accountant}
    except ConfigError as error:
        return {**found, "reason": str(error)}
    largest = max(claims, key=lambda key: float(claims[key]["epsilon"]))
    return {**found, **_best_of(releases[largest], found["delta"], len(claims))}


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
