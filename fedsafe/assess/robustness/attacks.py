"""Gradient attacks on a classifier within a region: FGSM, PGD, and a gradient-free control.

All are untargeted and maximise the margin ``best other logit - true logit``, which does not saturate where
cross-entropy does. They work on whole batches and return the worst input they saw, the clean one included.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedsafe.assess.robustness.regions import Region

Forward = Callable[[Tensor], Tensor]

# Relative error of a float32 logit of the same input in another batch, with room to spare.
_ROUNDING = 1e-5


class Attack(Protocol):
    """Looks for inputs on which a classifier errs. A user's own is a function with these arguments."""

    def __call__(
        self,
        forward: Forward,
        x: Tensor,
        y: Tensor,
        region: Region,
        *,
        steps: int,
        restarts: int,
        rng: np.random.Generator,
    ) -> Tensor:
        """Attacks a batch.

        Args:
            forward: Differentiable map from ``(n, *inputs)`` to logits.
            x: ``(n, *inputs)`` clean inputs.
            y: ``(n,)`` true classes.
            region: Where inputs may move.
            steps: Gradient steps of a restart.
            restarts: Number of starts.
            rng: The only source of randomness.

        Returns:
            ``(n, *inputs)`` inputs in the region. They are checked and judged by the untouched model: what an attack
            says of itself counts for nothing.
        """


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """``(n,)`` how far each example is on the wrong side: the best other logit less the true one.

    Args:
        logits: ``(n, outputs)``; a single logit is that of class 1 against 0.
        y: ``(n,)`` true classes.
    """
    if logits.shape[1] == 1:
        return logits[:, 0] * (1 - 2 * y)
    own = functional.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(dim=1) - logits[own]


def _cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y, reduction="none")


def fgsm(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int = 1,
    restarts: int = 1,
    rng: np.random.Generator | None = None,
) -> Tensor:
    """One step to the edge that the gradient points at (Goodfellow, Shlens and Szegedy, 2015)."""
    gradient = _ascent(forward, x, y, margin)[0]
    worst = _Worst(x, forward, y)
    worst.see(region.project(x + region.step(gradient)))
    return worst.x


def random_edges(
    forward: Forward, x: Tensor, y: Tensor, region: Region, *, draws: int, rng: np.random.Generator
) -> Tensor:
    """The worst of some random points on the edge: what an attacker without gradients finds."""
    worst = _Worst(x, forward, y)
    for _ in range(draws):
        worst.see(region.extreme(rng))
    return worst.x


def pgd(
    forward: Forward,
    x: Tensor,
    y: Tensor,
    region: Region,
    *,
    steps: int,
    restarts: int,
    rng: np.random.Generator,
) -> Tensor:
    """Projected gradient ascent (Madry et al., 2018): on the sign of the gradient, or in L2 on its direction.

    The first restart starts from the clean input, the others from a random point of the region. Steps shrink
    from the whole width of the region to a twentieth, so that a start may cross it and still settle. With
    several classes, every other restart climbs cross-entropy in place of the margin (Croce and Hein, 2020:
    the two fail on different models). An example that errs is not climbed further: that it errs is all that counts.

    Returns:
        ``(n, *inputs)``: of the clean input and all iterates, the one with the largest margin.
    """
    worst = _Worst(x, forward, y)
    for restart in range(restarts):
        loss = _cross_entropy if restart % 2 and worst.outputs > 1 else margin
        # Drawn for all, so that the draws do not depend on which examples stand.
        start = x if restart == 0 else region.uniform(rng)
        rows = worst.standing(torch.arange(len(x), device=x.device))
        point, near = start[rows], region.take(rows)
        for size in np.geomspace(1.0, 0.05, steps):
            if not len(rows):
                break
            gradient, logits = _ascent(forward, point, y[rows], loss)
            worst.record(point, logits, rows)
            left = worst.standing(rows)
            if len(left) < len(rows):
                kept = torch.isin(rows, left)
                rows, point, gradient, near = left, point[kept], gradient[kept], region.take(left)
            point = near.project(point + float(size) * near.step(gradient))
        worst.see(point, rows)
    return worst.x


ATTACKS: Mapping[str, Attack] = MappingProxyType({"fgsm": fgsm, "pgd": pgd})
"""The built-in attacks, by name."""


def _ascent(
    forward: Forward, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The gradient of the loss, and the logits there."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        logits = forward(point)
        total = loss(logits, y).sum()
        # A model that ignores its input has no graph: nowhere is up.
        gradient = torch.autograd.grad(total, point, allow_unused=True)[0] if total.requires_grad else None
    if gradient is None:
        gradient = torch.zeros_like(x)
    return torch.nan_to_num(gradient), logits.detach()


class _Worst:
    """The worst input seen so far for each example; the clean one at first."""

    def __init__(self, x: Tensor, forward: Forward, y: Tensor) -> None:
        self._forward, self._y = forward, y
        with torch.no_grad():
            logits = forward(x)
        self.x, self.outputs = x.clone(), logits.shape[1]
        self._margin, self._clear = margin(logits, y), _clearly_wrong(logits, y)

    def see(self, x: Tensor, rows: Tensor | None = None) -> None:
        """Inputs for all examples, or for those of the given rows."""
        if len(x):
            with torch.no_grad():
                self.record(x, self._forward(x), rows)

    def record(self, x: Tensor, logits: Tensor, rows: Tensor | None = None) -> None:
        rows = torch.arange(len(self.x), device=x.device) if rows is None else rows
        found = margin(logits, self._y[rows])
        better = found > self._margin[rows]  # False where the margin is not a number
        self.x[rows] = torch.where(better.view(-1, *([1] * (x.ndim - 1))), x, self.x[rows])
        self._margin[rows] = torch.where(better, found, self._margin[rows])
        self._clear[rows] |= better & _clearly_wrong(logits, self._y[rows])

    def standing(self, rows: Tensor) -> Tensor:
        """Those of the rows whose worst input is not clearly misclassified."""
        return rows[~self._clear[rows]]


def _clearly_wrong(logits: Tensor, y: Tensor) -> Tensor:
    """``(n,)`` whether the error is larger than what another batch's rounding may undo."""
    return margin(logits, y) > _ROUNDING * logits.abs().amax(dim=1)
