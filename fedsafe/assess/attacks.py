"""Gradient attacks on a classifier within a box: FGSM, PGD, and a gradient-free control.

All are untargeted and maximise the margin ``best other logit - true logit``, which does not saturate where
cross-entropy does. They work on whole batches and return the worst input they saw, the clean one included.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Box:
    """Where inputs may move: at most `radius` in every perturbable feature, and inside the public bounds.

    Attributes:
        low: ``(n, features)`` smallest allowed values.
        high: ``(n, features)`` largest allowed values; equal to `low` where a feature may not move.
    """

    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, x: Tensor, radius: float, low: Tensor, high: Tensor, perturbable: Tensor) -> "Box":
        """The box of a radius around clean inputs.

        Args:
            x: ``(n, features)`` clean inputs; one outside the bounds may stay where it is.
            radius: Largest change of a feature, in encoded units.
            low: ``(features,)`` public lower bounds.
            high: ``(features,)`` public upper bounds.
            perturbable: ``(features,)`` features that may move.
        """
        below = torch.minimum(torch.maximum(x - radius, low), x)
        above = torch.maximum(torch.minimum(x + radius, high), x)
        return cls(low=torch.where(perturbable, below, x), high=torch.where(perturbable, above, x))

    def clip(self, x: Tensor) -> Tensor:
        """The nearest point of the box."""
        return torch.minimum(torch.maximum(x, self.low), self.high)

    def take(self, rows: Tensor) -> "Box":
        """The boxes of some rows."""
        return Box(low=self.low[rows], high=self.high[rows])

    def uniform(self, rng: np.random.Generator) -> Tensor:
        """A point of each box at random."""
        share = torch.tensor(rng.random(self.low.shape, dtype=np.float32), device=self.low.device)
        return self.clip(self.low + share * (self.high - self.low))

    def corner(self, rng: np.random.Generator) -> Tensor:
        """A corner of each box at random."""
        side = torch.tensor(rng.random(self.low.shape, dtype=np.float32) < 0.5, device=self.low.device)
        return torch.where(side, self.low, self.high)


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


def fgsm(forward: Forward, x: Tensor, y: Tensor, box: Box) -> Tensor:
    """One step to the corner that the gradient points at (Goodfellow, Shlens and Szegedy, 2015)."""
    return _Worst(x, forward, y).see(_towards(x, _ascent(forward, x, y, margin)[0], box)).x


def random_corners(
    forward: Forward, x: Tensor, y: Tensor, box: Box, *, draws: int, rng: np.random.Generator
) -> Tensor:
    """The worst of some random corners: what an attacker without gradients finds."""
    worst = _Worst(x, forward, y)
    for _ in range(draws):
        worst.see(box.corner(rng))
    return worst.x


def pgd(
    forward: Forward, x: Tensor, y: Tensor, box: Box, *, steps: int, restarts: int, rng: np.random.Generator
) -> Tensor:
    """Projected gradient ascent on the sign of the gradient (Madry et al., 2018).

    The first restart starts from the clean input, the others from a random point of the box. Steps shrink
    from the whole width of the box to a twentieth, so that a start may cross it and still settle. With
    several classes, every other restart climbs cross-entropy in place of the margin (Croce and Hein, 2020:
    the two fail on different models).

    Args:
        forward: Differentiable map from ``(n, features)`` to logits.
        x: ``(n, features)`` clean inputs.
        y: ``(n,)`` true classes.
        box: Where inputs may move.
        steps: Gradient steps of a restart.
        restarts: Number of starts.
        rng: Source of the starting points.

    Returns:
        ``(n, features)``: of the clean input and all iterates, the one with the largest margin.
    """
    worst = _Worst(x, forward, y)
    width = box.high - box.low
    for restart in range(restarts):
        loss = _cross_entropy if restart % 2 and worst.outputs > 1 else margin
        point = x if restart == 0 else box.uniform(rng)
        for size in np.geomspace(1.0, 0.05, steps):
            direction, logits = _ascent(forward, point, y, loss)
            worst.record(point, logits)
            point = box.clip(point + float(size) * width * direction)
        worst.see(point)
    return worst.x


def _ascent(
    forward: Forward, x: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The sign of the gradient of the loss, and the logits there."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        logits = forward(point)
        total = loss(logits, y).sum()
        # A model that ignores its input has no graph: nowhere is up.
        gradient = torch.autograd.grad(total, point, allow_unused=True)[0] if total.requires_grad else None
    if gradient is None:
        gradient = torch.zeros_like(x)
    return torch.nan_to_num(gradient).sign(), logits.detach()


def _towards(x: Tensor, direction: Tensor, box: Box) -> Tensor:
    return torch.where(direction > 0, box.high, torch.where(direction < 0, box.low, x))


class _Worst:
    """The worst input seen so far for each example; the clean one at first."""

    def __init__(self, x: Tensor, forward: Forward, y: Tensor) -> None:
        self._forward, self._y = forward, y
        with torch.no_grad():
            logits = forward(x)
        self.x, self.outputs, self._margin = x.clone(), logits.shape[1], margin(logits, y)

    def see(self, x: Tensor) -> "_Worst":
        with torch.no_grad():
            return self.record(x, self._forward(x))

    def record(self, x: Tensor, logits: Tensor) -> "_Worst":
        found = margin(logits, self._y)
        better = found > self._margin  # False where the margin is not a number
        self.x = torch.where(better[:, None], x, self.x)
        self._margin = torch.where(better, found, self._margin)
        return self
