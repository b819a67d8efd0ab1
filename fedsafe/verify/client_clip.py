"""Client level: how far clients can move the released sum, whatever they send."""

import math
from collections.abc import Sequence

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.bench import HUGE, TINY, Bench, Measured, Values
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.server import ClientReply
from fedsafe.verify.statistics import DEVIATIONS, scale_of

# An update that is far too long for anything but a clip.
_GIANT = 1e6
_SLACK = 0.02
_OF_UPLOADS = "the claim is about each upload: what becomes of them is post-processing"


def check_clip(bench: Bench) -> list[Outcome]:
    """All tensors together, each tensor alone, and one client among many."""
    if bench.claim.mechanism == "local":
        return [not_applicable("clip over all tensors", _OF_UPLOADS)]
    outcomes = [_whole(bench)]
    names, worst = bench.server.layout.names, (0.0, "")
    failed = False
    for tensor, name in enumerate(names):
        moved, allowed, slack, error = _moved(bench, bench.direction(tensor), HUGE)
        if error:
            return [*outcomes, _lost("clip in one tensor", "a bounded sum", error)]
        failed |= moved > allowed + slack
        worst = max(worst, (moved / max(allowed, 1.0), name))
    outcomes.append(
        judged(
            "clip in one tensor",
            holds=not failed,
            claimed="each client adds at most 1 clip, in whichever tensor its update lies",
            seen=f"at most {worst[0]:.3g} clips for each client, in {worst[1]}",
            source=sources.CLIP,
        )
    )
    outcomes.append(_one_among_many(bench))
    return outcomes


def _whole(bench: Bench) -> Outcome:
    name = "clip over all tensors"
    moved, allowed, slack, error = _moved(bench, bench.direction(), HUGE)
    if error:
        return _lost(name, "a bounded sum", error)
    factor = moved / max(allowed, 1.0)
    tensors = len(bench.server.layout.names)
    each = abs(factor / math.sqrt(tensors) - 1.0) < 0.1
    return judged(
        name,
        holds=moved <= allowed + slack,
        claimed="each client adds at most 1 clip, all tensors together",
        seen=f"{factor:.3g} clips for each client"
        + (f", the square root of {tensors} tensors" if each and factor > 1.0 + _SLACK else ""),
        source=sources.PER_TENSOR if each else sources.CLIP,
    )


def _moved(bench: Bench, direction: Values, clips: float) -> tuple[float, float, float, str]:
    """How far everybody together moves the sum, how far they may, the slack of the measurement, and an error."""
    count = bench.enough(0.4 * bench.claim.expected)
    rounds = [bench.round(bench.all_send(direction, clips)) for _ in range(count)]
    error = _error(rounds)
    if error:
        return 0.0, 0.0, 0.0, error
    along = [float(total @ direction) for total in _totals(rounds)]
    allowed = float(np.mean([measured.present for measured in rounds]))
    slack = DEVIATIONS * bench.error(rounds) + _SLACK * allowed
    return float(np.mean(along)), bench.claim.rounded * allowed, slack, ""


def _one_among_many(bench: Bench) -> Outcome:
    name = "one client among many"
    direction = bench.direction()
    script = bench.one_differs(
        bench.reply(bench.update(direction, _GIANT)),
        bench.reply(bench.update(bench.direction(), TINY)),
    )
    rounds = [bench.round(script) for _ in range(bench.enough(0.5 * bench.claim.expected))]
    claimed = "one client moves the sum by at most 1 clip"
    error = _error(rounds)
    if error:
        return _lost(name, claimed, error)
    moved = float(np.mean([total @ direction for total in _totals(rounds)]))
    slack = DEVIATIONS * bench.error(rounds) + _SLACK
    return judged(
        name,
        holds=moved <= bench.claim.rounded + slack,
        claimed=claimed,
        seen=f"{moved:.2f} clips (give or take {slack:.2f}), where the others sent next to nothing",
        source=sources.EACH,
    )


def check_neighbours(bench: Bench) -> list[Outcome]:
    """Weights, absent clients and the size of the cohort: what else one client can change."""
    if bench.claim.mechanism == "local":
        return [not_applicable("weights", _OF_UPLOADS)]
    return [_weights(bench), _counts(bench), _absent(bench), _sizes(bench)]


def _weights(bench: Bench) -> Outcome:
    name = "weights"
    if bench.claim.weights == "examples":
        return not_applicable(name, "the claim's weights are examples")
    direction = bench.direction()
    script = bench.one_differs(
        bench.reply(bench.update(direction, HUGE), examples=max(1_000_000, bench.full)),
        bench.reply(bench.update(-direction, HUGE), examples=bench.full if bench.claim.cap else 1),
    )
    rounds = [bench.round(script, least=2) for _ in range(bench.enough(bench.claim.expected))]
    claimed = (
        "every client counts the same, however many examples it says it has"
        if bench.claim.cap is None
        else f"no client counts more than one with {bench.claim.cap} examples"
    )
    error = _error(rounds)
    if error:
        return _unmeasured(name, claimed, error)
    along = float(np.mean([total @ direction for total in _totals(rounds)]))
    even = float(np.mean([2.0 - measured.present for measured in rounds]))
    slack = DEVIATIONS * bench.error(rounds) + _SLACK * abs(even)
    return judged(
        name,
        holds=along <= even + slack,
        claimed=claimed,
        seen=f"one client with most examples against all others moved the sum to {along:.2f} clips, "
        f"where even weights give {even:.2f}",
        source=sources.WEIGHTS,
    )


