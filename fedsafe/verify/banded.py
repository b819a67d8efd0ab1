"""Client level, banded noise: rounds share noise as the matrix says, and clients stay away in between."""

from itertools import combinations

import numpy as np
from scipy import stats

from fedsafe.verify import sources
from fedsafe.verify.bench import Bench, Measured, Values
from fedsafe.verify.client_noise import compared
from fedsafe.verify.client_rounds import lost, run, whitened
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.statistics import ALPHA, normal_fits, scale_of, scale_range

_RUNS = 4
_COHORTS = 100


def check_banded(bench: Bench) -> list[Outcome]:
    """The covariance of rounds, the same over a restart, noise that comes again, and who is asked when."""
    claim = bench.claim
    if claim.banded is None:
        return [not_applicable("noise over rounds", "the claim's noise is independent in each round")]
    outcomes = [_separation(bench)]
    if not bench.noise:
        return [not_applicable("noise over rounds", "the claim is without noise"), *outcomes]
    most = min(claim.rounds, max(6, len(claim.banded.column) + 2))
    if most < 2:
        return [not_applicable("noise over rounds", "there is one round"), *outcomes]
    runs = [run(bench, bench.quiet(), most) for _ in range(max(_RUNS, bench.runs // 4))]
    over = [_covariance(bench, "noise over rounds", runs)]
    restarted = [_restarted(bench, most) for _ in range(_RUNS)]
    over.append(_covariance(bench, "noise over rounds, a restart among them", restarted))
    if all(outcome.status == "pass" for outcome in over):
        over.append(_again(bench, [*runs[:2], *restarted[:2]]))
    return [*over, *outcomes]


def _covariance(bench: Bench, name: str, runs: list[list[Measured]]) -> Outcome:
    """Whether ``C w`` has the covariance of independent rounds, which is all that the claim's epsilon rests on."""
    bands = 0 if bench.claim.banded is None else len(bench.claim.banded.column)
    claimed = f"noise w over the rounds for which C w is independent, C having {bands} bands"
    error = next(filter(None, (lost(bench, rounds) for rounds in runs)), "")
    if error:
        return judged(name, holds=False, claimed=claimed, seen=error, source=sources.BANDED)
    z = np.stack([whitened(bench, rounds) for rounds in runs])
    rounds, values = z.shape[1], z.shape[0] * z.shape[2]
    rows = np.swapaxes(z, 0, 1).reshape(rounds, values)
    pairs = list(combinations(range(rounds), 2))
    tests = rounds + len(pairs) + 1
    low, high = scale_range(values, tests=tests)
    ratios = [scale_of(row, 1.0) for row in rows]
    bound = float(stats.norm.isf(ALPHA / tests / 2.0)) / np.sqrt(values)
    linked = {(a, b): float(rows[a] @ rows[b]) / (values * ratios[a] * ratios[b]) for a, b in pairs}
    worst = max(linked, key=lambda pair: abs(linked[pair]))
    furthest = max(range(rounds), key=lambda at: abs(ratios[at] - 1.0))
    normal, _ = normal_fits(rows.ravel()[:100_000])
    holds = all(low <= ratio <= high for ratio in ratios) and abs(linked[worst]) <= bound and normal
    return judged(
        name,
        holds=holds,
        claimed=claimed,
        seen=f"over {len(runs)} runs, {ratios[furthest]:.3f} times the claimed in round {furthest + 1}, "
        f"and a correlation of {linked[worst]:.3f} between rounds {worst[0] + 1} and {worst[1] + 1}"
        + ("" if normal else "; not normal"),
        source=sources.BANDED,
    )


def _restarted(bench: Bench, most: int) -> list[Measured]:
    """A run whose server starts again after half of its rounds."""
    session = bench.server.start()
    rounds = []
    for number in range(1, most + 1):
        if number == most // 2 + 1:
            session = bench.server.restart(session)
        rounds.append(bench.round(bench.quiet(), session=session, round=number))
    return rounds


def _again(bench: Bench, runs: list[list[Measured]]) -> Outcome:
    """At any shift, and in a round that is asked for again from another model."""
    known: list[tuple[str, Values]] = []
    for index, rounds in enumerate(runs):
        known += [
            (f"round {measured.round} of run {index + 1}", z)
            for measured, z in zip(rounds, whitened(bench, rounds), strict=True)
        ]
    session = bench.server.start()
    first = bench.round(bench.quiet(), session=session, round=1)
    again = bench.round(bench.quiet(), session=bench.server.restart(session), round=1)
    if first.total is not None:
        known.append(("round 1", bench.standard(first)))
    if again.total is not None and again.present:
        known.append(("round 1 again, after a restart, from another model", bench.standard(again)))
    return compared("noise reuse", known, bench.parameters)


def _separation(bench: Bench) -> Outcome:
    """How soon clients are asked again, and how often in all."""
    name, claim = "clients stay away", bench.claim
    apart = 1 if claim.banded is None else claim.banded.apart
    claimed = f"two rounds of one client are at least {apart} apart, and it has {claim.often} at most"
    soonest, most, asked = claim.rounds + 1, 0, 0
    while asked < _COHORTS:
        session, last, counts = bench.server.start(), dict[int, int](), dict[int, int]()
        began = asked
        for number in range(1, claim.rounds + 1):
            drawn = session.ask(number, bench.model())
            if drawn.error:
                break
            asked += 1
            for member in drawn.members:
                soonest = min(soonest, number - last.get(member, -claim.rounds))
                last[member], counts[member] = number, counts.get(member, 0) + 1
        most = max(most, max(counts.values(), default=0))
        if asked == began:
            return judged(name, holds=False, claimed=claimed, seen=drawn.error, source=sources.LOST)
    return judged(
        name,
        holds=soonest >= apart and most <= claim.often,
        claimed=claimed,
        seen=f"{asked} rounds; the closest two of one client are {soonest} apart, and the most of one client {most}",
        source=sources.SEPARATION,
    )
