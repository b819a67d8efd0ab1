"""Client level, local noise: what each client uploads is a release of its own."""

from collections.abc import Mapping

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.bench import HUGE, Bench, Measured, Script, Values
from fedsafe.verify.client_noise import compared
from fedsafe.verify.client_rounds import run
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.statistics import (
    DEVIATIONS,
    normal_fits,
    normal_quantile,
    scale_fits,
    scale_of,
    scale_range,
)

_LIKELY = 0.02
# Uploads whose noise is compared with each other's.
_COMPARED = 40


def check_uploads(bench: Bench) -> list[Outcome]:
    """Noise of each client, its clip, its bad values, and that no two uploads share noise."""
    if bench.claim.mechanism != "local":
        return [not_applicable("noise of each client", "the claim is not about what a client uploads")]
    rounds = _until_everybody(bench, bench.quiet(), bench.runs)
    drawn = _by_client(rounds)
    claimed = (
        f"noise of {2.0 * bench.claim.noise:.4g} x clip on every upload: any two lie up to 2 clips apart"
    )
    if not drawn:
        seen = f"no upload: {rounds[0].error or 'no client replied'}"
        return [judged("noise of each client", holds=False, claimed=claimed, seen=seen, source=sources.LOST)]
    if not all(np.isfinite(rows).all() for rows in drawn.values()):
        seen = "uploads that are not finite"
        return [
            judged("noise of each client", holds=False, claimed=claimed, seen=seen, source=sources.NOT_FINITE)
        ]
    return [_noise(bench, drawn, claimed), _distribution(drawn), _reuse(bench), _clip(bench), _bad(bench)]


def _until_everybody(bench: Bench, script: Script, least: int) -> list[Measured]:
    """So many rounds at least, and more until every client has sent something, or it takes too long."""
    rounds: list[Measured] = []
    seen: set[int] = set()
    while len(rounds) < least or (len(seen) < bench.claim.population and len(rounds) < 4 * bench.runs):
        rounds.append(bench.round(script))
        seen |= set(rounds[-1].uploads)
        if not seen:
            break
    return rounds


def _by_client(rounds: list[Measured]) -> dict[int, Values]:
    """Client to ``(times, parameters)`` what it uploaded."""
    found: dict[int, list[Values]] = {}
    for measured in rounds:
        for member, upload in measured.uploads.items():
            found.setdefault(member, []).append(upload)
    return {member: np.stack(rows) for member, rows in found.items()}


def _noise(bench: Bench, drawn: Mapping[int, Values], claimed: str) -> Outcome:
    deviation = 2.0 * bench.claim.noise
    whole = np.concatenate([rows.ravel() for rows in drawn.values()])
    wrong = {}
    for member, rows in drawn.items():
        # As many tests as clients.
        low, high = scale_range(rows.size, tests=len(drawn))
        ratio = scale_of(rows, deviation)
        if not low <= ratio <= high:
            wrong[member] = ratio
    ratio = scale_of(whole, deviation)
    seen = f"{ratio:.3f} times as much, over {len(drawn)} clients"
    if wrong:
        worst = min(wrong, key=lambda member: wrong[member])
        seen += f"; {wrong[worst]:.3f} times as much of client {worst}"
    half = abs(ratio - 0.5) < _LIKELY
    return judged(
        "noise of each client",
        holds=not wrong and scale_fits(whole, deviation),
        claimed=claimed,
        seen=seen + (", noise for a sensitivity of 1 clip" if half else ""),
        source=sources.UPLOADS,
    )


def _distribution(drawn: Mapping[int, Values]) -> Outcome:
    whole = np.concatenate([rows.ravel() for rows in drawn.values()])
    normal, distance = normal_fits(whole[:100_000])
    return judged(
        "noise of each client, distribution",
        holds=normal,
        claimed="Gaussian noise, independent in each coordinate",
        seen=f"a distance of {distance:.4f} from the normal distribution",
        source=sources.NORMAL,
    )


