"""Explainers that follow the model's gradient; the implementations are captum's."""

from collections.abc import Callable

import numpy as np
import torch
from captum.attr import GradientShap, IntegratedGradients
from torch import Tensor

from fedsafe.assess.interpretability.protocol import seeded


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


def gradient_shap(
    forward: Callable[[Tensor], Tensor],
    x: Tensor,
    baseline: Tensor,
    target: Tensor,
    *,
    steps: int,
    batch: int,
    rng: np.random.Generator,
) -> Tensor:
    """The mean gradient at `steps` random points between the examples and the baseline (Lundberg and Lee, 2017).

    Of several baselines ``(m, *inputs)`` one is drawn for each point.
    """
    explainer = GradientShap(forward, multiply_by_inputs=False)
    rows, parts = max(1, batch // steps), []
    with seeded(rng):
        for start in range(0, len(x), rows):
            block = slice(start, start + rows)
            found = explainer.attribute(
                x[block], baselines=baseline, target=target[block], n_samples=steps, stdevs=0.0
            )
            parts.append(found.detach())
    return torch.cat(parts)


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
