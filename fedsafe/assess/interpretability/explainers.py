"""Explainers: how much a unit change of each feature moves the output, between a baseline and an example."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from captum.attr import IntegratedGradients
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Subject
from fedsafe.assess.scores import decide
from fedsafe.data import InputSchema
from fedsafe.extensions import resolve

Array = NDArray[np.float64]


class Explainer(Protocol):
    """Attributes an output to features. A user's own is a function with these arguments."""

    def __call__(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        baseline: Tensor,
        target: Tensor,
        *,
        steps: int,
        batch: int,
        rng: np.random.Generator,
    ) -> Tensor:
        """Explains examples.

        Args:
            forward: Differentiable map from ``(n, *inputs)`` to ``(n, outputs)``.
            x: ``(n, *inputs)`` examples.
            baseline: ``(1, *inputs)`` where they are compared with.
            target: ``(n,)`` the output of each that is explained.
            steps: Effort, such as the nodes of an integral.
            batch: Examples in one forward pass, at most.
            rng: The only source of randomness.

        Returns:
            ``(n, *inputs)`` change of the output for a unit change of each feature. Times the distance from the
            baseline it is the feature's attribution, and these should add up to the output's change.
        """


def integrated_gradients(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    steps: int,
    batch: int,
    rng: np.random.Generator,
) -> Tensor:
    """The mean gradient along the straight path (Sundararajan, Taly and Yan, 2017), by Gauss and Legendre's rule."""
    local: Tensor = IntegratedGradients(forward, multiply_by_inputs=False).attribute(
        x.requires_grad_(),
        baselines=baseline,
        target=target,
        n_steps=steps,
        internal_batch_size=max(batch, len(x)),
    )
    return local


def gradient(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    steps: int,
    batch: int,
    rng: np.random.Generator,
) -> Tensor:
    """The gradient at the example (Baehrens et al., 2010): exact for linear models, and complete for no other."""
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        output = forward(point).gather(1, target[:, None]).sum()
        found = torch.autograd.grad(output, point, allow_unused=True)[0] if output.requires_grad else None
    return torch.zeros_like(x) if found is None else found


EXPLAINERS: Mapping[str, Explainer] = MappingProxyType(
    {"integrated_gradients": integrated_gradients, "gradient": gradient}
)
"""The built-in explainers, by name."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Explanations of some examples.

    Attributes:
        x: ``(n, *inputs)`` the examples.
        target: ``(n,)`` output that is explained: the predicted class, or 0 where there is one output.
        local: ``(n, *inputs)`` what a unit change of each feature moves.
        attribution: ``(n, *inputs)`` `local` times the distance from the baseline.
        change: ``(n,)`` the output's change from the baseline.
        gap: ``(n,)`` the attributions' sum less that change.
    """

    x: Tensor
    target: Tensor
    local: Tensor
    attribution: Array
    change: Array
    gap: Array

    @property
    def broken(self) -> str:
        """Why nothing follows from them; "" where all are finite."""
        n = len(self.attribution)
        count = int(np.sum(~np.isfinite(self.attribution.reshape(n, -1)).all(axis=1)))
        return f"the attributions are not finite for {count} of {n} examples" if count else ""


def explain(
    subject: Subject,
    x: NDArray[np.float32],
    baseline: NDArray[np.float32],
    steps: int,
    *,
    explainer: str = "integrated_gradients",
    rng: np.random.Generator,
) -> Explained:
    """Explains the predicted class's logit, the positive class's, or the predicted number, of examples.

    Args:
        subject: Whose model is explained; its outputs are ``(n, outputs)``.
        x: ``(n, *inputs)``.
        baseline: ``(*inputs,)``.
        steps: Effort of the explainer.
        explainer: Name, import path or entry point.
        rng: Source of the explainer's randomness.

    Raises:
        ConfigError: The explainer cannot be found.
        TypeError: It returned something else than a tensor of the shape of the examples.
    """
    logits = subject.logits(x)
    rows = np.arange(len(x))
    column = decide(logits) if logits.shape[1] > 1 else np.zeros(len(x), dtype=np.int64)
    change = logits[rows, column] - subject.logits(baseline[None])[0, column]
    inputs, target = subject.tensor(x), subject.tensor(column)
    found: object = resolve("explainer", explainer, EXPLAINERS)(
        subject.forward,
        inputs.clone(),
        subject.tensor(baseline[None]),
        target,
        steps=steps,
        batch=subject.rows_at_once,
        rng=rng,
    )
    if not isinstance(found, Tensor) or found.shape != inputs.shape:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"it returned {shape} for examples of shape {tuple(inputs.shape)}")
    local = found.detach().to(inputs.dtype)
    with np.errstate(invalid="ignore"):  # an infinite gradient over no distance: `broken` tells
        attribution = local.double().cpu().numpy() * (x.astype(np.float64) - baseline)
        gap = attribution.reshape(len(x), -1).sum(axis=1) - change
    return Explained(x=inputs, target=target, local=local, attribution=attribution, change=change, gap=gap)


def unexplainable(subject: Subject) -> str:
    """Why a subject has no attributions; "" where it has."""
    if subject.task.schema.vocabulary is not None:
        return "the inputs are tokens: there is no path from one to another"
    if subject.task.kind == "next_token":
        return "a record has many outputs, one for each position and token"
    return ""


def public_baselines(schema: InputSchema) -> dict[str, NDArray[np.float32]]:
    """Reference points that need no record: all features 0, and the middle of the public bounds.

    The middle of a one-hot group of k features is 1/k in each.
    """
    middle = ((schema.low + schema.high) / 2).astype(np.float32)
    flat = middle.reshape(-1)
    for group in schema.one_hot:
        flat[list(group)] = 1 / len(group)
    return {"zero": np.zeros_like(middle), "midpoint": flat.reshape(middle.shape)}
