"""Record level: noise, clip, sampling and what else is in a reply, from the models that clients send."""

import math
from itertools import combinations

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.desk import Desk, Values
from fedsafe.verify.records import Records
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.statistics import (
    DEVIATIONS,
    correlation_bound,
    largest_correlation,
    normal_fits,
    scale_fits,
    scale_of,
    scale_range,
)

_GIANT = 1e6
_SLACK = 0.02


def check_noise(desk: Desk) -> list[Outcome]:
    """Of the weights that blank records cannot move, and the least there must be in every other tensor."""
    claimed = f"noise of {desk.claim.noise:.4g} x clip on each of {desk.claim.steps} steps' sums"
    if not desk.claim.noise:
        return [not_applicable("noise scale", "the claim is without noise")]
    rows, error = desk.sums(desk.train(desk.blank(), desk.runs))
    if error:
        return [judged("noise scale", holds=False, claimed=claimed, seen=error, source=sources.LOST)]
    noise = rows[:, desk.first]
    normal, distance = normal_fits(noise.ravel())
    return [
        judged(
            "noise scale",
            holds=scale_fits(noise.ravel(), desk.deviation),
            claimed=claimed,
            seen=f"{scale_of(noise, desk.deviation):.3f} times as much, over {noise.size} values that no record moves",
            source=sources.SCALE,
        ),
        _every_tensor(desk, rows),
        judged(
            "noise distribution",
            holds=normal,
            claimed="Gaussian noise, independent in each coordinate",
            seen=f"a distance of {distance:.4f} from the normal distribution, over {noise.size} values",
            source=sources.NORMAL,
        ),
    ]


def _every_tensor(desk: Desk, rows: Values) -> Outcome:
    layout = desk.node.layout
    # Sampling adds to the scatter of what records do move: only too little says something.
    centred = rows - rows.mean(axis=0)
    degrees = len(rows) - 1
    low = {}
    for name, part in zip(layout.names, np.split(centred, np.cumsum(layout.sizes)[:-1], axis=1), strict=True):
        count = degrees * part.shape[1]
        ratio = math.sqrt(float(np.sum(part**2)) / max(1, count)) / desk.deviation
        if part.size and ratio < scale_range(count)[0]:
            low[name] = ratio
    return judged(
        "noise in each tensor",
        holds=not low,
        claimed="the same noise in every tensor that leaves the client",
        seen=", ".join(f"{name} {ratio:.3f} times the claimed" for name, ratio in low.items())
        or "no tensor with less",
        source=sources.SCALE,
    )


def check_reuse(desk: Desk) -> list[Outcome]:
    """Two clients, two rounds, and a restart: the same records, and other models."""
    name, node = "noise reuse", desk.node
    if not desk.claim.noise:
        return [not_applicable(name, "the claim is without noise")]
    blank, rate = desk.blank(), desk.learning_rate
    one, other, third = desk.clients(3)
    last = max(2, min(3, desk.claim.rounds))
    plan = [(one, 1, False), (other, 1, False), (one, 2, False), (third, 1, False)]
    plan += [(one, last, True), (other, 1, True), (third, 1, True)]
    drawn, restarted = [], False
    for client, round, after in plan:
        if after and not restarted:
            node.restart()
            restarted = True
        trained = node.train([client], round, desk.model(still=True), blank, rate)
        rows, error = desk.sums(trained)
        if not error:
            said = f"client {client - one}, round {round}" + (
                " after a restart, from another model" if after else ""
            )
            drawn.append((said, rows[0, desk.first]))
    pairs = list(combinations(drawn, 2))
    if not pairs:
        return [not_applicable(name, "fewer than two models came back")]
    bound = correlation_bound(len(drawn[0][1]), len(pairs))
    worst = max(pairs, key=lambda pair: largest_correlation(pair[0][1], pair[1][1]))
    correlation = largest_correlation(worst[0][1], worst[1][1])
    return [
        judged(
            name,
            holds=correlation < bound,
            claimed="independent noise for every client, round and input",
            seen=f"correlation {correlation:.3f} between {worst[0][0]} and {worst[1][0]} ({len(pairs)} pairs)",
            source=sources.REUSE,
        )
    ]


def check_clip(desk: Desk) -> list[Outcome]:
    """All records long, and one record among blank ones."""
    return [_all_long(desk), _one_among_many(desk)]


