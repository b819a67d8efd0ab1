"""Client level, noise that clients add together: of the survivors, of each of them, and none of it without enough."""

import math
from collections.abc import Sequence

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.bench import HUGE, TINY, Bench, Measured
from fedsafe.verify.masked import PARTY
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.server import ClientReply
from fedsafe.verify.statistics import DEVIATIONS, scale_of, scale_range

_SLACK = 0.02
# A share that is missing must show in so many deviations of its client's mean.
_SURE = 1.6


def check_distributed(bench: Bench) -> list[Outcome]:
    """Shares of noise, dropouts, the modulus and rounding."""
    if bench.claim.distributed is None:
        return [
            not_applicable("noise of the survivors", "the claim's noise is not added by clients together")
        ]
    outcomes = [_too_few(bench), _wraps(bench), _rounding(bench)]
    if not bench.noise:
        return [not_applicable("noise of the survivors", "the claim is without noise"), *outcomes]
    if bench.masked is not None and bench.masked.population >= PARTY:
        # There the sum is what one client has put in, which takes a round and not hundreds.
        alone = not_applicable("share of each client", "each is looked at alone, behind masks")
        return [_survivors(bench), alone, *outcomes]
    return [_survivors(bench), _shares(bench), *outcomes]


def _silent(bench: Bench) -> ClientReply:
    """Zeros: nothing is rounded, so that all that is released is noise."""
    return bench.reply(np.zeros(bench.parameters, np.float32))


def _survivors(bench: Bench) -> Outcome:
    """As much noise as there are survivors, whether few of them are left or all."""
    name, least = "noise of the survivors", bench.claim.least
    claimed = f"noise of variance {bench.claim.noise_of(1.0) ** 2:.4g} clips^2 from each client that survives"
    silent, found, wrong = _silent(bench), [], False
    for what, kept in (("the fewest", least), ("everybody", bench.claim.population)):
        rounds = [
            bench.round(lambda n, kept=kept: [silent if i < kept else None for i in range(n)])  # type: ignore[misc]
            for _ in range(bench.runs)
        ]
        error = _error(rounds)
        if error:
            return _unmeasured(name, claimed, error)
        noise = np.concatenate([bench.standard(measured) for measured in rounds])
        low, high = scale_range(noise.size, tests=2)
        ratio = scale_of(noise, 1.0)
        wrong |= not low <= ratio <= high
        found.append(f"{ratio:.3f} times as much where {what} survive")
    return judged(name, holds=not wrong, claimed=claimed, seen=", ".join(found), source=sources.SURVIVORS)


def _shares(bench: Bench) -> Outcome:
    """The noise of rounds in which a client is one of the fewest that may survive: its share is missed there."""
    name, claim = "share of each client", bench.claim
    claimed = "every client adds its share of the noise"
    silent, least = _silent(bench), claim.least
    # One share is this part of a round's variance: so many rounds show that it is not there.
    needed = math.ceil(2.0 / bench.parameters * (_SURE * DEVIATIONS * least) ** 2)
    seen: dict[int, list[float]] = {member: [] for member in range(claim.population)}
    limit = 4 * bench.runs + math.ceil(2.0 * needed * claim.population / least)
    for _ in range(limit):
        chosen: list[int] = []

        def few(members: Sequence[int], chosen: list[int] = chosen) -> list[ClientReply | None]:
            # Those who were seen least, with some chance about who is among them.
            order = sorted(members, key=lambda m: len(seen.get(m, [])) + bench.rng.uniform(0.0, 1.5))
            chosen[:] = order[:least]
            return [silent if member in chosen else None for member in members]

        measured = bench.round(bench.quiet(), named=few)
        if measured.total is None:
            return _unmeasured(name, claimed, measured.error)
        energy = float(np.mean(bench.standard(measured) ** 2))
        for member in chosen:
            seen[member].append(energy)
        if min(map(len, seen.values())) >= needed:
            break
    ratios = {
        member: (
            math.sqrt(float(np.mean(energies))),
            scale_range(len(energies) * bench.parameters, tests=len(seen)),
        )
        for member, energies in seen.items()
        if energies
    }
    wrong = [member for member, (ratio, (low, high)) in ratios.items() if not low <= ratio <= high]
    worst = min(ratios, key=lambda member: ratios[member][0])
    return judged(
        name,
        holds=not wrong,
        claimed=claimed,
        seen=f"{ratios[worst][0]:.3f} times the claimed noise where client {worst} was one of {least} survivors, the "
        f"least of {len(ratios)} clients",
        source=sources.SURVIVORS,
    )


