"""PGD without a step size to choose: auto-PGD of Croce and Hein (2020), on three losses.

A step is halved, and the search returns to its best point, where too few steps rise or where the best has not risen for
a while. Momentum, the share of rising steps and the checkpoints are those of the paper.
"""

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedsafe.assess.robustness.regions import Region
from fedsafe.assess.robustness.search import (
    Forward,
    Loss,
    Worst,
    ascend,
    cross_entropy,
    logits_ratio,
    margin,
    spread,
    targeted_logits_ratio,
    targeted_margin,
)

_MOMENTUM, _RISING = 0.75, 0.75
MOST_TARGETS = 9
"""Classes that are aimed at, as in the standard set of AutoAttack."""

LEAST_RUNS = 3
"""Runs of a restart of the targeted attack where there are fewer classes to aim at."""


def checkpoints(steps: int) -> list[int]:
    """Steps after which the step size is reconsidered (Croce and Hein, 2020, section 3)."""
    shares = [0.0, 0.22]
    while shares[-1] < 1.0:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    # Rounded first, since 0.57 x 100 is more than 57 in binary.
    return sorted({math.ceil(round(share * steps, 6)) for share in shares[1:]})


def apgd(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
    loss: Loss = cross_entropy,
    fewest: int = 1,
) -> Tensor:
    """Auto-PGD from random starts.

    Args:
        forward: Differentiable map to logits.
        x: ``(n, *inputs)`` clean inputs.
        y: ``(n,)`` true classes.
        region: Where inputs may move.
        steps: Gradient steps of a restart.
        restarts: Number of starts.
        rng: The only source of randomness.
        loss: What to climb.
        fewest: Outputs that the loss needs; with fewer, the margin is climbed.
    """
    worst = Worst(x, forward, y)
    chosen = loss if worst.outputs >= fewest else margin
    for _ in range(restarts):
        _run(forward, region, worst, y, y, chosen, steps, region.uniform(rng))
    return worst.x


def apgd_targeted(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> Tensor:
    """Auto-PGD towards each of the most likely other classes in turn, at most 9; more than once where they are few.

    With fewer than 4 classes the ratio of logits is not defined, and the plain margin towards the class is climbed.
    """
    worst = Worst(x, forward, y)
    if worst.outputs == 1:
        return apgd(forward, x, y, region, steps=steps, restarts=LEAST_RUNS * restarts, rng=rng, loss=margin)
    loss = targeted_logits_ratio if worst.outputs >= 4 else targeted_margin
    others = worst.logits.scatter(1, y[:, None], -torch.inf).argsort(dim=1, descending=True)
    targets = min(MOST_TARGETS, worst.outputs - 1)
    for target in range(targets):
        pairs = torch.stack([y, others[:, target]], dim=1)
        for _ in range(restarts * math.ceil(LEAST_RUNS / targets)):
            _run(forward, region, worst, y, pairs, loss, steps, region.uniform(rng))
    return worst.x


apgd_ce = partial(apgd, loss=cross_entropy)
apgd_dlr = partial(apgd, loss=logits_ratio, fewest=3)


def _run(
    forward: Forward,
    region: Region,
    worst: Worst,
    y: Tensor,
    labels: Tensor,
    loss: Loss,
    steps: int,
    start: Tensor,
) -> None:
    """One restart over the examples that stand, each with its own step size."""
    rows = worst.standing()
    if not len(rows):
        return
    at = start[rows]
    gradient, logits, value = ascend(forward, at, labels[rows], loss)
    worst.record(at, logits, rows)
    ones = torch.ones_like(value)
    state = {
        "rows": rows,
        "point": at,
        "before": at,
        "gradient": gradient,
        "value": value,
        "best": at,
        "best_gradient": gradient,
        "best_value": value,
        "size": ones,
        "risen": 0 * ones,
        "checked_value": value,
        "shrunk": 0 * ones,
    }
    last, marks = 0, set(checkpoints(steps))
    for step in range(steps):
        state = _standing(state, worst)
        if not len(state["rows"]):
            return
        near, labelled = region.take(state["rows"]), labels[state["rows"]]
        point = state["point"]
        stepped = near.project(point + spread(state["size"], point) * near.step(state["gradient"]))
        if step:
            kept = point - state["before"]
            stepped = near.project(point + _MOMENTUM * (stepped - point) + (1 - _MOMENTUM) * kept)
        gradient, logits, value = ascend(forward, stepped, labelled, loss)
        worst.record(stepped, logits, state["rows"])
        rises, leads = value > state["value"], value > state["best_value"]
        wide = spread(leads, stepped)
        state |= {
            "before": point,
            "point": stepped,
            "gradient": gradient,
            "value": value,
            "risen": state["risen"] + rises,
            "best": torch.where(wide, stepped, state["best"]),
            "best_gradient": torch.where(wide, gradient, state["best_gradient"]),
            "best_value": torch.where(leads, value, state["best_value"]),
        }
        if step + 1 in marks:
            state |= _checked(state, step + 1 - last)
            last = step + 1


def _checked(state: dict[str, Tensor], passed: int) -> dict[str, Tensor]:
    """Half the step, from the best point, where the search has stalled (conditions 1 and 2 of the paper)."""
    stalls = (state["shrunk"] == 0) & (state["best_value"] <= state["checked_value"])
    halves = (state["risen"] < _RISING * passed) | stalls
    wide = spread(halves, state["point"])
    return {
        "size": torch.where(halves, state["size"] / 2, state["size"]),
        "shrunk": halves.to(state["size"].dtype),
        "checked_value": state["best_value"],
        "risen": torch.zeros_like(state["risen"]),
        "point": torch.where(wide, state["best"], state["point"]),
        "before": torch.where(wide, state["best"], state["before"]),
        "gradient": torch.where(wide, state["best_gradient"], state["gradient"]),
        "value": torch.where(halves, state["best_value"], state["value"]),
    }


def _standing(state: dict[str, Tensor], worst: Worst) -> dict[str, Tensor]:
    on = worst.stands(state["rows"])
    return state if bool(on.all()) else {key: value[on] for key, value in state.items()}
