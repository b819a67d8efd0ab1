"""Flips of categories: an attacker who lies about a few columns of a record."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.robustness.search import margin
from fedsafe.data import Examples

Group = tuple[int, ...]


def mutable_groups(subject: Subject) -> list[Group]:
    """The one-hot groups of features that belong to columns which a person can change."""
    schema = subject.task.schema
    return [group for group in getattr(schema, "one_hot", ()) if not schema.immutable[list(group)].any()]


def flip_columns(
    subject: Subject, examples: Examples, groups: Sequence[Group], most: int
) -> list[NDArray[np.float32]]:
    """The worst records that differ in one categorical column, in two, and so on.

    The first column is found by trying every category of every column. Each further one is the best beside those
    before it, so that from two on there may be worse records than the one found.

    Args:
        subject: Whose model is attacked.
        examples: Records to change.
        groups: One-hot groups that may change; a changed one is again one-hot.
        most: Columns that may change, at most.

    Returns:
        ``(n, features)`` records for each number of columns from 1 on.
    """
    features = examples.x.shape[1]
    column = np.concatenate([np.full(len(group), place) for place, group in enumerate(groups)])
    masks, values = np.zeros((len(column), features), bool), np.zeros((len(column), features), np.float32)
    for row, feature in enumerate(feature for group in groups for feature in group):
        masks[row, list(groups[column[row]])], values[row, feature] = True, 1.0
    found = [examples.x.copy() for _ in range(most)]
    at_once = max(1, subject.rows_at_once // len(column))
    for start in range(0, len(examples), at_once):
        rows = slice(start, start + at_once)
        point, y = examples.x[rows], examples.y[rows]
        best, used = _margins(subject, point, y), np.zeros((len(point), len(groups)), bool)
        every = np.arange(len(point))
        for changed in range(most):
            tried = np.where(masks, values, point[:, None])
            margins = _margins(subject, tried.reshape(-1, features), np.repeat(y, len(column)))
            margins = np.where(used[:, column], -np.inf, margins.reshape(len(point), -1))
            choice = margins.argmax(axis=1)
            better = (margins[every, choice] > best) & (best <= 0)  # an error is enough
            point = np.where(better[:, None], tried[every, choice], point)
            used[every[better], column[choice[better]]] = True
            best = np.where(better, margins[every, choice], best)
            found[changed][rows] = point
    return found


def broken_rules(
    clean: NDArray[np.float32], found: NDArray[np.float32], groups: Sequence[Group], columns: int
) -> dict[str, int]:
    """How many records break each rule of the threat model."""
    members = np.zeros(clean.shape[1], bool)
    changed = np.zeros(len(clean), np.int64)
    valid = np.ones(len(clean), bool)
    for group in map(list, groups):
        members[group] = True
        changed += (clean[:, group] != found[:, group]).any(axis=1)
        valid &= (found[:, group].sum(axis=1) == 1) & np.isin(found[:, group], (0.0, 1.0)).all(axis=1)
    return {
        "change too many columns": int((changed > columns).sum()),
        "are not one-hot": int((~valid).sum()),
        "change a fixed feature": int((clean[:, ~members] != found[:, ~members]).any(axis=1).sum()),
    }


def _margins(subject: Subject, x: NDArray[np.float32], y: NDArray[np.int64]) -> NDArray[np.float64]:
    return subject.collect(
        x, lambda outputs, rows: margin(torch.tensor(outputs), torch.tensor(y[rows])).numpy()
    )