def _too_few(bench: Bench) -> Outcome:
    """Below the minimum, with absent clients, failing ones, and nobody at all."""
    name, least = "too few survivors", bench.claim.least
    claimed = f"nothing is released below {least} survivors"
    direction, found = bench.direction(), []
    reply = bench.reply(bench.update(direction, HUGE))
    failed = bench.reply(bench.update(direction, HUGE), failed=True)
    for what, kept, other in (
        (f"{least - 1} survivors", least - 1, None),
        (f"{least - 1} survivors and errors of the rest", least - 1, failed),
        ("no survivor", 0, None),
    ):
        for _ in range(bench.few):
            measured = bench.round(
                lambda n, k=kept, o=other: [reply if i < k else o for i in range(n)]  # type: ignore[misc]
            )
            if "no cohort of" in measured.error:
                return not_applicable(name, measured.error)
            if measured.total is not None:
                found.append(what)
                break
    return judged(
        name,
        holds=not found,
        claimed=claimed,
        seen="a model was released with " + ", and with ".join(found) if found else "so it was",
        source=sources.SURVIVORS,
    )


def _wraps(bench: Bench) -> Outcome:
    """Everybody sends as much as they can in one value, or in all of them: the sum must come out as it is."""
    name = "no wrapping around"
    claimed = "the sum of all clients fits the modulus, whatever they send"
    single = np.zeros(bench.parameters)
    single[bench.parameters // 3] = 1.0
    flat = np.full(bench.parameters, bench.parameters**-0.5)
    worst = 0.0
    for direction in (single, -single, flat, bench.direction()):
        rounds = [bench.round(bench.all_send(direction, 1e8)) for _ in range(bench.few)]
        error = _error(rounds)
        if error:
            return _unmeasured(name, claimed, error)
        for measured in rounds:
            if measured.total is None:
                continue
            along = float(measured.total @ direction)
            rest = (
                bench.standard(measured, along * direction)
                if bench.noise
                else measured.total - along * direction
            )
            off = abs(along - measured.present) - _SLACK * measured.present
            most = (DEVIATIONS + 2.0) * bench.claim.noise_of(measured.present)
            # What wraps around leaves its direction, by far more than any noise.
            if off > most or (bench.noise and float(np.max(np.abs(rest))) > 10.0):
                worst = max(worst, off, float(np.max(np.abs(rest))))
    return judged(
        name,
        holds=not worst,
        claimed=claimed,
        seen=f"the sum was off by {worst:.3g} clips" if worst else "so it did",
        source=sources.WRAPPED,
    )


def _rounding(bench: Bench) -> Outcome:
    """Updates far below the grid, all alike: whatever they are rounded to must not be longer than the bound."""
    name = "rounded updates"
    claimed = f"an update is at most {bench.claim.rounded:.4g} clips long once it is rounded"
    worst, slack = 0.0, 0.0
    signs = bench.rng.choice([-1.0, 1.0], bench.parameters) / math.sqrt(bench.parameters)
    for clips in (TINY, 0.1, 1.0):
        rounds = [bench.round(bench.all_send(signs, clips)) for _ in range(bench.few)]
        error = _error(rounds)
        if error:
            return _unmeasured(name, claimed, error)
        present = float(np.mean([measured.present for measured in rounds]))
        along = float(np.mean([m.total @ signs for m in rounds if m.total is not None])) / present
        worst = max(worst, along)
        slack = max(slack, DEVIATIONS * bench.error(rounds) / present + _SLACK)
    return judged(
        name,
        holds=worst <= bench.claim.rounded + slack,
        claimed=claimed,
        seen=f"up to {worst:.3g} clips for each client (give or take {slack:.2g})",
        source=sources.ROUNDED,
    )


def _error(rounds: Sequence[Measured]) -> str:
    for measured in rounds:
        if measured.total is None:
            return measured.error
        if not np.isfinite(measured.total).all():
            return "values that are not finite"
    return ""


def _unmeasured(name: str, claimed: str, error: str) -> Outcome:
    if "no cohort of" in error:
        return not_applicable(name, error)
    return judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)
