"""Objectives: one loss per example, so that per-example gradients are defined."""

from collections.abc import Callable
from difflib import get_close_matches

import torch
import torch.nn.functional as F

from fedsafe.errors import ConfigError

Objective = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


def cross_entropy(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each example.

    Args:
        model: Gives logits ``(examples, classes)``, or ``(examples, 1)`` for a binary task.
        x: ``(examples, ...)``.
        y: ``(examples,)`` class numbers.

    Returns:
        ``(examples,)`` losses in nats.
    """
    logits = model(x)
    if logits.shape[-1] == 1:
        return F.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits.dtype), reduction="none")
    return F.cross_entropy(logits, y, reduction="none")


OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy}


def build_objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in OBJECTIVES:
        near = get_close_matches(name, OBJECTIVES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(OBJECTIVES)}"
        raise ConfigError(f"client.objective = {name!r} is not known: {hint}")
    return OBJECTIVES[name]
