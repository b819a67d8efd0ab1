"""Training on the worst input near each record: adversarial training, and its trade-off with accuracy (TRADES).

Both find that input by projected gradient ascent from a random start (Madry et al. 2018). The gradient by the weights
is then taken at the input found, as if it were constant, which is right at an exact maximum (Danskin 1967).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedsafe.client.batches import Batch
from fedsafe.client.objectives.inputs import InputBounds
from fedsafe.client.objectives.perturbing import Differentiable, Law, Moment
from fedsafe.client.objectives.plain import Objective

Norm = Literal["linf", "l2"]

# Zhang et al. 2019 start at the record plus this times a standard normal draw: at the record itself the divergence has
# no gradient.
_NEAR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Ascent:
    """Projected gradient ascent on a loss, inside a ball around each input and its public bounds.

    Args:
        bounds: Of the inputs.
        radius: Of the ball, in encoded units.
        norm: ``"linf"``: steps by the sign of the gradient; ``"l2"``: along it.
        steps: How many, each with one forward and one backward pass.
        step_size: Length of a step in the norm; by default 2.5 radius / steps, which can cross the ball.
    """

    bounds: InputBounds
    radius: float
    norm: Norm = "linf"
    steps: int = 7
    step_size: float | None = None

    @property
    def law(self) -> Law:
        """Of the draws of a start in the ball."""
        return "uniform" if self.norm == "linf" else "normal"

    @property
    def width(self) -> int:
        """How many draws a start in the ball needs: two more than features where a direction is drawn."""
        return self.bounds.width if self.norm == "linf" else self.bounds.width + 2

    def start(self, x: Tensor, draws: Tensor) -> Tensor:
        """A point drawn uniformly from the ball around each input, put inside the bounds.

        In the Euclidean norm: all but two coordinates of a uniform point of the sphere two dimensions up.
        """
        draws = draws.to(x)
        if self.norm == "linf":
            return self._project(x + self.radius * (2.0 * draws.view_as(x) - 1.0), x)
        length = torch.linalg.vector_norm(draws, dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
        return self._project(x + self.radius * (draws / length)[:, :-2].reshape(x.shape), x)

    def near(self, x: Tensor, draws: Tensor) -> Tensor:
        """A point very near each input, from ``(n, features)`` normal draws."""
        return self._project(x + _NEAR * draws.to(x).view_as(x), x)

    def climb(
        self, model: Differentiable, objective: Objective, x: Tensor, rest: tuple[Tensor, ...], start: Tensor
    ) -> Tensor:
        """``(n, *shape)`` where the ascent ends.

        Args:
            model: Gives gradients by inputs.
            objective: What grows, of a batch ``(inputs, *rest)``.
            x: ``(n, *shape)`` the records' own inputs.
            rest: What else the objective needs.
            start: ``(n, *shape)`` inside the ball.
        """
        step = 2.5 * self.radius / self.steps if self.step_size is None else self.step_size
        free = self.bounds.free.to(x.device)
        point = start
        for _ in range(self.steps):
            slope = torch.where(free, model.input_gradients(objective, (point, *rest))[0].to(x), 0.0)
            if self.norm == "linf":
                direction = slope.sign()
            else:
                length = torch.linalg.vector_norm(slope.flatten(1), dim=1).clamp(
                    min=torch.finfo(x.dtype).tiny
                )
                direction = slope / length.view(-1, *[1] * (x.ndim - 1))
            # A gradient that is not a number is no direction; the record stays where it was.
            point = self._project(point + step * torch.nan_to_num(direction), x)
        return point

    def _project(self, point: Tensor, x: Tensor) -> Tensor:
        # In the Euclidean norm the public bounds alone are a box: sides of the radius would bend a long step.
        below, above = self.bounds.box(x, self.radius if self.norm == "linf" else torch.inf)
        point = torch.minimum(torch.maximum(point, below), above)
        if self.norm == "linf":
            return point
        # Towards the record, which is in the box, as is then all between.
        away = point - x
        length = torch.linalg.vector_norm(away.flatten(1), dim=1).clamp(min=torch.finfo(x.dtype).tiny)
        shrunk: Tensor = away * (self.radius / length).clamp(max=1.0).view(-1, *[1] * (x.ndim - 1))
        return x + shrunk


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """Adversarial training (Madry et al. 2018): the loss where an ascent from a random start ends.

    Args:
        natural: The loss, which the ascent raises.
        ascent: Of the attack.
        weight: Of that loss in [0, 1]; the rest weighs the record as it is. 1 is Madry's, one half mixes the two
            (Goodfellow et al. 2015).
    """

    natural: Objective
    ascent: Ascent
    weight: float = 1.0

    @property
    def law(self) -> Law:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        return self.ascent.law

    def width(self, batch: Batch) -> int:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        return self.ascent.width

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses of ``(inputs, targets)``, or of ``(inputs, targets, perturbed inputs)``."""
        if len(batch) == 2:
            return self.natural(model, batch)
        x, y, worst = batch
        clean, attacked = self.natural(model, (x, y)), self.natural(model, (worst, y))
        return (1.0 - self.weight) * clean + self.weight * attacked

    def perturbed(self, batch: Batch, moment: Moment, model: Differentiable) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        x, y = batch
        return self._beside(
            x, y, self.ascent.climb(model, self.natural, x, (y,), self.ascent.start(x, moment.draws))
        )

    def stand_in(self, batch: Batch) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        x, y = batch
        return self._beside(x, y, elsewhere(x))

    def _beside(self, x: Tensor, y: Tensor, worst: Tensor) -> Batch:
        return (worst, y) if self.weight == 1.0 else (x, y, worst)


