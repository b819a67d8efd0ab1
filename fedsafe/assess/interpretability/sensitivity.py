"""How far an explanation moves when the example hardly does: max-sensitivity (Yeh et al., 2019)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.metrics import sensitivity_max
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Subject
from fedsafe.assess.interpretability.explainers import attribute
from fedsafe.assess.interpretability.means import mean_of
from fedsafe.findings import Finding, Scope, not_measured

METRIC = "interpretability.sensitivity_max"


def sensitivity(
    subject: Subject,
    x: Tensor,
    target: Tensor,
    baseline: NDArray[np.float32],
    steps: int,
    *,
    explainer: str,
    draws: int,
    radius: float,
    rng: np.random.Generator,
    context: Scope,
) -> Finding:
    """The largest relative change of the slopes under small uniform noise, by captum.

    An explainer that draws at random draws the same at every point, so that what moves is the explanation and not its
    sampling. One-hot features stay.

    Args:
        subject: Whose model it is.
        x: ``(n, *inputs)``.
        target: ``(n,)`` the output of each that is explained.
        baseline: ``(*inputs,)``.
        steps: Effort of the explainer.
        explainer: Name, import path or entry point.
        draws: Of noise, for each example.
        radius: Largest change of a feature, in shares of its public range.
        rng: Source of the noise and of the explainer's randomness.
        context: Of the finding.
    """
    ranges = radius * (subject.task.schema.high - subject.task.schema.low)
    for group in subject.task.schema.one_hot:
        ranges.reshape(-1)[list(group)] = 0.0
    if not ranges.any():
        reason = "every feature is one of a few categories: none moves a little"
        return not_measured(METRIC, reason, status="not_applicable", **context)
    width = subject.tensor(ranges.astype(np.float32))
    low, high = (subject.tensor(end) for end in subject.input_bounds())
    seed, noise = int(rng.integers(2**63)), torch.Generator().manual_seed(int(rng.integers(2**63)))

    def nearby(inputs: Tensor) -> Tensor:
        drawn = (2 * torch.rand(inputs.shape, generator=noise) - 1).to(inputs.device)
        return torch.minimum(torch.maximum(inputs + width * drawn, low), high)

    def slopes(point: Tensor) -> Tensor:
        again = np.random.default_rng(seed)
        with torch.enable_grad():
            return attribute(subject, point, baseline, target, steps, explainer=explainer, rng=again)

    def guesses(point: Tensor) -> Tensor:
        return torch.randn(point.shape, generator=noise).to(point.device)

    found, control = (
        sensitivity_max(
            _like_captums(function), x, nearby, n_perturb_samples=draws, max_examples_per_batch=len(x)
        )
        for function in (slopes, guesses)
    )
    return mean_of(
        METRIC,
        found.double().cpu().numpy(),
        rng,
        anchors={"random_attribution": float(control.mean())},
        detail={"radius": radius, "draws": draws},
        **context,
    )


def _like_captums(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    """An explanation that answers a tuple with a tuple, as captum's own do.

    Captum gives its metric the examples as a tuple of one tensor, and takes a tensor that comes back for a tuple of
    examples: it would compare all with the first.
    """

    def explanation(inputs: Any) -> Any:
        return function(inputs) if isinstance(inputs, Tensor) else (function(inputs[0]),)

    return explanation
