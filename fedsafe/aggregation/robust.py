"""Robust rules. They need every row, and none has a proven sensitivity: no client-level claim can be made."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.averaging import add_rows, merge_rows, no_rows, sorted_rows
from fedsafe.aggregation.base import Fold, Updates
from fedsafe.rng import Stream


@dataclass(frozen=True, kw_only=True)
class Median:
    """Coordinate-wise median (Yin et al., 2018); the mean of the two middle values for an even number."""

    name: ClassVar[str] = "median"
    proven_sensitivity: ClassVar[bool] = False

    def zero(self, parameters: int) -> Fold:
        """The rows of no client."""
        return no_rows(parameters)

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Keep the rows; a non-finite one becomes zero."""
        return add_rows(fold, updates)

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The rows of both."""
        return merge_rows(first, second)

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The median over the replies; zero if there are none."""
        rows, _ = sorted_rows(fold)
        return np.median(rows, axis=0) if len(rows) else np.zeros(rows.shape[1])
