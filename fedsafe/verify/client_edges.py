"""Client level: updates that are no honest client's, and cohorts that are empty."""

from collections.abc import Mapping

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.bench import Bench, Measured, Values
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.server import ClientReply
from fedsafe.verify.statistics import DEVIATIONS, scale_fits, scale_of


def check_bad_updates(bench: Bench) -> list[Outcome]:
    """One client sends NaN, infinities, huge values, zeros, or an error; the others' sum must come through."""
    count = bench.parameters
    one_nan = bench.update(bench.direction(), 0.5)
    one_nan[count // 2] = np.nan
    direction = bench.direction()
    # In ten records each of which may pass for one.
    several = bench.reply(bench.update(direction, 100.0), copies=10)
    bad: Mapping[str, tuple[ClientReply, str]] = {
        "a NaN": (bench.reply(one_nan), sources.NOT_FINITE),
        "infinite values": (bench.reply(np.full(count, np.inf, np.float32)), sources.NOT_FINITE),
        "values of 1e30": (bench.reply((np.sign(direction) * 1e30).astype(np.float32)), sources.NOT_FINITE),
        "zeros": (bench.reply(np.zeros(count, np.float32)), sources.ZERO),
        "an error": (bench.reply(np.zeros(count, np.float32), failed=True), sources.LOST),
        "several ArrayRecords": (several, sources.SEVERAL_RECORDS),
    }
    return [_one_bad(bench, what, reply, source, direction) for what, (reply, source) in bad.items()]


def _one_bad(bench: Bench, what: str, reply: ClientReply, source: str, direction: Values) -> Outcome:
    name = f"one client sends {what}"
    claimed = "the round releases the others' sum and its noise, and this client moves it by at most 1 clip"
    script = bench.one_differs(reply, bench.reply(bench.update(direction, -0.5)))
    rounds = [bench.round(script, least=2) for _ in range(bench.few)]
    problem = _problem(bench, rounds, direction)
    if problem.startswith("no cohort of"):
        return not_applicable(name, problem)
    seen = problem or "so it was"
    return judged(name, holds=not problem, claimed=claimed, seen=seen, source=source)


def _problem(bench: Bench, rounds: list[Measured], direction: Values) -> str:
    lost = [measured.error for measured in rounds if measured.total is None]
    if lost:
        return lost[0] if lost[0].startswith("no cohort") else f"nothing was released: {lost[0]}"
    totals = [measured.total for measured in rounds if measured.total is not None]
    if not all(np.isfinite(total).all() for total in totals):
        return "values that are not finite were released"
    if bench.claim.divisor == "realised" or bench.claim.weights == "examples":
        return ""
    # A client that failed or is dropped changes no divisor: the others send half a clip each.
    others = [-0.5 * (len(measured.members) - 1) for measured in rounds]
    moved = float(np.mean([total @ direction - due for total, due in zip(totals, others, strict=True)]))
    slack = DEVIATIONS * bench.error(rounds) + 0.02 * max(1.0, -float(np.mean(others)))
    if abs(moved) > bench.claim.rounded + slack:
        return f"this client moved the sum by {moved:.2f} clips"
    noise = np.concatenate(
        [bench.standard(m, due * direction) for m, due in zip(rounds, others, strict=True)]
    )
    if bench.noise and not scale_fits(noise, 1.0) and not _without_its_share(bench, rounds, noise):
        ratio = scale_of(noise, 1.0)
        # Where the claimed scale is never met, another check says so.
        usual = np.concatenate([_quiet(bench) for _ in range(bench.few)])
        if usual.size and not scale_fits(noise, scale_of(usual, 1.0)):
            return f"the noise was {ratio:.3f} times the claimed"
    return ""


def _without_its_share(bench: Bench, rounds: list[Measured], noise: Values) -> bool:
    """Whether a client that sends what is no update was counted as one that dropped out, with its share of noise."""
    if bench.claim.mechanism != "distributed":
        return False
    left = [
        bench.claim.noise_of(measured.present - 1) / bench.claim.noise_of(measured.present)
        for measured in rounds
    ]
    return scale_fits(noise / np.repeat(left, bench.parameters), 1.0)


def _quiet(bench: Bench) -> Values:
    measured = bench.round(bench.quiet())
    return np.empty(0) if measured.total is None else bench.standard(measured)


def check_empty(bench: Bench) -> list[Outcome]:
    """Nobody replies: what is released is noise."""
    name = "empty cohort"
    if bench.claim.mechanism in ("local", "distributed"):
        return [not_applicable(name, "the noise is the clients': without them nothing private is released")]
    if bench.claim.sampler != "poisson" or bench.claim.share == 1.0:
        return [not_applicable(name, f"a sampler that draws {bench.claim.sampler} never draws nobody")]
    claimed = "a cohort of nobody releases noise, as any other does"
    rounds = [bench.round(lambda members: [None] * members, least=0) for _ in range(bench.few)]
    lost = [measured.error for measured in rounds if measured.total is None]
    if lost:
        seen, holds = f"nothing was released in {len(lost)} of {len(rounds)} rounds: {lost[0]}", False
    else:
        noise = np.concatenate([measured.total for measured in rounds if measured.total is not None])
        holds = bool(np.isfinite(noise).all()) and (
            bench.claim.divisor == "realised" or not bench.noise or scale_fits(noise, bench.noise)
        )
        seen = f"noise of {scale_of(noise, bench.noise or 1.0):.3f} times the claimed"
    return [judged(name, holds=holds, claimed=claimed, seen=seen, source=sources.EMPTY)]
