"""The geometric median: the point whose distances to the rows have the smallest sum."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.distances import median_row, shortened
from fedsafe.aggregation.robust import RobustRule

# Of the median distance: below the first, distances are taken as that; steps below the second end the iteration.
_SMOOTHING, _STEP = 1e-9, 1e-13
_MOST_STEPS = 10_000


@final
@dataclass(frozen=True, kw_only=True)
class GeometricMedian(RobustRule):
    """Geometric median by the smoothed Weiszfeld iteration (Pillutla et al., 2022), until it stands still.

    Bound: if a share a < 1/2 of the rows are adversaries', whatever they are, and all others lie within r of a point,
    the result lies within ``r (1 - a) / sqrt(1 - 2 a)`` of that point (Minsker, 2015, lemma 2.1).
    """

    name: ClassVar[str] = "geometric_median"
    counts: ClassVar[bool] = False

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The geometric median."""
        return geometric_median(rows)


def geometric_median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(parameters,)`` geometric median of finite rows; where it is no single point, one of them.

    Args:
        rows: ``(n, parameters)``, n at least 1.
    """
    rows = shortened(rows)
    start = median_row(rows)
    apart = rows - start
    # Distances are all that the iteration looks at, and n rows have them in n dimensions already. A triangular factor
    # is accurate to each row's own size: a huge row costs the others no digits.
    points = apart
    if apart.shape[1] > len(rows):
        points = np.asarray(np.linalg.qr(apart.T, mode="r")).T
    distances = np.linalg.norm(points, axis=1)
    scale = float(np.median(distances))
    if scale == 0.0:  # most rows are that one point
        return start
    floor = max(_SMOOTHING * scale, float(np.finfo(np.float64).tiny))
    centre = np.zeros(points.shape[1])
    weights = np.zeros(len(points))
    for _ in range(_MOST_STEPS):
        weights = floor / np.maximum(distances, floor)
        weights /= weights.sum()
        moved = weights @ points
        step = float(np.linalg.norm(moved - centre))
        centre = moved
        distances = np.linalg.norm(points - centre, axis=1)
        if step <= _STEP * scale:
            break
    found: NDArray[np.float64] = start + weights @ apart
    return found