def _all_long(desk: Desk) -> Outcome:
    name = "clip over all tensors"
    claimed = "each record adds at most 1 clip to a step, all tensors together"
    due = desk.claim.steps * desk.claim.expected
    worst = 0.0
    for still in (True, False):
        for label in (0, 1):
            rows, error = desk.sums(desk.train(desk.same(desk.length, label), desk.few, still=still))
            if error:
                return judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)
            worst = max(worst, _norm(desk, rows, due)[0] / due)
    slack = _norm(desk, np.zeros((desk.few, desk.node.layout.total)), due)[1] / due + _SLACK
    return judged(
        name,
        holds=worst <= 1.0 + slack,
        claimed=claimed,
        seen=f"{worst:.3g} clips for each record and step",
        source=sources.CLIP if worst > 3.0 else sources.PER_TENSOR,
    )


def _one_among_many(desk: Desk) -> Outcome:
    name = "one record among many"
    claimed = "one record moves the sum by at most 1 clip in each step that it is drawn for"
    due = desk.claim.steps * desk.claim.share
    worst, slack = 0.0, 0.0
    for label in (0, 1):
        records = desk.blank()
        records.x[0] = desk.pattern() * np.float32(_GIANT * max(1.0, desk.claim.clip))
        records.y[0] = label
        rows, error = desk.sums(desk.train(records, desk.runs, still=False))
        if error:
            return judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)
        # Blank records move none of these weights.
        moved, slack = _norm(desk, rows[:, desk.first], due)
        worst = max(worst, moved)
    return judged(
        name,
        holds=worst <= due + slack,
        claimed=claimed,
        seen=f"{worst:.2f} clips over {desk.claim.steps} steps, where it is drawn for {due:.2f} (give or take "
        f"{slack:.2f})",
        source=sources.EACH,
    )


def _norm(desk: Desk, rows: Values, due: float) -> tuple[float, float]:
    """Norm of the mean over runs without what noise adds to it, and the slack of that at norm ``due``."""
    runs, count = rows.shape
    variance = desk.deviation**2 / runs
    # How often records were drawn scatters too, no more than a Poisson count does.
    drawn = due / runs
    norm = math.sqrt(max(0.0, float(np.sum(rows.mean(axis=0) ** 2)) - variance * count))
    square = math.sqrt(4.0 * due**2 * variance + 2.0 * count * variance**2)
    slack = math.sqrt(due**2 + DEVIATIONS * square) - due + DEVIATIONS * math.sqrt(drawn)
    return norm, slack + _SLACK * due


def check_bad_records(desk: Desk) -> list[Outcome]:
    """A few records with NaN, infinities or huge values."""
    return [
        _one_bad(desk, "NaN", np.nan),
        _one_bad(desk, "infinite values", np.inf),
        _one_bad(desk, "values of 1e30", 1e30),
    ]


def _one_bad(desk: Desk, what: str, value: float) -> Outcome:
    name = f"records with {what}"
    claimed = "a finite model, moved by each of them by at most 1 clip"
    bad = max(1, min(3, desk.records - 1))
    records = desk.blank()
    records.x[:bad] = np.float32(value)
    rows, error = desk.sums(desk.train(records, desk.few))
    if error:
        return judged(name, holds=False, claimed=claimed, seen=error, source=sources.NOT_FINITE)
    due = desk.claim.steps * desk.claim.share * bad
    moved, slack = _norm(desk, rows[:, desk.first], due)
    problem = "" if moved <= due + slack else f"{moved:.2f} clips, where {due:.2f} are allowed"
    if desk.claim.noise and value != 1e30:
        noise = rows[:, desk.first].ravel()
        usual, _ = desk.sums(desk.train(desk.blank(), desk.few))
        if not scale_fits(noise, desk.deviation) and not scale_fits(
            noise, desk.deviation * scale_of(usual[:, desk.first], desk.deviation)
        ):
            ratio = scale_of(noise, desk.deviation)
            # Records that are clipped rather than dropped scatter as they are drawn: only less noise is a fault.
            problem = problem or (f"{ratio:.3f} times the claimed noise" if ratio < 1.0 else "")
    return judged(
        name, holds=not problem, claimed=claimed, seen=problem or "so it was", source=sources.NOT_FINITE
    )


