"""Local optimisers, each row of a stack with settings and state of its own.

They see what the noise was added to, so that what they do with it costs no privacy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent.

    Args:
        momentum: Of the heavy ball (Polyak 1964), as ``torch.optim.SGD`` has it: ``b <- momentum * b + g``.
        nesterov: Steps by ``g + momentum * b`` (Sutskever et al. 2013).
        weight_decay: Added to the gradient as ``weight_decay * w``.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether it only subtracts the gradient."""
        return not self.momentum and not self.weight_decay


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba 2015), with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        beta1: Decay of the mean of gradients.
        beta2: Decay of the mean of their squares.
        eps: Added to the root of the latter.
        weight_decay: The weights shrink by ``learning_rate * weight_decay`` in each step.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    plain = False


LocalOptimizer: TypeAlias = SGD | Adam


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate changes over all local steps of a run.

    Args:
        name: ``"constant"``; ``"linear"`` or ``"cosine"`` (Loshchilov and Hutter 2017) from 1 to ``final``;
            ``"exponential"``, by equal factors.
        warmup: Share of all steps in which the rate rises evenly from zero before that.
        final: What is left of the learning rate at the end.
    """

    name: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    warmup: float = 0.0
    final: float = 0.0

    def factor(self, progress: float, step: float) -> float:
        """Factor of the learning rate.

        Args:
            progress: Share of all steps that lie behind, in [0, 1).
            step: Share of all steps that one step is, so that the first one of a warm-up is not zero.
        """
        if progress < self.warmup:
            return min(1.0, (progress + step) / self.warmup)
        along = (progress - self.warmup) / (1.0 - self.warmup)
        if self.name == "linear":
            return 1.0 - (1.0 - self.final) * along
        if self.name == "cosine":
            return self.final + (1.0 - self.final) * (1.0 + math.cos(math.pi * along)) / 2.0
        return self.final**along if self.name == "exponential" else 1.0


class Rows:
    """The state of the optimisers of a stack's rows, which all are of one kind and start from nothing.

    Args:
        optimizers: One for each row.
        like: ``(rows, parameters)``: gives shape, type and device of the state.
    """

    def __init__(self, optimizers: Sequence[LocalOptimizer], like: Tensor) -> None:
        self._adam = isinstance(optimizers[0], Adam)
        self._steps = 0
        self._like = like
        self._first = torch.zeros_like(like)
        self._decay = self._column([one.weight_decay for one in optimizers])
        if self._adam:
            self._second = torch.zeros_like(like)
            adams = [one for one in optimizers if isinstance(one, Adam)]
            self._beta1, self._beta2 = [one.beta1 for one in adams], [one.beta2 for one in adams]
            self._eps = self._column([one.eps for one in adams])
        else:
            sgds = [one for one in optimizers if isinstance(one, SGD)]
            self._momentum = self._column([one.momentum for one in sgds])
            self._ahead = self._column([one.momentum if one.nesterov else 0.0 for one in sgds])
            self._now = self._column([1.0 if one.nesterov else 0.0 for one in sgds])

    def change(self, parameters: Tensor, gradient: Tensor, rates: Tensor) -> Tensor:
        """``(rows, parameters)`` to subtract from the parameters.

        Args:
            parameters: ``(rows, parameters)``.
            gradient: ``(rows, parameters)``; it is written over.
            rates: ``(rows, 1)`` learning rates of this step.
        """
        self._steps += 1
        return (
            self._adam_change(parameters, gradient, rates)
            if self._adam
            else self._sgd_change(parameters, gradient, rates)
        )

    def _sgd_change(self, parameters: Tensor, gradient: Tensor, rates: Tensor) -> Tensor:
        # Products and sums apart: a fused one rounds differently at the end of a vector register.
        gradient.add_(parameters * self._decay)
        self._first.mul_(self._momentum).add_(gradient)
        # Without Nesterov: 0 * g + 1 * b.
        step = self._first * torch.where(self._now > 0.0, self._ahead, 1.0)
        step.add_(gradient.mul_(self._now))
        return step.mul_(rates)

    def _adam_change(self, parameters: Tensor, gradient: Tensor, rates: Tensor) -> Tensor:
        for mean, betas, value in (
            (self._first, self._beta1, gradient),
            (self._second, self._beta2, gradient * gradient),
        ):
            mean.mul_(self._column(betas))
            mean.add_(value * self._column([1.0 - beta for beta in betas]))
        first, second = (
            self._column([1.0 - beta**self._steps for beta in betas]) for betas in (self._beta1, self._beta2)
        )
        step = (self._first / first).div_((self._second / second).sqrt_().add_(self._eps))
        step.add_(parameters * self._decay)
        return step.mul_(rates)

    def _column(self, values: Sequence[float]) -> Tensor:
        return self._like.new_tensor(values).unsqueeze(1)
