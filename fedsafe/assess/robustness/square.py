"""Square attack: random search with localised changes, and no gradient (Andriushchenko et al., 2020).

In images a change is a square of pixels; in a table it is a set of features. Only what lowers the margin is kept, and
the squares shrink as the queries pass.
"""

import math

import numpy as np
import torch
from torch import Tensor

from fedsafe.assess.robustness.regions import Region
from fedsafe.assess.robustness.search import Forward, Worst, margin, spread

_FIRST_SHARE = 0.8
# Queries of 10,000 after which the share of changed inputs is halved (section 3 of the paper).
_HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> Tensor:
    """Random search within the region.

    Args:
        forward: Map to logits; no gradient is taken.
        x: ``(n, *inputs)`` clean inputs.
        y: ``(n,)`` true classes.
        region: Where inputs may move.
        steps: Queries of a restart.
        restarts: Number of starts.
        rng: The only source of randomness.
    """
    worst = Worst(x, forward, y)
    for _ in range(restarts):
        start = _stripes(x, region, rng) if region.norm == "linf" else region.extreme(rng)
        rows = worst.standing()
        best = start[rows]
        if len(rows):
            value = _seen(worst, forward, best, y, rows)
        for query in range(steps):
            on = worst.stands(rows)
            if not on.all():
                rows, best, value = rows[on], best[on], value[on]
            if not len(rows):
                break
            window = _window(x.shape[1:], _share(query, steps), rng).to(x.device)
            near, clean = region.take(rows), x[rows]
            propose = _fill if region.norm == "linf" else _shift
            tried = near.project(propose(best, clean, window, region.radius, rng))
            found = _seen(worst, forward, tried, y, rows)
            better = found > value
            best = torch.where(spread(better, best), tried, best)
            value = torch.where(better, found, value)
    return worst.x


def _seen(worst: Worst, forward: Forward, point: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    with torch.no_grad():
        logits = forward(point)
    worst.record(point, logits, rows)
    return margin(logits, y[rows])


def _share(query: int, queries: int) -> float:
    """The share of inputs that the next change covers, on a schedule stretched to the number of queries."""
    passed = 10_000 * query / queries
    return float(_FIRST_SHARE / 2 ** sum(passed > bound for bound in _HALVED))


def _stripes(x: Tensor, region: Region, rng: np.random.Generator) -> Tensor:
    """The start of the maximum norm: vertical stripes to which convolutions react; in a table a random corner."""
    if x.ndim != 4:
        return region.extreme(rng)
    return region.project(x + region.radius * _signs((len(x), x.shape[1], 1, x.shape[3]), rng, x))


def _window(shape: torch.Size, share: float, rng: np.random.Generator) -> Tensor:
    """``(*inputs,)`` which inputs change: a square at a random place, or a random set of features."""
    window = torch.zeros(shape, dtype=torch.bool)
    if len(shape) == 3:
        height, width = shape[1:]
        side = min(max(1, round(math.sqrt(share * height * width))), height, width)
        top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        window[:, top : top + side, left : left + side] = True
        return window
    flat = window.view(-1)
    count = max(1, round(share * flat.numel()))
    flat[torch.tensor(rng.choice(flat.numel(), count, replace=False))] = True
    return window


def _fill(best: Tensor, clean: Tensor, window: Tensor, radius: float, rng: np.random.Generator) -> Tensor:
    """The window at the edge of the box: one sign for each channel of an image, or for each feature."""
    shape = (len(best), best.shape[1], 1, 1) if best.ndim == 4 else tuple(best.shape)
    return torch.where(window, clean + radius * _signs(shape, rng, best), best)


def _shift(best: Tensor, clean: Tensor, window: Tensor, radius: float, rng: np.random.Generator) -> Tensor:
    """All that is left of the radius goes into the window, in the direction of what was there and a random bump."""
    moved = best - clean
    inside, outside = torch.where(window, moved, 0.0), torch.where(window, 0.0, moved)
    # Some of what other places hold is given up, so that the window has something to spend.
    kept = torch.tensor(1.0 - rng.random(len(best)) ** 2, dtype=best.dtype, device=best.device)
    length = (radius**2 - kept * _squares(outside)).clamp(min=0.0).sqrt()
    shape = (len(best), best.shape[1], 1, 1) if best.ndim == 4 else tuple(best.shape)
    bump = torch.where(window, _signs(shape, rng, best) * _hill(window).to(best), 0.0)
    direction = _unit(_unit(bump) + _unit(inside))
    return clean + outside * spread(kept.sqrt(), best) + direction * spread(length, best)


def _hill(window: Tensor) -> Tensor:
    """Weights that fall from the middle of the window, where it is a square of an image."""
    if window.ndim != 3:
        return window.float()
    places = torch.nonzero(window[0]).float()
    middle = places.mean(dim=0)
    grid = torch.stack(
        torch.meshgrid(torch.arange(window.shape[1]), torch.arange(window.shape[2]), indexing="ij"), dim=-1
    )
    away = (grid.to(middle) - middle).abs().amax(dim=-1)
    return window.float() / (1.0 + away) ** 2


def _signs(shape: tuple[int, ...], rng: np.random.Generator, like: Tensor) -> Tensor:
    return torch.tensor(np.where(rng.random(shape) < 0.5, -1.0, 1.0), dtype=like.dtype, device=like.device)


def _squares(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(dim=1)


def _unit(x: Tensor) -> Tensor:
    return x / spread(_squares(x).sqrt().clamp(min=1e-12), x)
