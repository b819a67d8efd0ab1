"""Record level: whether batches are drawn as the claim says."""

import math

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.desk import Desk
from fedsafe.verify.records import Records
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.statistics import scale_range


def check_sampling(desk: Desk) -> list[Outcome]:
    """Whether sums of equal contributions scatter as the claimed draws make them."""
    if desk.claim.sampler == "fixed":
        return [_sizes(desk), _draws(desk)]
    return [_sizes(desk)]


def _sizes(desk: Desk) -> Outcome:
    """Records that are all the same: only how many are drawn can scatter their sum."""
    name, claim = "sampling", desk.claim
    claimed = f"{claim.sampler} sampling of {claim.expected:g} from {claim.population} records in each step"
    if not desk.node.steerable:
        return not_applicable(name, "the claim names no learning_rate_key: the model moves too much")
    runs = desk.runs + desk.runs // 2
    pattern = desk.pattern()
    label = max((0, 1), key=lambda each: _reach(desk, desk.same(desk.length, each, pattern)))
    # One pattern: every record adds the same.
    model = desk.model(still=True)
    rows, error = desk.sums(desk.train(desk.same(desk.length, label, pattern), runs, model=model))
    if error:
        return judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)
    mean = rows.mean(axis=0)
    size = float(np.linalg.norm(mean))
    along = rows @ (mean / max(size, 1e-300))
    each = size / (claim.steps * claim.expected)  # what one record adds to one step, in clips
    sampled = 0.0
    if claim.sampler == "poisson":
        sampled = claim.steps * claim.expected * (1.0 - claim.share) * each**2
    due = desk.deviation**2 + sampled
    if claim.sampler == "poisson" and sampled < 2.5 * desk.deviation**2:
        return not_applicable(
            name,
            f"draws scatter the sum by a variance of {sampled:.3g} clips, too little beside the noise's "
            f"{desk.deviation**2:.3g}",
        )
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
    return judged(
        name,
        holds=low <= ratio <= high,
        claimed=claimed,
        seen=f"sums with a variance of {seen:.4g} clips, where it makes {due:.4g}{problem}",
        source=sources.POISSON,
    )


def _draws(desk: Desk) -> Outcome:
    """Half of the records alike, the rest blank: how many of the half are drawn scatters, anew in each step."""
    name, claim = "independent draws", desk.claim
    claimed = f"in each step {claim.expected:g} of {claim.population} records, whatever was drawn in the steps before"
    if not desk.node.steerable:
        return not_applicable(name, "the claim names no learning_rate_key: the model moves too much")
    pattern, half, size = desk.pattern(), claim.population // 2, claim.expected
    label = max((0, 1), key=lambda each: _reach(desk, desk.same(desk.length, each, pattern)))
    records = desk.same(desk.length, label, pattern)
    records.x[half:] = 0.0
    runs = desk.runs + desk.runs // 2
    rows, error = desk.sums(desk.train(records, runs, model=desk.model(still=True)))
    if error:
        return judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)
    # Blank records move none of these weights.
    weights = rows[:, desk.first]
    mean = weights.mean(axis=0)
    along = weights @ (mean / max(float(np.linalg.norm(mean)), 1e-300))
    share = half / claim.population
    each = float(np.linalg.norm(mean)) / (claim.steps * size * share)
    # Hypergeometric: without replacement in a step, and independent of the other steps.
    left = (claim.population - size) / max(1, claim.population - 1)
    sampled = claim.steps * size * share * (1.0 - share) * left * each**2
    if sampled < 1.5 * desk.deviation**2:
        return not_applicable(name, "draws scatter the sum too little beside the noise")
    due, seen = desk.deviation**2 + sampled, float(np.var(along, ddof=1))
    low, high = scale_range(runs - 1)
    return judged(
        name,
        holds=low <= math.sqrt(seen / due) <= high,
        claimed=claimed,
        seen=f"sums with a variance of {seen:.4g} clips, where it makes {due:.4g}",
        source=sources.POISSON,
    )


def _reach(desk: Desk, records: Records) -> float:
    """How far records of a label move the model: the one that the model gets wrong moves it further."""
    rows, error = desk.sums(desk.train(records, 3))
    return 0.0 if error else float(np.linalg.norm(rows.mean(axis=0)))
