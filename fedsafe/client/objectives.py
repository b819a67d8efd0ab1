"""Objectives: one loss per example, so that per-example gradients are defined.

An objective takes a model and a batch, a tree of tensors with one row per example. Here it is ``(inputs, targets)``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fedsafe.client.batches import Batch, examples
from fedsafe.data import Kind
from fedsafe.errors import ConfigError, ModelError
from fedsafe.extensions import one_line, resolve

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
_DEFINED_FOR: Mapping[str, tuple[Kind, ...]] = {
    "cross_entropy": ("binary", "multiclass", "next_token"),
    "squared_error": ("regression",),
}


@dataclass(frozen=True)
class UserObjective:
    """A user's own loss: it may raise or return anything, and is named when it does.

    Args:
        name: Its import path, or what a package offers it as.
        function: Takes a model and a batch, and gives one loss per example.
    """

    name: str
    function: Callable[..., object]

    def __call__(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        """``(examples,)`` losses.

        Raises:
            ModelError: It raised, or gave something else than one floating loss per example.
        """
        try:
            losses = self.function(model, batch)
        except Exception as error:
            raise ModelError(f"the objective {self.name!r} failed: {one_line(error)}") from error
        count = examples(batch)
        if not isinstance(losses, Tensor) or not losses.is_floating_point() or losses.shape != (count,):
            found = (
                f"{losses.dtype} {tuple(losses.shape)}"
                if isinstance(losses, Tensor)
                else type(losses).__name__
            )
            raise ModelError(
                f"the objective {self.name!r} gave {found} for {count} examples: return a float tensor of shape "
                f"({count},), one loss per example"
            )
        return losses


def build_objective(name: str | None, kind: Kind) -> Objective:
    """The objective of that name.

    Args:
        name: ``"cross_entropy"``, ``"squared_error"``, ``"package.module:function"`` or the name that an
            installed package offers for one's own, or None for the one that goes with the kind.
        kind: Of the task.

    Raises:
        ConfigError: The name is unknown, cannot be imported, or is not defined for this kind of task.
    """
    if name is None:
        name = "squared_error" if kind == "regression" else "cross_entropy"
    function = resolve("objective", name, OBJECTIVES)
    if name not in OBJECTIVES:
        return UserObjective(name, function)
    kinds = _DEFINED_FOR[name]
    if kind not in kinds:
        raise ConfigError(
            f"client.objective = {name!r} is for {' and '.join(kinds)} tasks, and this task is {kind}: leave it "
            "out to get the one that fits"
        )
    return function
