"""Client level: which way an adaptive clip moves, and whether its noise moves with it."""

import math
from dataclasses import dataclass

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.bench import Bench
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.statistics import DEVIATIONS

_ROUNDS = 10
# Sessions whose clip and noise are compared: one says which way the clip goes, but not by a tenth how far.
_SESSIONS = 3


@dataclass(frozen=True, kw_only=True)
class _Course:
    """What a session of equal rounds showed.

    Args:
        noise: Noise over the claimed first one, in each round.
        clip: Clip that was used over the claimed first one, in each round; empty where nothing was clipped.
        members: Mean size of the cohorts.
        error: Why there is no course.
    """

    noise: list[float]
    clip: list[float]
    members: float
    error: str = ""


def check_adaptive(bench: Bench) -> list[Outcome]:
    """Down where nothing is clipped, up where everything is, and the noise along with the clip."""
    adaptive = bench.claim.adaptive_clip
    if adaptive is None:
        return [not_applicable("adaptive clip", "the claim's clip is fixed")]
    if not bench.noise:
        return [not_applicable("adaptive clip", "without noise, a clip that nothing reaches cannot be seen")]
    down = _course(bench, clipped=False)
    ups = [_course(bench, clipped=True) for _ in range(_SESSIONS)]
    up = next((course for course in ups if course.error), ups[0])
    eta, gamma = adaptive.learning_rate, adaptive.quantile
    outcomes = []
    wander = eta * adaptive.noise / bench.claim.expected
    for what, course, due, logs in (
        ("falls where no update reaches it", down, -eta * (1.0 - gamma), down.noise),
        ("rises where every update exceeds it", up, eta * gamma, up.clip),
    ):
        name = f"adaptive clip {what}"
        claimed = f"a factor of {math.exp(due):.3f} in each round"
        if course.error:
            outcomes.append(
                judged(name, holds=False, claimed=claimed, seen=course.error, source=sources.LOST)
            )
            continue
        slope = _slope(logs)
        if abs(due) < 3.0 * wander:
            outcomes.append(not_applicable(name, "the claimed noise on the count hides the clip's way"))
            continue
        holds = slope * math.copysign(1.0, due) > 0.3 * abs(due)
        seen = f"a factor of {math.exp(slope):.3f} in each round, over {_ROUNDS} rounds"
        outcomes.append(judged(name, holds=holds, claimed=claimed, seen=seen, source=sources.ADAPTIVE))
    outcomes.append(_together(bench, ups))
    return outcomes


def _together(bench: Bench, courses: list[_Course]) -> Outcome:
    name = "noise follows the clip"
    claimed = "in each round, noise of the multiplier claimed times the clip that this round used"
    error_said = next((course.error for course in courses if course.error), "")
    if error_said:
        return judged(name, holds=False, claimed=claimed, seen=error_said, source=sources.LOST)
    ratios = [math.log(n / c) for course in courses for n, c in zip(course.noise, course.clip, strict=True)]
    members = float(np.mean([course.members for course in courses]))
    error = math.sqrt((0.5 / bench.parameters + (bench.noise / members) ** 2) / len(ratios))
    mean, last = float(np.mean(ratios)), ratios[-1]
    slack = DEVIATIONS * error + 0.01
    holds = abs(mean) <= slack and abs(last) <= DEVIATIONS * error * math.sqrt(len(ratios)) + 0.01
    return judged(
        name,
        holds=holds,
        claimed=claimed,
        seen=f"{math.exp(mean):.3f} times that on average, {math.exp(last):.3f} in round {len(courses[-1].noise)}",
        source=sources.CLIP_USED,
    )


def _course(bench: Bench, *, clipped: bool) -> _Course:
    rounds = min(_ROUNDS, max(2, bench.claim.rounds))
    session = bench.server.start()
    direction = bench.direction()
    script = bench.all_send(direction, 1e4) if clipped else bench.quiet()
    noise, clips, sizes = [], [], []
    for number in range(1, rounds + 1):
        measured = bench.round(script, session=session, round=number)
        if measured.total is None or not np.isfinite(measured.total).all():
            return _Course(noise=[], clip=[], members=0.0, error=f"round {number}: {measured.error or 'NaN'}")
        if not measured.present:
            continue
        along = float(measured.total @ direction) if clipped else 0.0
        rest = measured.total - along * direction
        noise.append(float(np.linalg.norm(rest)) / math.sqrt(bench.parameters - 1) / bench.noise)
        clips.append(max(along / measured.present, 1e-12))
        sizes.append(measured.present)
    if len(noise) < 2:
        return _Course(noise=[], clip=[], members=0.0, error="too few rounds had a cohort")
    return _Course(noise=noise, clip=clips, members=float(np.mean(sizes)))


def _slope(values: list[float]) -> float:
    """Mean change of the logarithm from one round to the next."""
    logs = np.log(np.maximum(values, 1e-300))
    return float(np.polyfit(np.arange(len(logs)), logs, 1)[0])
