"""The nearest input on which the classifier errs, in the Euclidean norm (Carlini and Wagner, 2017).

For each example the objective is ``|delta|^2 + c max(true logit - best other, 0)``, and c is searched for: the smallest
that still gives an error. Two things differ from the paper. The bounds are held by projection and not by a change of
variables, whose slope vanishes where an input is at its bound, as most pixels of a digit are. And c starts where a
linear model with the gradient at hand would need it, so that a few searches do and no scaling of the logits matters.
"""

import numpy as np
import torch
from torch import Tensor

from fedsafe.assess.robustness.regions import Ball, Region
from fedsafe.assess.robustness.search import Forward, ascend, margin, spread

# How far past the boundary an example must be: relative to the largest logit.
_CLEAR = 1e-5
_HALVINGS = 12


def carlini_wagner(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """The nearest misclassified input that was found, or the clean one.

    Args:
        forward: Differentiable map to logits.
        x: ``(n, *inputs)`` clean inputs.
        y: ``(n,)`` true classes.
        region: A Euclidean ball; how far it reaches is all that counts of its radius.
        steps: Gradient steps of a search.
        restarts: Searches for c.
        rng: Not used.

    Raises:
        ValueError: The region is no Euclidean ball.
    """
    if not isinstance(region, Ball):
        raise ValueError("it looks for small Euclidean distances: give it a radius in the norm l2")
    with torch.no_grad():
        rows = torch.nonzero(margin(forward(x), y) <= 0)[:, 0]
    nearest = x.clone()
    if len(rows):
        near = region.take(rows)
        found, reached = _search(forward, x[rows], y[rows], near, steps, restarts)
        nearest[rows] = torch.where(spread(reached, x), _closer(forward, x[rows], found, y[rows]), x[rows])
    return nearest


def _search(
    forward: Forward, x: Tensor, y: Tensor, region: Ball, steps: int, searches: int
) -> tuple[Tensor, Tensor]:
    """The nearest error ``(n, *inputs)``, and whether there is one."""
    slope, logits, value = ascend(forward, x, y, margin)
    squares = _squares(torch.where(region.reach.high > region.reach.low, slope, 0.0))
    # Without a slope any factor is as good.
    factor = torch.where(squares > 0, -4 * value / squares.clamp(min=1e-30), torch.ones_like(squares))
    least, most = torch.zeros_like(factor), torch.full_like(factor, torch.inf)
    best, shortest = x.clone(), torch.full_like(factor, torch.inf)
    for _ in range(searches):
        point, velocity, reached = x, torch.zeros_like(x), torch.zeros_like(factor, dtype=torch.bool)
        for rate in np.geomspace(0.3, 0.02, steps):
            slope, logits, value = ascend(forward, point, y, margin)
            moved = point - x
            errs, length = value > _CLEAR * logits.abs().amax(dim=1), _squares(moved)
            reached |= errs
            nearer = errs & (length < shortest)
            best = torch.where(spread(nearer, x), point, best)
            shortest = torch.where(nearer, length, shortest)
            pull = torch.where(spread(errs, x), 0.0, spread(factor, x) * slope)
            velocity = 0.5 * velocity + float(rate) * (pull - 2 * moved)
            point = region.project(point + velocity)
        least, most = torch.where(reached, least, factor), torch.where(reached, factor, most)
        factor = torch.where(most.isinf(), 10 * factor, (least + most) / 2)
    return best, shortest.isfinite()


def _closer(forward: Forward, x: Tensor, found: Tensor, y: Tensor) -> Tensor:
    """The point on the way from each input to its error that is just beyond the boundary."""
    inside, beyond = torch.zeros(len(x), device=x.device), torch.ones(len(x), device=x.device)
    for _ in range(_HALVINGS):
        middle = (inside + beyond) / 2
        with torch.no_grad():
            logits = forward(x + spread(middle, x) * (found - x))
        errs = margin(logits, y) > _CLEAR * logits.abs().amax(dim=1)
        inside, beyond = torch.where(errs, inside, middle), torch.where(errs, middle, beyond)
    return torch.where(spread(beyond < 1, x), x + spread(beyond, x) * (found - x), found)


def _squares(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(dim=1)
