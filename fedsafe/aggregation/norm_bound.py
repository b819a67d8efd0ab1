"""The mean of rows none of which is longer than a bound."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.distances import shortened
from fedsafe.aggregation.options import require_number
from fedsafe.aggregation.robust import RobustRule


@final
@dataclass(frozen=True, kw_only=True)
class NormBound(RobustRule):
    """Norm bounding (Sun et al., 2019): each row is clipped to a bound, then the rows are averaged.

    Args:
        bound: Largest norm of a row; by default the median of the round's norms.

    Bound: f of n rows add at most ``f bound / n`` to the result, whatever they are; the median of the norms is at most
    the largest honest one while f < n / 2.
    """

    bound: float | None = None
    name: ClassVar[str] = "norm_bound"
    counts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a bound that is no positive number."""
        super().__post_init__()
        if self.bound is not None:
            require_number(self.name, "bound", self.bound, low=np.finfo(np.float64).tiny)

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The mean of the clipped rows."""
        rows = shortened(rows)
        norms = np.linalg.norm(rows, axis=1)
        return clipped_mean(rows, norms, float(np.median(norms)) if self.bound is None else self.bound)


def clipped_mean(rows: NDArray[np.float64], norms: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """``(parameters,)`` mean of rows that are scaled to a norm of at most ``clip``.

    Args:
        rows: ``(n, parameters)``.
        norms: ``(n,)`` of the rows.
        clip: At least 0.
    """
    longer = norms > clip
    factors = np.where(longer, clip / np.where(longer, norms, 1.0), 1.0)
    mean: NDArray[np.float64] = (factors / len(rows)) @ rows
    return mean
