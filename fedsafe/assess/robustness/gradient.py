"""Gradient attacks of one step and of many: FGSM, and PGD with restarts and with momentum.

They climb the margin, which does not saturate where cross-entropy does, and return the worst input that they saw, the
clean one included. An example that errs is not climbed further: that it errs is all that counts.
"""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedsafe.assess.robustness.regions import Region
from fedsafe.assess.robustness.search import Forward, Loss, Worst, ascend, cross_entropy, margin, spread


def fgsm(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int = 1,
    restarts: int = 1,
    rng: np.random.Generator | None = None,
    loss: Loss = margin,
) -> Tensor:
    """One step to the edge that the gradient points at (Goodfellow, Shlens and Szegedy, 2015)."""
    gradient, logits, _ = ascend(forward, x, y, loss)
    worst = Worst(x, forward, y, logits)
    worst.see(region.project(x + region.step(gradient)))
    return worst.x


def random_edges(
    forward: Forward, x: Tensor, y: Tensor, region: Region, *, draws: int, rng: np.random.Generator
) -> Tensor:
    """The worst of some random points on the edge: what an attacker without gradients finds."""
    worst = Worst(x, forward, y)
    for _ in range(draws):
        worst.see(region.extreme(rng))
    return worst.x


def climb(
    forward: Forward,
    start: Tensor,
    y: Tensor,
    region: Region,
    *,
    sizes: Iterable[float],
    loss: Loss,
    momentum: float = 0.0,
    seen: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Projected gradient ascent (Madry et al., 2018): on the sign of the gradient, or in L2 on its direction.

    Args:
        forward: Differentiable map to logits.
        start: ``(n, *inputs)``.
        y: ``(n,)`` true classes.
        region: Where inputs may move.
        sizes: Of the steps, as shares of the region's diameter.
        loss: What to climb.
        momentum: Share of the earlier gradients, each divided by its mean absolute value (Dong et al., 2018).
        seen: Told of every point, its logits and its row; says which of the points go on. All do where None.

    Returns:
        The last iterate ``(left, *inputs)`` of the rows that went on to the end, and these rows.
    """
    rows, point = torch.arange(len(start), device=start.device), start
    velocity = torch.zeros_like(start)
    for size in sizes:
        if not len(rows):
            break
        gradient, logits, _ = ascend(forward, point, y[rows], loss)
        if momentum:
            scale = gradient.abs().flatten(1).mean(dim=1).clamp(min=torch.finfo(gradient.dtype).tiny)
            velocity = gradient = momentum * velocity + gradient / spread(scale, gradient)
        if seen is not None:
            on = seen(point, logits, rows)
            if not on.all():
                rows, point, gradient, velocity = rows[on], point[on], gradient[on], velocity[on]
        near = region.take(rows)
        point = near.project(point + float(size) * near.step(gradient))
    return point, rows


def pgd(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
    momentum: float = 0.0,
) -> Tensor:
    """Projected gradient ascent from several starts, see `climb`.

    The first restart starts from the clean input, the others from a random point of the region. Steps shrink
    from the whole width of the region to a twentieth, so that a start may cross it and still settle. With
    several classes, every other restart climbs cross-entropy in place of the margin (Croce and Hein, 2020:
    the two fail on different models).

    Returns:
        ``(n, *inputs)``: of the clean input and all iterates, the one with the largest margin.
    """
    worst = Worst(x, forward, y)

    for restart in range(restarts):
        loss = cross_entropy if restart % 2 and worst.outputs > 1 else margin
        # Drawn for all, so that the draws do not depend on which examples stand.
        start = x if restart == 0 else region.uniform(rng)
        rows = worst.standing()
        if not len(rows):
            break

        def seen(point: Tensor, logits: Tensor, part: Tensor, rows: Tensor = rows) -> Tensor:
            worst.record(point, logits, rows[part])
            return worst.stands(rows[part])

        point, left = climb(
            forward,
            start[rows],
            y[rows],
            region.take(rows),
            sizes=np.geomspace(1.0, 0.05, steps),
            loss=loss,
            momentum=momentum,
            seen=seen,
        )
        worst.see(point, rows[left])
    return worst.x


pgd_momentum = partial(pgd, momentum=0.75)
"""PGD that follows an average of its gradients (Dong et al., 2018)."""
