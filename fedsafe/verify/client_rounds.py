"""Client level: every round of a run, and every client: what cheats in one of them only must not hide in an average."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from fedsafe.privacy.mechanisms import largest_deviation
from fedsafe.verify import sources
from fedsafe.verify.bench import HUGE, Bench, Measured, Values
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.server import ClientReply
from fedsafe.verify.statistics import DEVIATIONS, normal_quantile, scale_of, scale_range

# The most rounds of a run that are looked at one by one, and how often: twice where there are few.
_ROUNDS = 24
_FEW = 10
_SLACK = 0.02


def check_rounds(bench: Bench) -> list[Outcome]:
    """The noise of each round, of each round that nobody answers, and the clip in each."""
    if bench.claim.adaptive_clip is not None:
        return [not_applicable("each round", "the clip adapts: see the checks of it"), _each_client(bench)]
    quiet, nobody = bench.quiet(), lambda members: [None] * members
    outcomes = [_noise(bench, "noise in each round", quiet)]
    if bench.claim.mechanism in ("central", "banded"):
        outcomes.append(_noise(bench, "noise in each round that nobody answers", nobody))
    if bench.claim.mechanism == "local":
        return outcomes
    return [*outcomes, _clip(bench), _each_client(bench)]


def run(
    bench: Bench, script: Callable[[int], Sequence[ClientReply | None]], rounds: int = _ROUNDS
) -> list[Measured]:
    """The first rounds of a run of its own."""
    session, last = bench.server.start(), min(rounds, bench.claim.rounds)
    return [bench.round(script, session=session, round=number) for number in range(1, last + 1)]


def whitened(bench: Bench, rounds: Sequence[Measured]) -> Values:
    """``(rounds, parameters)`` noise over its claimed deviation, freed of what the claim says that it shares.

    With noise ``w = C^-1 z`` that is ``z``: ``C w`` (Choquette-Choo et al., 2023).
    """
    if bench.claim.banded is None:
        return np.stack([bench.standard(measured) for measured in rounds])
    column = bench.claim.banded.column
    noise = [bench.standard(measured) / column[0] for measured in rounds]
    return np.stack(
        [
            sum(
                (column[lag] * noise[at - lag] for lag in range(min(len(column), at + 1))),
                np.zeros(bench.parameters),
            )
            for at in range(len(noise))
        ]
    )


def lost(bench: Bench, rounds: Sequence[Measured]) -> str:
    """Why a round of a run released nothing, where it should have."""
    for measured in rounds:
        if (
            measured.total is None
            and measured.present >= bench.claim.least
            and "reached its cap" not in measured.error
        ):
            return f"round {measured.round} released nothing: {measured.error}"
        if measured.total is not None and not np.isfinite(measured.total).all():
            return f"round {measured.round} released values that are not finite"
    return ""


def _noise(bench: Bench, name: str, script: Callable[[int], Sequence[ClientReply | None]]) -> Outcome:
    if not bench.noise:
        return not_applicable(name, "the claim is without noise")
    claimed = "the claimed noise in every round" + (
        ", freed of that of earlier ones" if bench.claim.banded else ""
    )
    found: dict[int, list[Values]] = {}
    for _ in range(2 if bench.claim.rounds <= _FEW else 1):
        rounds = run(bench, script)
        error = lost(bench, rounds)
        if error:
            return judged(name, holds=False, claimed=claimed, seen=error, source=sources.ROUNDS)
        released = [measured for measured in rounds if measured.total is not None]
        if bench.claim.banded is not None and len(released) < len(rounds):
            released = released[: next(i for i, m in enumerate(rounds) if m.total is None)]
        released = [m for m in released if bench.claim.noise_of(m.present)]
        if not released:
            continue
        for measured, noise in zip(released, whitened(bench, released), strict=True):
            found.setdefault(measured.round, []).append(noise)
    ratios = {number: scale_of(np.concatenate(rows), 1.0) for number, rows in found.items()}
    if not ratios:
        return not_applicable(name, "no round released anything")
    sizes = {number: sum(map(len, rows)) for number, rows in found.items()}
    wrong = [
        number
        for number, ratio in ratios.items()
        if not scale_range(sizes[number], tests=len(ratios))[0]
        <= ratio
        <= scale_range(sizes[number], tests=len(ratios))[1]
    ]
    worst = max(wrong or ratios, key=lambda number: abs(math.log(max(ratios[number], 1e-12))))
    return judged(
        name,
        holds=not wrong,
        claimed=claimed,
        seen=f"{len(ratios)} rounds; furthest off is round {worst}, with {ratios[worst]:.3f} times as much",
        source=sources.ROUNDS,
    )


def _clip(bench: Bench) -> Outcome:
    name, direction = "clip in each round", bench.direction()
    claimed = "each client adds at most 1 clip in every round"
    rounds = run(bench, bench.all_send(direction, HUGE))
    error = lost(bench, rounds)
    if error:
        return judged(name, holds=False, claimed=claimed, seen=error, source=sources.ROUNDS)
    over, most, banded = [], 0.0, bench.claim.banded
    # Later noise of a banded matrix is larger than the first by no more than this.
    grown = 1.0 if banded is None else banded.column[0] * largest_deviation(banded.column, len(rounds))
    for measured in rounds:
        if measured.total is None or not measured.present:
            continue
        noise = bench.claim.noise_of(measured.present) * grown
        allowed = bench.claim.rounded * measured.present
        along = float(measured.total @ direction)
        most = max(most, along / allowed)
        if along > allowed * (1.0 + _SLACK) + (DEVIATIONS + 1.0) * noise:
            over.append(f"{along / measured.present:.3g} clips for each client in round {measured.round}")
    return judged(
        name,
        holds=not over,
        claimed=claimed,
        seen="; ".join(over[:2]) or f"{len(rounds)} rounds; at most {most:.3g} clips for each client",
        source=sources.ROUNDS,
    )


def _each_client(bench: Bench) -> Outcome:
    """Everybody sends long updates, each along a direction of its own."""
    name, claim = "clip of each client", bench.claim
    claimed = "no client adds more than 1 clip, whoever it is"
    own = bench.directions(claim.population)
    seen: dict[int, list[float]] = {}
    squares: dict[int, float] = {}
    for _ in range(4 * bench.runs):
        measured = bench.round(
            bench.quiet(),
            named=lambda members: [bench.reply(bench.update(own[m % len(own)], HUGE)) for m in members],
        )
        if measured.total is None or not np.isfinite(measured.total).all():
            if "no cohort of" in measured.error:
                return not_applicable(name, measured.error)
            return judged(
                name, holds=False, claimed=claimed, seen=measured.error or "NaN", source=sources.LOST
            )
        # Directions of more clients than there are parameters are not orthogonal.
        crowd = measured.present / bench.parameters if claim.population > bench.parameters else 0.0
        for member in measured.members:
            seen.setdefault(member, []).append(float(measured.total @ own[member % len(own)]))
            squares[member] = squares.get(member, 0.0) + claim.noise_of(measured.present) ** 2 + crowd
        if len(seen) >= claim.population and min(map(len, seen.values())) >= 2:
            break
    deviations = normal_quantile(tests=len(seen))
    over = {}
    for member, values in seen.items():
        slack = deviations * math.sqrt(squares[member]) / len(values) + _SLACK
        if np.mean(values) > claim.rounded + slack:
            over[member] = float(np.mean(values))
    worst = max(over, key=lambda member: over[member]) if over else None
    most = (
        ""
        if worst is None
        else f", of which {len(over)} too much; client {worst} added {over[worst]:.3g} clips"
    )
    return judged(
        name, holds=not over, claimed=claimed, seen=f"{len(seen)} clients{most}", source=sources.ONE_CLIENT
    )