def check_sampling(desk: Desk) -> list[Outcome]:
    """Whether sums of equal contributions scatter as independent draws make them."""
    name, claim = "sampling", desk.claim
    claimed = f"{claim.sampler} sampling of {claim.expected:g} from {claim.population} records in each step"
    if not desk.node.steerable:
        return [not_applicable(name, "the claim names no learning_rate_key: the model moves too much")]
    runs = desk.runs + desk.runs // 2
    label = max((0, 1), key=lambda each: _reach(desk, each))
    # One pattern: every record adds the same.
    model = desk.model(still=True)
    rows, error = desk.sums(desk.train(desk.same(desk.length, label), runs, model=model))
    if error:
        return [judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)]
    mean = rows.mean(axis=0)
    size = float(np.linalg.norm(mean))
    along = rows @ (mean / max(size, 1e-300))
    each = size / (claim.steps * claim.expected)  # what one record adds to one step, in clips
    sampled = 0.0
    if claim.sampler == "poisson":
        sampled = claim.steps * claim.expected * (1.0 - claim.share) * each**2
    due = desk.deviation**2 + sampled
    if claim.sampler == "poisson" and sampled < 2.5 * desk.deviation**2:
        return [
            not_applicable(
                name,
                f"draws scatter the sum by a variance of {sampled:.3g} clips, too little beside the noise's "
                f"{desk.deviation**2:.3g}",
            )
        ]
    seen = float(np.var(along, ddof=1))
    low, high = scale_range(runs - 1)
    ratio = math.sqrt(seen / due) if due else float(seen > 1e-6 * size**2) + 1.0
    problem = ""
    if ratio < low:
        problem = (
            ": batches of one size, or sums divided by the size that was drawn, scatter like this"
            if claim.sampler == "poisson"
            else ""
        )
    return [
        judged(
            name,
            holds=low <= ratio <= high,
            claimed=claimed,
            seen=f"sums with a variance of {seen:.4g} clips, where it makes {due:.4g}{problem}",
            source=sources.POISSON,
        )
    ]


def _reach(desk: Desk, label: int) -> float:
    """How far records of a label move the model: the one that the model gets wrong moves it further."""
    rows, error = desk.sums(desk.train(desk.same(desk.length, label), 3))
    return 0.0 if error else float(np.linalg.norm(rows.mean(axis=0)))


def check_metrics(desk: Desk) -> list[Outcome]:
    """Numbers in a reply that depend on the records, or on how many there are."""
    name, claim = "metrics and counts", desk.claim
    allowed = {*claim.metrics, claim.epsilon_metric}
    long = desk.same(desk.length, 1)
    fewer = Records(x=long.x[:-1], y=long.y[:-1])
    cases = {
        "usual": [one.numbers for one in desk.train(desk.blank(), 4)],
        "others": [one.numbers for one in desk.train(long, 4)],
        "fewer": [one.numbers for one in desk.train(fewer, 4)],
    }
    names = sorted({key for case in cases.values() for numbers in case for key in numbers})
    found = []
    for key in names:
        usual, others, fewer_ = ([n[key] for n in case if key in n] for case in cases.values())
        public = key in allowed or key.split("[")[0] in allowed
        if not public and _apart(usual, others):
            found.append(f"{key} follows the records ({usual[0]:.4g} or {others[0]:.4g})")
        elif _counts(others, fewer_) and (not public or claim.adjacency == "add/remove"):
            found.append(f"{key} counts the records ({others[0]:g} or {fewer_[0]:g})")
    return [
        judged(
            name,
            holds=not found,
            claimed="nothing but the model leaves the client"
            + (f", and {', '.join(sorted(claim.metrics))}" if claim.metrics else ""),
            seen="; ".join(found)
            or f"{len(names)} numbers beside the model, none of which follows the records",
            source=sources.METRICS,
        )
    ]


def _apart(first: list[float], second: list[float]) -> bool:
    if not first or not second:
        return False
    width = max(max(first) - min(first), max(second) - min(second))
    return min(second) - max(first) > width or min(first) - max(second) > width


def _counts(full: list[float], fewer: list[float]) -> bool:
    """Whether a number is always the same, and another one where there is a record less."""
    return bool(full and fewer) and len(set(full)) == len(set(fewer)) == 1 and set(full) != set(fewer)


def reported_epsilon(desk: Desk) -> tuple[dict[int, float], int | None]:
    """Epsilon that one client reports after each of some rounds, with a restart on the way."""
    metric, rounds = desk.claim.epsilon_metric or "", max(2, min(6, desk.claim.rounds))
    (client,) = desk.clients(1)
    restart = rounds // 2 + 1
    reported = {}
    for round in range(1, rounds + 1):
        if round == restart:
            desk.node.restart()
        (one,) = desk.node.train([client], round, desk.model(still=True), desk.blank(), desk.learning_rate)
        if metric in one.numbers:
            reported[round] = one.numbers[metric]
    return reported, restart
