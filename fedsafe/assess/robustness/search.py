"""What every attack is made of: losses to climb, a gradient, and the worst input seen so far."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Forward = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
"""From ``(n, outputs)`` logits and labels to ``(n,)``, larger where the classifier is nearer to an error."""

# Relative error of a float32 logit of the same input in another batch, with room to spare.
_ROUNDING = 1e-5
_TINY = 1e-12


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


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """``(n,)`` cross-entropy; for a single logit the logistic loss."""
    if logits.shape[1] == 1:
        return functional.softplus(margin(logits, y))
    return functional.cross_entropy(logits, y, reduction="none")


def logits_ratio(logits: Tensor, y: Tensor) -> Tensor:
    """``(n,)`` difference of logits ratio (Croce and Hein, 2020, eq. 6), which no scaling of the logits changes.

    Args:
        logits: ``(n, outputs)``, at least 3 outputs.
        y: ``(n,)`` true classes.
    """
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + _TINY)


def targeted_logits_ratio(logits: Tensor, pairs: Tensor) -> Tensor:
    """``(n,)`` the ratio towards one class (Croce and Hein, 2020, eq. 7).

    Args:
        logits: ``(n, outputs)``, at least 4 outputs.
        pairs: ``(n, 2)`` true class and the class that is aimed at.
    """
    top = logits.topk(4, dim=1).values
    return targeted_margin(logits, pairs) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + _TINY)


def targeted_margin(logits: Tensor, pairs: Tensor) -> Tensor:
    """``(n,)`` the logit of the class that is aimed at less the true one; ``pairs`` as above."""
    both = logits.gather(1, pairs)
    return both[:, 1] - both[:, 0]


class Ascent(NamedTuple):
    """The gradient ``(n, *inputs)`` of a loss, and the logits and ``(n,)`` losses there."""

    gradient: Tensor
    logits: Tensor
    losses: Tensor


def ascend(forward: Forward, x: Tensor, labels: Tensor, loss: Loss) -> Ascent:
    """Where a loss rises; a gradient that is not finite is 0 there, and so is that of a model without one."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        logits = forward(point)
        losses = loss(logits, labels)
        # A model that ignores its input has no graph: nowhere is up.
        gradient = (
            torch.autograd.grad(losses.sum(), point, allow_unused=True)[0] if losses.requires_grad else None
        )
    if gradient is None:
        gradient = torch.zeros_like(x)
    return Ascent(
        torch.nan_to_num(gradient, posinf=0.0, neginf=0.0), logits.detach(), torch.nan_to_num(losses.detach())
    )


def spread(values: Tensor, like: Tensor) -> Tensor:
    """``(n,)`` values, shaped to meet ``(n, *inputs)``."""
    return values.view(-1, *([1] * (like.ndim - 1)))


class Worst:
    """The worst input seen so far for each example; the clean one at first, whose logits may be known."""

    def __init__(self, x: Tensor, forward: Forward, y: Tensor, logits: Tensor | None = None) -> None:
        self._forward, self._y = forward, y
        with torch.no_grad():
            self.logits = forward(x) if logits is None else logits
        self.x, self.outputs = x.clone(), self.logits.shape[1]
        self._margin, self._clear = margin(self.logits, y), _clearly_wrong(self.logits, y)

    def see(self, x: Tensor, rows: Tensor | None = None) -> None:
        """Inputs for all examples, or for those of the given rows."""
        if len(x):
            with torch.no_grad():
                self.record(x, self._forward(x), rows)

    def record(self, x: Tensor, logits: Tensor, rows: Tensor | None = None) -> None:
        """Inputs whose logits are known."""
        rows = torch.arange(len(self.x), device=x.device) if rows is None else rows
        found = margin(logits, self._y[rows])
        better = found > self._margin[rows]  # False where the margin is not a number
        rows, wrong = rows[better], _clearly_wrong(logits, self._y[rows])
        self.x[rows], self._margin[rows] = x[better], found[better]
        self._clear[rows] |= wrong[better]

    def stands(self, rows: Tensor) -> Tensor:
        """Which of the rows have no clearly misclassified input yet: ``(rows,)`` flags."""
        return ~self._clear[rows]

    def standing(self) -> Tensor:
        """All rows that stand."""
        return torch.nonzero(~self._clear)[:, 0]


def _clearly_wrong(logits: Tensor, y: Tensor) -> Tensor:
    """``(n,)`` whether the error is larger than what another batch's rounding may undo."""
    return margin(logits, y) > _ROUNDING * logits.abs().amax(dim=1)
