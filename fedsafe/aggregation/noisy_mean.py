"""The noisy mean: the one rule with a proven sensitivity."""

from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, Updates
from fedsafe.privacy.clipping import clip_rows
from fedsafe.privacy.mechanisms import from_grid, gaussian_on_grid, to_grid
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

_VALUES_AT_ONCE = 2**15


@final
@dataclass(frozen=True, kw_only=True)
class NoisyMean(Rule):
    """Clipped sum on a public grid, plus Gaussian noise, over a public constant.

    The weights are uniform and the divisor is the expected cohort, never the number of replies: one client moves
    the sum by at most ``clip``, whoever else takes part. An empty cohort still releases noise.

    Args:
        clip: Bound on one update's norm, all tensors together.
        noise: Noise multiplier: the standard deviation is ``noise * clip``.
        bits: The grid is ``2^-bits``.
        divisor: The public constant.

    Guarantees:
        ==============  =================================
        update          contribution to the sum
        ==============  =================================
        all zeros       zero
        non-finite      zero
        norm above clip scaled to just under ``clip``
        absent          zero
        ==============  =================================
    """

    clip: float
    noise: float
    bits: int
    divisor: float
    name: ClassVar[str] = "noisy_mean"
    proven_sensitivity: ClassVar[bool] = True

    @classmethod
    def from_plan(cls, plan: PrivacyPlan) -> Self:
        """Clip, noise, grid and divisor of the plan's client level."""
        level = plan.client
        return cls(clip=level.clip, noise=level.noise, bits=level.grid_bits, divisor=plan.divisor)

    def zero(self, parameters: int) -> Fold:
        """The sum over no client."""
        return Fold(arrays={"total": np.zeros(parameters, np.int64)})

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Check, clip, round toward zero and sum: exact, so order cannot matter."""
        total = fold.arrays["total"].copy()
        # A few rows at a time: what is in between stays in the cache.
        few = max(1, _VALUES_AT_ONCE // max(1, len(total)))
        for first in range(0, len(updates.rows), few):
            grid = to_grid(clip_rows(updates.rows[first : first + few], self.clip), self.bits)
            total += grid.sum(axis=0, dtype=np.int64)
        return Fold(arrays={"total": total})

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sum over both."""
        return Fold(arrays={"total": first.arrays["total"] + second.arrays["total"]})

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """Noise calibrated to the sum's sensitivity, then the public divisor."""
        total = fold.arrays["total"].astype(np.int64, copy=False)
        return (
            from_grid(gaussian_on_grid(total, self.noise * self.clip, self.bits, noise), self.bits)
            / self.divisor
        )