def _reuse(bench: Bench) -> Outcome:
    """Clients of one round, rounds of one client, and a restart."""
    session = bench.server.start()
    last = min(3, bench.claim.rounds)
    asked = [(session, f"round {r}", r) for r in range(1, last + 1)]
    drawn = []
    for current, what, round in asked:
        measured = bench.round(bench.quiet(), session=current, round=round)
        drawn += [(f"client {member} in {what}", upload) for member, upload in measured.uploads.items()]
    restored = bench.server.restart(session)
    measured = bench.round(bench.quiet(), session=restored, round=last)
    drawn += [(f"client {m} in round {last} after a restart", u) for m, u in measured.uploads.items()]
    few = bench.rng.permutation(len(drawn))[:_COMPARED]
    return compared("noise reuse among uploads", [drawn[i] for i in sorted(few)], bench.parameters)


def _clip(bench: Bench) -> Outcome:
    """Uploads of long updates, along them: one client's, and all together."""
    name, direction = "clip of each upload", bench.direction()
    claimed = "an upload is at most 1 clip long, but for its noise"
    # In rounds of any number: a clip may be missing in one of them.
    rounds = _until_everybody(bench, bench.all_send(direction, HUGE), bench.few)
    rounds += run(bench, bench.all_send(direction, HUGE))
    along = {member: rows @ direction for member, rows in _by_client(rounds).items()}
    if not along or not all(np.isfinite(values).all() for values in along.values()):
        seen = "no upload, or one that is not finite"
        return judged(name, holds=False, claimed=claimed, seen=seen, source=sources.LOST)
    deviation, mean = 2.0 * bench.claim.noise, float(np.mean(np.concatenate(list(along.values()))))
    count = sum(len(values) for values in along.values())
    each = {
        f"client {member} in round {measured.round}": float(upload @ direction)
        for measured in rounds
        for member, upload in measured.uploads.items()
    }
    most = 1.0 + _LIKELY + normal_quantile(tests=len(each)) * deviation
    single = {what: value for what, value in each.items() if value > most}
    over = {
        f"client {member}": float(values.mean())
        for member, values in along.items()
        if values.mean() > 1.0 + _LIKELY + (DEVIATIONS + 1.0) * deviation / len(values) ** 0.5
    }
    worst = "".join(f"; {value:.3g} of {what}" for what, value in list((over | single).items())[:2])
    return judged(
        name,
        holds=not over and not single and mean <= 1.0 + _LIKELY + DEVIATIONS * deviation / count**0.5,
        claimed=claimed,
        seen=f"{mean:.3g} clips on average over {count} uploads{worst}",
        source=sources.CLIP,
    )


def _bad(bench: Bench) -> Outcome:
    """What is uploaded in the place of an update that is no number."""
    name, claimed = "uploads of bad updates", "noise, and nothing else"
    deviation, wrong = 2.0 * bench.claim.noise, []
    for what, value, copies in (
        ("NaN", np.nan, 1),
        ("infinite values", np.inf, 1),
        ("zeros", 0.0, 1),
        ("a second ArrayRecord", 0.0, 2),
    ):
        reply = bench.reply(np.full(bench.parameters, value, np.float32), copies=copies)
        rows = list(_by_client([bench.round(lambda n, r=reply: [r] * n)]).values())  # type: ignore[misc]
        values = np.concatenate([part.ravel() for part in rows]) if rows else np.empty(0)
        if not values.size and copies > 1:
            continue  # it was refused
        if not values.size:
            wrong.append(f"no upload of {what}")
        elif not np.isfinite(values).all():
            wrong.append(f"{what} were uploaded")
        elif not scale_fits(values, deviation):
            wrong.append(
                f"noise of {scale_of(values, deviation):.3f} times the claimed in the place of {what}"
            )
    return judged(
        name,
        holds=not wrong,
        claimed=claimed,
        seen="; ".join(wrong) or "so it was",
        source=sources.NOT_FINITE,
    )
