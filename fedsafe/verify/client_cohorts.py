"""Client level: whether cohorts are drawn as the claim says."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedsafe.verify import sources
from fedsafe.verify.bench import Bench
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.server import Session
from fedsafe.verify.statistics import DEVIATIONS, dispersion_fits, share_fits

_COHORTS = 100
# A draw of so little chance does not come back by itself.
_LEAST_CHANCE = 1e-6


def check_cohorts(bench: Bench) -> list[Outcome]:
    """How many and who, and that a restart draws anew."""
    claim = bench.claim
    name = "cohorts"
    if claim.mechanism == "banded":
        return [
            not_applicable(name, "the claim makes no use of how cohorts are drawn: see clients stay away")
        ]
    claimed = f"{claim.sampler} cohorts of {claim.expected:g} from {claim.population}"
    drawn, error = _drawn(bench)
    if error:
        return [judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)]
    outside = [member for cohort in drawn for member in cohort if not 0 <= member < claim.population]
    twice = any(len(set(cohort)) < len(cohort) for cohort in drawn)
    if outside or twice:
        seen = (
            "a client was asked twice in one round" if twice else "somebody who is not registered was asked"
        )
        return [judged(name, holds=False, claimed=claimed, seen=seen, source=sources.POISSON)]
    chosen = np.zeros((len(drawn), claim.population), np.bool_)
    for row, cohort in zip(chosen, drawn, strict=True):
        row[list(cohort)] = True
    return [_as_claimed(bench, chosen, claimed), _restarted(bench)]


def _drawn(bench: Bench) -> tuple[list[tuple[int, ...]], str]:
    """Cohorts of rounds that follow each other, of as many runs as it takes."""
    cohorts: list[tuple[int, ...]] = []
    while len(cohorts) < _COHORTS:
        session = bench.server.start()
        for round in range(1, _COHORTS - len(cohorts) + 1):
            asked = session.ask(round, bench.model())
            if asked.error:
                break
            cohorts.append(asked.members)
        if asked.error and round == 1:
            return [], asked.error
    return cohorts, ""


def _as_claimed(bench: Bench, chosen: NDArray[np.bool_], claimed: str) -> Outcome:
    claim, rounds = bench.claim, len(chosen)
    sizes, often = chosen.sum(axis=1), chosen.sum(axis=0)
    seen = (
        f"cohorts of {sizes.min()} to {sizes.max()}, mean {sizes.mean():.2f}, variance {sizes.var():.2f}; clients were "
        f"in {often.min()} to {often.max()} of {rounds}"
    )
    share = claim.share
    problem = ""
    if claim.sampler == "all" or share == 1.0:
        problem = "" if chosen.all() else "not everybody was asked in every round"
    elif claim.sampler == "poisson":
        if not share_fits(int(sizes.sum()), chosen.size, share):
            problem = f"a share of {chosen.mean():.4f} was drawn, not {share:g}"
        elif not dispersion_fits(sizes, claim.population, share, degrees=rounds):
            problem = f"independent draws make sizes of variance {claim.population * share * (1 - share):.2f}"
        elif not dispersion_fits(often, rounds, share, degrees=claim.population):
            problem = "clients took part more evenly, or less so, than independent draws allow"
        elif _linked(chosen, share):
            problem = "who is drawn depends on the round before"
    elif np.any(sizes != claim.size):
        problem = f"cohorts are not of {claim.size}"
    elif claim.sampler == "fixed":
        if not dispersion_fits(often, rounds, share, degrees=claim.population - 1):
            problem = "clients took part more evenly, or less so, than draws without replacement allow"
        elif _linked(chosen, share):
            problem = "who is drawn depends on the round before"
    return judged(
        "cohorts",
        holds=not problem,
        claimed=claimed,
        seen=seen + (f": {problem}" if problem else ""),
        source=sources.POISSON,
    )


def _linked(chosen: NDArray[np.bool_], share: float) -> bool:
    """Whether being drawn twice running is more or less frequent than chance."""
    centred = chosen - share
    products = np.array([float(a @ b) for a, b in pairwise(centred)])
    variance = share * (1.0 - share)
    return bool(
        abs(products.sum()) > DEVIATIONS * variance * math.sqrt(len(products) * chosen.shape[1]) * 1.05
    )


def _restarted(bench: Bench) -> Outcome:
    """Rounds after a restart against the rounds before it."""
    name, claim = "cohorts after a restart", bench.claim
    share = claim.share
    # Chance that one round's cohort equals another's, at most.
    chance = (share**2 + (1.0 - share) ** 2) ** claim.population
    rounds = next((n for n in range(1, 4) if chance**n < _LEAST_CHANCE), None)
    if claim.sampler == "all" or share == 1.0 or rounds is None:
        return not_applicable(
            name, "two draws may well be the same by chance" if share < 1.0 else "everybody is drawn"
        )
    if claim.rounds < 2 * rounds:
        return not_applicable(
            name, f"{claim.rounds} rounds are too few to compare rounds before and after a restart"
        )
    first = bench.server.start()
    before = _sequence(bench, first, range(1, rounds + 1))
    after = _sequence(bench, bench.server.restart(first), range(rounds + 1, 2 * rounds + 1))
    if not before or not after:
        return not_applicable(name, f"{2 * rounds} rounds could not be asked for")
    same = before == after
    return judged(
        name,
        holds=not same,
        claimed="cohorts that nobody can predict",
        seen=f"rounds {rounds + 1} to {2 * rounds}, after a restart, had the cohorts of rounds 1 to {rounds}"
        if same
        else "other cohorts",
        source=sources.PREDICTED,
    )


def _sequence(bench: Bench, session: Session, rounds: range) -> list[tuple[int, ...]]:
    asked = [session.ask(round, bench.model()) for round in rounds]
    return [] if any(a.error for a in asked) else [a.members for a in asked]
