"""Batches as trees of tensors: whatever nesting of tuples, lists and dictionaries an objective likes."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

# Every leaf is a tensor ``(examples, ...)``, examples in one order; ``(inputs, targets)`` for the tasks that ship.
Batch: TypeAlias = Any


def leaves(batch: Batch) -> list[Tensor]:
    """The tensors of a batch, in a fixed order."""
    found: list[Tensor] = pytree.tree_leaves(batch)
    return found


def examples(batch: Batch) -> int:
    """How many examples a batch has.

    Raises:
        ValueError: It holds something else than tensors of one length.
    """
    parts = pytree.tree_leaves(batch)
    if not parts or any(not isinstance(part, Tensor) or not part.ndim for part in parts):
        raise ValueError("a batch is a tensor, or a tuple, list or dict of tensors, with one row per example")
    lengths = {len(part) for part in parts}
    if len(lengths) > 1:
        raise ValueError(f"the tensors of a batch have {sorted(lengths)} rows: give each one row per example")
    return lengths.pop()


def mapped(function: Callable[[Tensor], Tensor], batch: Batch) -> Batch:
    """The same tree with a function of each tensor."""
    return pytree.tree_map(function, batch)


def chosen(batch: Batch, rows: Any) -> Batch:
    """The examples of some rows: a slice, or a tensor of row numbers."""
    if isinstance(rows, Tensor):
        # Copies whole rows at once, which indexing by a tensor does not.
        return mapped(lambda part: part.index_select(0, rows), batch)
    return mapped(lambda part: part[rows], batch)


def floating(batch: Batch) -> list[Tensor]:
    """The tensors of a batch that can have a gradient."""
    return [part for part in leaves(batch) if part.is_floating_point()]


def moved(batch: Batch, device: torch.device) -> Batch:
    """The same batch on a device."""
    return mapped(lambda part: part.to(device), batch)
