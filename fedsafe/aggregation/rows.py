"""Rules that need every row, in a fixed order. None has a proven sensitivity: no client-level claim can be made."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Updates
from fedsafe.privacy.clipping import finite_rows
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream


class RowRule(ABC):
    """Folds to the list of rows; :meth:`combine` sees them in ascending order of client."""

    proven_sensitivity: ClassVar[bool] = False

    @classmethod
    def from_plan(cls, plan: PrivacyPlan) -> Self:
        """Nothing of the plan decides a rule over rows."""
        return cls()

    @abstractmethod
    def combine(self, rows: NDArray[np.float64], examples: NDArray[np.float64]) -> NDArray[np.float64]:
        """One update ``(parameters,)`` from rows ``(clients, parameters)`` and example counts, at least one."""

    @final
    def zero(self, parameters: int) -> Fold:
        """The rows of no client."""
        return Fold(
            arrays={
                "clients": np.zeros(0, np.int64),
                "examples": np.zeros(0),
                "rows": np.zeros((0, parameters)),
            }
        )

    @final
    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Append the rows; a non-finite one becomes zero."""
        arrays = {"clients": updates.clients, "examples": updates.examples, "rows": finite_rows(updates.rows)}
        return self.merge(fold, Fold(arrays=arrays))

    @final
    def merge(self, first: Fold, second: Fold) -> Fold:
        """The rows of both, one after the other."""
        return Fold(arrays={k: np.concatenate([first.arrays[k], second.arrays[k]]) for k in first.arrays})

    @final
    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """Combine in ascending order of client, since a float sum depends on it; zero if nobody replied."""
        order = np.argsort(fold.arrays["clients"], kind="stable")
        rows: NDArray[np.float64] = fold.arrays["rows"][order]
        examples: NDArray[np.float64] = fold.arrays["examples"][order]
        return self.combine(rows, examples) if len(rows) else np.zeros(rows.shape[1])


@final
@dataclass(frozen=True, kw_only=True)
class FedAvg(RowRule):
    """The mean weighted by example counts (McMahan et al., 2017), for runs without a client-level guarantee."""

    name: ClassVar[str] = "fedavg"

    def combine(self, rows: NDArray[np.float64], examples: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weighted mean over the replies, row by row."""
        total = np.zeros(rows.shape[1])
        for row, weight in zip(rows, examples, strict=True):
            total += weight * row
        mean: NDArray[np.float64] = total / examples.sum()
        return mean


@final
@dataclass(frozen=True, kw_only=True)
class Median(RowRule):
    """Coordinate-wise median (Yin et al., 2018); the mean of the two middle values for an even number."""

    name: ClassVar[str] = "median"

    def combine(self, rows: NDArray[np.float64], examples: NDArray[np.float64]) -> NDArray[np.float64]:
        """The median over the replies."""
        median: NDArray[np.float64] = np.median(rows, axis=0)
        return median