@dataclass(frozen=True, kw_only=True)
class Trades:
    """TRADES (Zhang et al. 2019): the record's own loss, and beta times how much the output can be made to change.

    The change is the divergence ``KL(p(x) || p(x'))`` of the predicted classes in nats, which the ascent raises from a
    point next to the record, with p(x) held fast. Its gradient by the weights goes through both p(x) and p(x').

    Args:
        natural: The record's own loss, a cross-entropy.
        ascent: Of the attack.
        beta: Weight of the change (1 / lambda in the paper, which uses 1 and 6).
    """

    natural: Objective
    ascent: Ascent
    beta: float = 6.0
    law: Law = "normal"

    def width(self, batch: Batch) -> int:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        return self.ascent.bounds.width

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses of ``(inputs, targets)``, or of ``(inputs, targets, perturbed inputs)``."""
        if len(batch) == 2:
            return self.natural(model, batch)
        x, y, moved = batch
        logits = model(x)
        own = self.natural(nn.Identity(), (logits, y))
        return own + self.beta * divergence(logits, model(moved))

    def perturbed(self, batch: Batch, moment: Moment, model: Differentiable) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        x, y = batch
        logits = model.outputs(x)
        return x, y, self.ascent.climb(model, _change, x, (logits,), self.ascent.near(x, moment.draws))

    def stand_in(self, batch: Batch) -> Batch:
        """See :class:`~fedsafe.client.objectives.perturbing.Perturbing`."""
        x, y = batch
        return x, y, elsewhere(x)


def _change(model: nn.Module, batch: Batch) -> Tensor:
    x, logits = batch
    return divergence(logits.detach(), model(x))


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """``(n,)`` KL of the classes that ``(n, classes)`` logits predict from those that others do, in nats.

    One logit is that of class 1 against 0.
    """
    if logits.shape[-1] == 1:
        logits, others = (torch.cat([torch.zeros_like(z), z], -1) for z in (logits, others))
    own, other = F.log_softmax(logits, -1), F.log_softmax(others, -1)
    return (own.exp() * (own - other)).sum(-1)


def elsewhere(x: Tensor) -> Tensor:
    """Inputs that differ from the records', for trying a model without an attack."""
    return 0.5 * x + 0.1
