"""The explainers by name, and what one says of a subject's outputs between a baseline and an example."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Subject
from fedsafe.assess.interpretability.features import column_of_features
from fedsafe.assess.interpretability.gradients import gradient, gradient_shap, integrated_gradients
from fedsafe.assess.interpretability.libraries import check_installed, lime_library, shap_library
from fedsafe.assess.interpretability.protocol import Explainer, NoExplanation
from fedsafe.assess.interpretability.removal import (
    kernel_shap,
    lime,
    occlusion,
    passes_of_kernel_shap,
    samples_of,
)
from fedsafe.assess.scores import decide
from fedsafe.data import InputSchema
from fedsafe.extensions import resolve

Array = NDArray[np.float64]

EXPLAINERS: Mapping[str, Any] = MappingProxyType(
    {
        "integrated_gradients": integrated_gradients,
        "gradient": gradient,
        "gradient_shap": gradient_shap,
        "kernel_shap": kernel_shap,
        "lime": lime,
        "occlusion": occlusion,
        "shap_library": shap_library,
        "lime_library": lime_library,
    }
)
"""The built-in explainers, by name."""

_FOLLOW_GRADIENTS = frozenset({"integrated_gradients", "gradient", "gradient_shap"})
ONE_BY_ONE = frozenset({"kernel_shap", "lime", "shap_library", "lime_library"})
"""Explainers that fit a regression to each example: few examples are explained with them."""
INCOMPLETE = frozenset({"lime", "lime_library", "occlusion"})
"""Explainers whose attributions are not meant to add up to the output's change."""
DRAWING = frozenset({"gradient_shap", "kernel_shap", "lime", "shap_library", "lime_library"})
"""Explainers whose attributions depend on a seed."""


def check_explainer(name: str) -> None:
    """Refuses a name that is no explainer, or whose package is not installed.

    Raises:
        ConfigError: With what is known, or how to install it.
    """
    resolve("explainer", name, EXPLAINERS)
    check_installed(name)


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
    target: NDArray[np.int64] | None = None,
) -> Explained:
    """Explains the predicted class's logit, the positive class's, or the predicted number, of examples.

    Args:
        subject: Whose model is explained; its outputs are ``(n, outputs)``.
        x: ``(n, *inputs)``.
        baseline: ``(*inputs,)``.
        steps: Effort of the explainer.
        explainer: Name, import path or entry point.
        rng: Source of the explainer's randomness.
        target: ``(n,)`` which output is explained instead.

    Raises:
        ConfigError: The explainer cannot be found.
        NoExplanation: It follows gradients, and the model has none.
        TypeError: It returned something else than a tensor of the shape of the examples.
    """
    logits = subject.logits(x)
    rows = np.arange(len(x))
    column = explained_output(logits) if target is None else target
    change = logits[rows, column] - subject.logits(baseline[None])[0, column]
    inputs = subject.tensor(x)
    local = attribute(subject, inputs, baseline, subject.tensor(column), steps, explainer=explainer, rng=rng)
    if explainer in _FOLLOW_GRADIENTS and np.any(change) and not local.any():
        raise NoExplanation(
            "every gradient is zero although the output changes: the model answers in steps; name an explainer that "
            "needs no gradient, such as kernel_shap"
        )
    with np.errstate(invalid="ignore"):  # an infinite gradient over no distance: `broken` tells
        attribution = local.double().cpu().numpy() * (x.astype(np.float64) - baseline)
        gap = attribution.reshape(len(x), -1).sum(axis=1) - change
    return Explained(
        x=inputs, target=subject.tensor(column), local=local, attribution=attribution, change=change, gap=gap
    )


def attribute(
    subject: Subject,
    x: Tensor,
    baseline: NDArray[np.float32],
    target: Tensor,
    steps: int,
    *,
    explainer: str,
    rng: np.random.Generator,
) -> Tensor:
    """``(n, *inputs)`` what a unit change of each feature moves; arguments and errors as for `explain`."""
    function: Explainer = resolve("explainer", explainer, EXPLAINERS)
    if explainer in _FOLLOW_GRADIENTS and not subject.forward(x[:1].clone().requires_grad_()).requires_grad:
        raise NoExplanation(
            "the model's outputs have no gradient; name an explainer that needs none, such as kernel_shap"
        )
    options: dict[str, Any] = {}
    if _asks_for_columns(function):
        options["columns"] = column_of_features(subject.task.schema)
    found: object = function(
        subject.forward,
        x.clone(),
        subject.tensor(baseline[None]),
        target,
        steps=steps,
        batch=subject.rows_at_once,
        rng=rng,
        **options,
    )
    if not isinstance(found, Tensor) or found.shape != x.shape:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"it returned {shape} for examples of shape {tuple(x.shape)}")
    return found.detach().to(x.dtype)


def _asks_for_columns(function: Any) -> bool:
    try:
        return "columns" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some compiled callables do not say
        return False


def explained_output(logits: Array) -> NDArray[np.int64]:
    """``(n,)`` the predicted class, or 0 where there is one output."""
    return decide(logits) if logits.shape[1] > 1 else np.zeros(len(logits), dtype=np.int64)


def passes(explainer: str, columns: int, steps: int) -> tuple[int, int]:
    """Forward and backward passes that an explainer takes for one example, at most.

    One of somebody else's is taken to be as dear as integrated gradients.
    """
    if explainer == "gradient":
        return 1, 1
    if explainer == "occlusion":
        return columns + 1, 0
    if explainer == "kernel_shap":
        return passes_of_kernel_shap(columns), 0
    if explainer == "shap_library":
        return max(samples_of(columns), 512) + 2, 0
    if explainer in ONE_BY_ONE:
        return samples_of(columns) + 1, 0
    return steps, steps


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
