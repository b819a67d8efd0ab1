"""Client level: the noise's scale, its distribution, and that no noise is used twice."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from fedsafe.params import Vector
from fedsafe.verify import sources
from fedsafe.verify.bench import Bench, Measured, Values
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.server import Session
from fedsafe.verify.statistics import (
    correlation_bound,
    largest_correlation,
    normal_fits,
    scale_fits,
    scale_of,
    scale_range,
)


def check_noise(bench: Bench) -> list[Outcome]:
    """Scale over all tensors, in each tensor, and the distribution."""
    claimed = f"noise of {bench.noise:.4g} x clip on the sum of updates" + (
        f" of {bench.claim.expected:g} clients" if bench.claim.noise_of(1.0) != bench.noise else ""
    )
    if not bench.noise:
        return [not_applicable("noise scale", "the claim is without noise")]
    rounds = [bench.round(bench.quiet()) for _ in range(bench.runs)]
    lost = [measured.error for measured in rounds if measured.total is None]
    drawn = [bench.standard(measured) for measured in rounds if measured.total is not None]
    if lost or not np.isfinite(np.concatenate(drawn)).all():
        seen = (
            f"{len(lost)} of {bench.runs} rounds with small updates released nothing: {lost[0]}"
            if lost
            else "NaN"
        )
        return [judged("noise scale", holds=False, claimed=claimed, seen=seen, source=sources.LOST)]
    noise = np.stack(drawn)
    outcomes = [_scale(bench, noise, claimed), _each_tensor(bench, noise), _each_value(noise)]
    normal, distance = normal_fits(noise.ravel())
    outcomes.append(
        judged(
            "noise distribution",
            holds=normal,
            claimed="Gaussian noise, independent in each coordinate",
            seen=f"a distance of {distance:.4f} from the normal distribution, over {noise.size} values",
            source=sources.NORMAL,
        )
    )
    return outcomes


def _scale(bench: Bench, noise: Values, claimed: str) -> Outcome:
    ratio = scale_of(noise, 1.0)
    holds = scale_fits(noise.ravel(), 1.0)
    seen, source = f"{ratio:.3f} times as much, over {noise.size} values", sources.SCALE
    adaptive = bench.claim.adaptive_clip
    if not holds and adaptive is not None:
        for share in (
            1.0,
            0.0,
        ):  # nobody was clipped: as the share unclipped, or by mistake as the share clipped
            moved = np.exp(-adaptive.learning_rate * (share - adaptive.quantile))
            if abs(ratio / moved - 1.0) < 0.03:
                seen += (
                    f", which is what the clip becomes after the round ({moved:.3f} of the one that was used)"
                )
                source = sources.CLIP_USED
                break
    return judged("noise scale", holds=holds, claimed=claimed, seen=seen, source=source)


def _each_tensor(bench: Bench, noise: Values) -> Outcome:
    layout = bench.server.layout
    parts = np.split(noise, np.cumsum(layout.sizes)[:-1], axis=1)
    ratios = {name: scale_of(part, 1.0) for name, part in zip(layout.names, parts, strict=True)}
    wrong = [
        name for name, part in zip(layout.names, parts, strict=True) if not scale_fits(part.ravel(), 1.0)
    ]
    return judged(
        "noise in each tensor",
        holds=not wrong,
        claimed="the same noise in every tensor",
        seen=", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items()) + " times the claimed",
        source=sources.SCALE,
    )


def _each_value(noise: Values) -> Outcome:
    """Values that are noised less than they can be by chance: a few of them move no tensor's scale."""
    rounds, values = noise.shape
    ratios = np.sqrt(np.mean(noise**2, axis=0))
    low, _ = scale_range(rounds, tests=values)
    least = int(np.argmin(ratios))
    return judged(
        "noise in each value",
        holds=bool(ratios[least] >= low),
        claimed="the same noise on every value of the model",
        seen=f"{ratios[least]:.3g} times the claimed on value {least}, the least of {values}",
        source=sources.SCALE,
    )


def check_reuse(bench: Bench) -> list[Outcome]:
    """Rounds, a restart, and a restart that asks for an old round with another model."""
    name = "noise reuse"
    if bench.claim.mechanism == "banded":
        return [not_applicable(name, "rounds share noise as the matrix says: see noise over rounds")]
    if not bench.noise:
        return [not_applicable(name, "the claim is without noise")]
    last = min(3, max(2, bench.claim.rounds))
    first, model = bench.server.start(), bench.model()
    drawn = [(f"round {r}", _noise(bench, first, r, model)) for r in range(1, last + 1)]
    again = bench.server.restart(first)
    later = range(last + 1, min(last + 3, max(bench.claim.rounds, last + 1)))
    if bench.claim.rounds > last:
        drawn += [(f"round {r} after a restart", _noise(bench, again, r, bench.model())) for r in later]
    for old in (1, last):
        restored = bench.server.restart(first)
        drawn.append(
            (
                f"round {old} again, after a restart, from another model",
                _noise(bench, restored, old, bench.model()),
            )
        )
    known = [(what, m.total) for what, m in drawn if m.total is not None and np.isfinite(m.total).all()]
    outcomes = [compared(name, known, bench.parameters)]
    if bench.claim.adaptive_clip is None:
        outcomes.append(_after_restarts(bench, [(what, m) for what, m in drawn if "restart" in what]))
    return outcomes


def _after_restarts(bench: Bench, drawn: Sequence[tuple[str, Measured]]) -> Outcome:
    """A server that comes back may have lost its noise, or its scale."""
    name = "noise after a restart"
    due = [m for _, m in drawn if m.total is not None and bench.claim.noise_of(m.present)]
    ratios = [scale_of(bench.standard(measured), 1.0) for measured in due]
    if not ratios:
        return not_applicable(name, "no round after a restart released anything")
    low, high = scale_range(bench.parameters, tests=len(ratios))
    worst = max(ratios, key=lambda ratio: abs(ratio - 1.0))
    return judged(
        name,
        holds=low <= worst <= high,
        claimed="the claimed noise in every round, also of a server that was started again",
        seen=f"{worst:.3f} times as much, the furthest off of {len(ratios)} rounds",
        source=sources.ROUNDS,
    )


def _noise(bench: Bench, session: Session, round: int, model: Vector) -> Measured:
    return bench.round(bench.quiet(), session=session, round=round, model=model)


def compared(name: str, known: Sequence[tuple[str, Values]], parameters: int) -> Outcome:
    """Whether any two of some releases share noise, at any shift."""
    pairs = list(combinations(known, 2))
    if not pairs:
        return not_applicable(name, "fewer than two rounds released anything")
    bound = correlation_bound(parameters, len(pairs))
    worst = max(pairs, key=lambda pair: largest_correlation(pair[0][1], pair[1][1]))
    correlation = largest_correlation(worst[0][1], worst[1][1])
    return judged(
        name,
        holds=correlation < bound,
        claimed="independent noise in every release that has other inputs",
        seen=f"correlation {correlation:.3f} between {worst[0][0]} and {worst[1][0]} ({len(pairs)} pairs of releases)",
        source=sources.REUSE,
    )
