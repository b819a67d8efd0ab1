"""Krum and Multi-Krum: the rows that lie closest to their neighbours."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.distances import shortened, squared_distances
from fedsafe.aggregation.robust import RobustRule
from fedsafe.errors import ConfigError


def krum_scores(rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
    """``(n,)`` sums of the squared distances of each row to the ``n - f - 2`` others nearest to it (Blanchard, 2017).

    Args:
        rows: ``(n, parameters)``.
        adversaries: f. Of fewer than ``f + 3`` rows, the nearest one counts all the same.
    """
    neighbours = max(1, len(rows) - adversaries - 2)
    # Each row's own distance, zero, comes first.
    nearest = np.sort(squared_distances(rows), axis=1)[:, 1 : 1 + neighbours]
    scores: NDArray[np.float64] = nearest.sum(axis=1)
    return scores


@final
@dataclass(frozen=True, kw_only=True)
class Krum(RobustRule):
    """The row with the smallest score (Blanchard et al., 2017); of equal ones, that of the lowest client number.

    Bound: with n rows of which f are adversaries', whatever they are, and n >= 2 f + 3, the result is no farther than
    ``D sqrt((n - f - 2) / (n - 2 f - 1))`` from some honest row, where D is the largest distance between two honest
    rows: of an adversary's neighbours ``n - 2 f - 1`` are honest, and no honest row scores above ``(n - f - 2) D^2``.
    """

    name: ClassVar[str] = "krum"

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """One of the rows."""
        chosen: NDArray[np.float64] = rows[int(np.argmin(krum_scores(rows, adversaries)))].copy()
        return chosen


@final
@dataclass(frozen=True, kw_only=True)
class MultiKrum(RobustRule):
    """The mean of the m rows with the smallest scores (Blanchard et al., 2017).

    Args:
        selected: m, at least 1; by default ``n - f``. Never more than that: as many are honest.

    Bound: each of the m rows is within the bound of :class:`Krum` of some honest row.
    """

    selected: int | None = None
    name: ClassVar[str] = "multi_krum"

    def __post_init__(self) -> None:
        """Refuse a number of rows that is none."""
        super().__post_init__()
        if self.selected is not None and (
            not isinstance(self.selected, int) or isinstance(self.selected, bool) or self.selected < 1
        ):
            raise ConfigError(
                f"server.aggregator (multi_krum): selected = {self.selected!r}; it is a whole number of at least 1"
            )

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The mean of the selected rows."""
        most = len(rows) - adversaries
        selected = most if self.selected is None else min(self.selected, most)
        best = np.sort(np.argsort(krum_scores(rows, adversaries), kind="stable")[:selected])
        mean: NDArray[np.float64] = shortened(rows)[best].mean(axis=0)
        return mean
