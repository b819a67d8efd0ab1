"""What a search costs the private records: of the settings that it chose, and of everything that follows from them."""

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting import Accounted, Release, Search, account, searches_cost
from fedsafe.runs.byzantine_cell import read_release
from fedsafe.runs.cells import Result

NO_GUARANTEE = "no run of this budget has a guarantee at this level"


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a search for one budget consists of.

    Args:
        trials: Results of its trials: as many as there were.
        mean: How many there are on average; None where that many were made, and all of them are paid for.
        alternatives: What the run that follows may release: more than one where the search chooses between plans.
        finals: Results of the runs with the chosen settings, one for each seed.
        free: Whether no private record was touched by the search.
    """

    trials: Sequence[Result]
    mean: float | None
    alternatives: Sequence[Mapping[str, Any]]
    finals: Sequence[Result]
    free: bool


def cost_of(spent: Spent, unit: str) -> dict[str, Any]:
    """Epsilon of one chosen run, without and with the search for its settings.

    Args:
        spent: The search and what came of it.
        unit: ``"record"`` or ``"client"``.

    Returns:
        ``unit``, ``delta``, ``alone`` (of the claim of one run) and ``search`` (with the search for its settings), each
        None without a bound, with a ``reason``; ``accountant`` of the second.
    """
    claim = next((claim for claim in spent.finals[0]["claims"] if claim["unit"] == unit), None)
    found: dict[str, Any] = {
        "unit": unit,
        "delta": None if claim is None else claim["delta"],
        "alone": None,
        "search": None,
        "accountant": None,
        "reason": NO_GUARANTEE,
    }
    if claim is None or claim["epsilon"] is None:
        return found
    # Seeds that cut the records into other sizes have other plans.
    alone = max(
        float(claim["epsilon"])
        for result in spent.finals
        for claim in result["claims"]
        if claim["unit"] == unit and claim["epsilon"] is not None
    )
    found |= {"alone": alone, "reason": None}
    if spent.free:
        return {**found, "search": alone, "accountant": claim.get("accountant")}
    bounds = [
        _bounded([spent], unit, claim["delta"], [[final]], least=alone)
        for final in _different(spent.finals, unit)
    ]
    worst = max(bounds, key=lambda bound: math.inf if bound["search"] is None else bound["search"])
    return {**found, **worst}


def cost_of_all(searches: Sequence[Spent], unit: str) -> dict[str, Any]:
    """Epsilon of all chosen settings and all runs with them, over every budget that has a guarantee.

    Returns:
        ``unit``, ``delta``, ``epsilon`` (None without a bound, with a ``reason``) and ``accountant``.
    """
    private, deltas = [], []
    for spent in searches:
        claims = [claim for result in spent.finals for claim in result["claims"] if claim["unit"] == unit]
        if claims and all(claim["epsilon"] is not None for claim in claims):
            private.append(spent)
            deltas += [float(claim["delta"]) for claim in claims]
    found = {"unit": unit, "delta": max(deltas, default=None), "epsilon": None, "accountant": None}
    if not private:
        return {**found, "reason": NO_GUARANTEE}
    bound = _bounded(private, unit, max(deltas), [spent.finals for spent in private], least=0.0)
    return {**found, "epsilon": bound["search"], "accountant": bound["accountant"], "reason": bound["reason"]}


def _different(results: Sequence[Result], unit: str) -> list[Result]:
    """One of each kind of runs that release the same."""
    kinds: list[Result] = []
    for result in results:
        if all(result["releases"][unit] != known["releases"][unit] for known in kinds):
            kinds.append(result)
    return kinds


def _bounded(
    searches: Sequence[Spent], unit: str, delta: float, after: Sequence[Sequence[Result]], *, least: float
) -> dict[str, Any]:
    """A bound on searches, each with the runs that follow."""
    nothing = {"search": None, "accountant": None}
    for spent in searches:
        if any(result.get("groups", {}).get(unit, 1) > 1 for result in spent.finals):
            return {
                **nothing,
                "reason": "the claim is for several elements of one person, and the bound on a search is for one",
            }
        if any(
            part["releases"][unit] is None for part in (*spent.trials, *spent.finals, *spent.alternatives)
        ):
            return {**nothing, "reason": "releases of this mechanism do not compose here"}
        if len(spent.alternatives) > 1 and not spent.free and len(_different(spent.finals, unit)) > 1:
            return {**nothing, "reason": "each seed has plans of its own, and those of one were searched"}
    try:
        found = _account(searches, unit, delta, after)
    except ConfigError as error:
        return {**nothing, "reason": str(error)}
    if not math.isfinite(found.epsilon):
        return {**nothing, "reason": "no finite bound was found"}
    return {"search": max(found.epsilon, least), "accountant": found.accountant, "reason": None}


def _account(
    searches: Sequence[Spent], unit: str, delta: float, after: Sequence[Sequence[Result]]
) -> Accounted:
    def released(result: Mapping[str, Any]) -> tuple[Release, ...]:
        return tuple(read_release(part) for part in result["releases"][unit])

    if all(spent.mean is None or spent.free for spent in searches):
        followed = zip(searches, after, strict=True)
        return account([part for one, runs in followed for part in _plainly(one, released, runs)], delta)
    parts = []
    for spent, runs in zip(searches, after, strict=True):
        if spent.mean is None or spent.free:
            parts.append(Search(releases=tuple(_plainly(spent, released, runs)), mean=None))
            continue
        # Trials have the first seed's plan.
        trial = released(spent.finals[0])
        kinds = Counter(released(run) for run in runs)
        parts.append(Search(releases=trial, mean=spent.mean, runs="poisson", again=kinds.pop(trial, 0)))
        parts += [Search(releases=kind, mean=None, again=count - 1) for kind, count in kinds.items()]
    with _quiet():
        return searches_cost(parts, delta)


def _plainly(
    spent: Spent, released: Callable[[Mapping[str, Any]], tuple[Release, ...]], after: Sequence[Result]
) -> Iterator[Release]:
    """Everything, one after the other: the trials, and the runs that follow.

    Where these have one of several plans, which trials decide, every plan is paid for: to choose between releases is
    to look at one of them, and the numbers of all were fixed before.
    """
    for result in () if spent.free else spent.trials:
        yield from released(result)
    several = len(spent.alternatives) > 1 and not spent.free
    for run in after:
        for alternative in spent.alternatives if several else (run,):
            yield from released(alternative)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library says of every order that it leaves out that it does; the others give a bound."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
