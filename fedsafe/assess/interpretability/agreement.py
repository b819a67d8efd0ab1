"""How far two series of decisions agree, beyond what chance and the majority would do."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


def luck_allowed(n: int) -> float:
    """What chance agreement on n examples may reach: three standard errors at most, and a little."""
    return float(0.05 + 3 / np.sqrt(n))


def confusion(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> Counts:
    """``(classes, classes)`` counts, the model's decision first."""
    return np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)


def kappa(cells: Counts) -> Array:
    """Cohen's kappa (1960) of ``(rows, classes, classes)`` counts; not a number where chance agrees always."""
    n = cells.sum(axis=(1, 2))
    agreed = np.trace(cells, axis1=1, axis2=2) / n
    chance = (cells.sum(axis=2) * cells.sum(axis=1)).sum(axis=1) / n.astype(np.float64) ** 2
    room = 1 - chance
    return np.asarray(np.divide(agreed - chance, room, out=np.full(len(cells), np.nan), where=room > 1e-12))


def chance_agreement(cells: Counts) -> float:
    """The agreement of two that decide as often for each class, independently."""
    return float(cells.sum(axis=0) @ cells.sum(axis=1) / float(cells.sum()) ** 2)


def gain(cells: Counts, majority: int) -> Array:
    """Share of the majority rule's disagreements that the tree mends (Goodman and Kruskal, 1954)."""
    n = cells.sum(axis=(1, 2))
    agreed, rule = np.trace(cells, axis1=1, axis2=2) / n, cells[:, majority].sum(axis=1) / n
    room = 1 - rule
    return np.asarray(np.divide(agreed - rule, room, out=np.full(len(cells), np.nan), where=room > 1e-12))
