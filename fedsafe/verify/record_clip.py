"""Record level: how far records can move what a client sends, whatever is in them."""

import math

import numpy as np
from numpy.typing import NDArray

from fedsafe.verify import sources
from fedsafe.verify.desk import Desk, Values
from fedsafe.verify.result import Outcome, judged
from fedsafe.verify.statistics import DEVIATIONS, scale_fits, scale_of

_GIANT = 1e6
_SLACK = 0.02
# So often, over all clients, should a single record be drawn.
_DRAWS = 30.0


def check_clip(desk: Desk) -> list[Outcome]:
    """All records long, and one record among blank ones."""
    return [_all_long(desk), _one_among_many(desk)]


def _all_long(desk: Desk) -> Outcome:
    name = "clip over all tensors"
    claimed = "each record adds at most 1 clip to a step, all tensors together"
    due = desk.claim.steps * desk.claim.expected
    worst = 0.0
    pattern = desk.pattern()
    for still in (True, False):
        for label in (0, 1):
            records = desk.same(desk.length, label, pattern)
            rows, error = desk.sums(desk.train(records, desk.few, still=still))
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
    # Enough clients for some of them to draw it: it is in few batches where the rate is small.
    clients = int(np.clip(np.ceil(_DRAWS / due), desk.runs, 3 * desk.runs))
    # One pattern: the model gets it wrong with one of the two labels at least, and then it has a gradient.
    pattern = desk.pattern()
    for label in (0, 1):
        records = desk.blank()
        records.x[0] = pattern * np.float32(_GIANT * max(1.0, desk.claim.clip))
        records.y[0] = label
        rows, error = desk.sums(desk.train(records, clients, still=False))
        if error:
            return judged(name, holds=False, claimed=claimed, seen=error, source=sources.LOST)
        # Blank records move none of these weights.
        moved, slack = _norm(desk, _along(desk, rows, pattern), due)
        worst = max(worst, moved)
    return judged(
        name,
        holds=worst <= due + slack,
        claimed=claimed,
        seen=f"{worst:.2f} clips over {desk.claim.steps} steps, where it is drawn for {due:.2f} (give or take "
        f"{slack:.2f})",
        source=sources.EACH,
    )


def _along(desk: Desk, rows: Values, pattern: NDArray[np.float32]) -> Values:
    """The first weights' part along a record of norm one, which is all that it can move; less noise hides it there.

    ``(clients, outputs)`` for weights that multiply whole records, all the first weights for others.
    """
    weights = rows[:, desk.first]
    if weights.shape[1] % pattern.size or desk.first_shape != (
        weights.shape[1] // pattern.size,
        pattern.size,
    ):
        return weights
    projected: Values = weights.reshape(len(rows), -1, pattern.size) @ pattern.ravel().astype(np.float64)
    return projected


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