def _counts(bench: Bench) -> Outcome:
    """Counts of examples that no honest client has."""
    name = "impossible counts of examples"
    if bench.claim.weights == "examples":
        return not_applicable(name, "the claim's weights are examples")
    claimed = "a client moves the sum by at most 1 clip, whatever it says it has"
    direction, worst, slack = bench.direction(), 0.0, 0.0
    for examples in (0, -1_000_000, 2**40):
        script = bench.one_differs(
            bench.reply(bench.update(direction, HUGE), examples=examples),
            bench.reply(bench.update(bench.direction(), TINY)),
        )
        rounds = [bench.round(script, least=2) for _ in range(bench.enough(2.0))]
        error = _error(rounds)
        if error:
            return _unmeasured(name, claimed, error)
        moved = float(np.mean([total @ direction for total in _totals(rounds)]))
        worst, slack = max(worst, abs(moved)), max(slack, DEVIATIONS * bench.error(rounds) + _SLACK)
    return judged(
        name,
        holds=worst <= bench.claim.rounded + slack,
        claimed=claimed,
        seen=f"at most {worst:.2f} clips (give or take {slack:.2f})",
        source=sources.WEIGHTS,
    )


def _absent(bench: Bench) -> Outcome:
    name = "absent clients"
    if bench.claim.divisor != "expected":
        return not_applicable(name, "the claim divides by how many took part")
    direction = bench.direction()
    reply = bench.reply(bench.update(direction, HUGE))

    def half(members: int) -> Sequence[ClientReply | None]:
        stay = max((members + 1) // 2, bench.claim.least)
        return [reply if index < stay else None for index in range(members)]

    rounds = [bench.round(half, least=2) for _ in range(bench.enough(0.5 * bench.claim.expected))]
    claimed = "an absent client adds nothing, and changes nothing else: the divisor is public"
    error = _error(rounds)
    if error:
        return _lost(
            name, claimed, f"half of a cohort replied, and nothing was released: {error}", sources.LOST
        )
    along = float(np.mean([total @ direction for total in _totals(rounds)]))
    due = float(np.mean([measured.present for measured in rounds]))
    slack = DEVIATIONS * bench.error(rounds) + _SLACK * due
    noise = scale_of(
        np.concatenate(
            [bench.standard(m, (m.total @ direction) * direction) for m in rounds if m.total is not None]
        ),
        1.0,
    )
    # Whoever divides by the replies divides the noise by them too.
    louder = bool(bench.noise) and noise > 1.2
    return judged(
        name,
        holds=abs(along - due) <= slack and not louder,
        claimed=claimed,
        seen=f"half of the cohort's updates came to {along:.2f} clips (give or take {slack:.2f}), where a divisor of "
        f"{bench.claim.expected:g} gives {due:.2f}"
        + (f"; noise of {noise:.2f} times the claimed" if louder else ""),
        source=sources.DIVISOR,
    )


def _sizes(bench: Bench) -> Outcome:
    name = "divisor"
    if bench.claim.divisor != "expected":
        return not_applicable(name, "the claim divides by how many took part")
    direction = bench.direction()
    rounds = [bench.round(bench.all_send(direction, 0.5)) for _ in range(bench.runs)]
    claimed = f"the sum divided by {bench.claim.expected:g}, however many were drawn"
    error = _error(rounds)
    if error:
        return _unmeasured(name, claimed, error)
    due = np.array([0.5 * measured.present for measured in rounds])
    along = np.array([total @ direction for total in _totals(rounds)])
    deviation = bench.error(rounds)
    shift = abs(float(np.mean(along - due)))
    # What the size of a cohort explains, against what it should: a slope of one.
    spread = due - due.mean()
    slope, off = 1.0, 0.0
    if np.sum(spread**2) > 0.0:
        slope = float(spread @ along / np.sum(spread**2))
        off = abs(slope - 1.0) / max(bench.noise / math.sqrt(float(np.sum(spread**2))), _SLACK / DEVIATIONS)
    holds = shift <= DEVIATIONS * deviation + _SLACK * float(due.mean()) and off <= DEVIATIONS
    return judged(
        name,
        holds=holds,
        claimed=claimed,
        seen=f"{float(along.mean()):.2f} clips on average where {float(due.mean()):.2f} were sent; a cohort larger by "
        f"one client's clip released {slope:.2f} more",
        source=sources.DIVISOR,
    )


def _totals(rounds: Sequence[Measured]) -> list[Values]:
    return [measured.total for measured in rounds if measured.total is not None]


def _error(rounds: Sequence[Measured]) -> str:
    """Why the rounds cannot be measured, if they cannot."""
    lost = [measured.error for measured in rounds if measured.total is None]
    if lost:
        return lost[0]
    return "" if all(np.isfinite(total).all() for total in _totals(rounds)) else "values that are not finite"


def _lost(name: str, claimed: str, seen: str, source: str = sources.LOST) -> Outcome:
    return judged(name, holds=False, claimed=claimed, seen=seen, source=source)


def _unmeasured(name: str, claimed: str, error: str) -> Outcome:
    if "no cohort of" in error:
        return not_applicable(name, error)
    return _lost(name, claimed, error)
