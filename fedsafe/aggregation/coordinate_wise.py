"""Robust rules that look at each coordinate alone, and the plain mean of the rows that they are held against."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.distances import median_row
from fedsafe.aggregation.robust import RobustRule


@final
@dataclass(frozen=True, kw_only=True)
class Mean(RobustRule):
    """The unweighted mean of the rows: what attacks are measured on. One adversary moves it anywhere."""

    name: ClassVar[str] = "mean"
    counts: ClassVar[bool] = False

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The mean."""
        mean: NDArray[np.float64] = (rows / len(rows)).sum(axis=0)  # in this order, no sum overflows
        return mean


@final
@dataclass(frozen=True, kw_only=True)
class Median(RobustRule):
    """Coordinate-wise median (Yin et al., 2018); the mean of the two middle values for an even number.

    Bound: fewer than half of the rows, whatever they are, leave each coordinate between the smallest and the largest
    honest value.
    """

    name: ClassVar[str] = "median"
    counts: ClassVar[bool] = False

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The median."""
        return median_row(rows)


@final
@dataclass(frozen=True, kw_only=True)
class TrimmedMean(RobustRule):
    """Coordinate-wise trimmed mean (Yin et al., 2018): of each coordinate the f smallest and f largest are left out.

    Bound: f rows, whatever they are, leave each coordinate between the smallest and the largest honest value.
    """

    name: ClassVar[str] = "trimmed_mean"

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The mean of what is left of each coordinate."""
        kept = np.sort(rows, axis=0)[adversaries : len(rows) - adversaries]
        mean: NDArray[np.float64] = kept.mean(axis=0)
        return mean
