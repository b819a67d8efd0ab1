"""The losses of records as they are: one per example, so that per-example gradients are defined.

An objective takes a model and a batch, a tree of tensors with one row per example. Here it is ``(inputs, targets)``.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsafe.client.batches import Batch
from fedsafe.data import Kind

Objective = Callable[[torch.nn.Module, Batch], Tensor]


def cross_entropy(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of each example; for sequences, its mean over the positions.

    Args:
        model: Gives logits ``(examples, classes)``, ``(examples, 1)`` for a binary task, or
            ``(examples, positions, tokens)``.
        batch: Inputs ``(examples, ...)``, and class numbers ``(examples,)`` or tokens ``(examples, positions)``.

    Returns:
        ``(examples,)`` losses in nats.
    """
    x, y = batch
    logits = model(x)
    if y.ndim == 2:
        losses: Tensor = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
        return losses.view(y.shape).mean(1)
    if logits.shape[-1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, y, reduction="none")


def squared_error(model: torch.nn.Module, batch: Batch) -> Tensor:
    """Squared error of each example, without a factor of one half: the mean is the mean squared error.

    Args:
        model: Gives predictions ``(examples, 1)``.
        batch: Inputs ``(examples, ...)``, and values ``(examples,)`` in encoded units.

    Returns:
        ``(examples,)`` losses in squared encoded units.
    """
    x, y = batch
    error: Tensor = model(x)[:, 0] - y
    return error * error


OBJECTIVES: Mapping[str, Objective] = {"cross_entropy": cross_entropy, "squared_error": squared_error}
DEFINED_FOR: Mapping[str, tuple[Kind, ...]] = {
    "cross_entropy": ("binary", "multiclass", "next_token"),
    "squared_error": ("regression",),
}


def natural_of(kind: Kind) -> Objective:
    """The loss that goes with a kind of task."""
    return squared_error if kind == "regression" else cross_entropy
