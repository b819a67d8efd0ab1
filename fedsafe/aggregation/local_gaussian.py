"""Local differential privacy: each client adds the noise itself, and trusts nobody."""

from dataclasses import dataclass
from typing import ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, Updates
from fedsafe.errors import EngineError
from fedsafe.privacy.clipping import clip_rows
from fedsafe.privacy.levels import LOCAL
from fedsafe.privacy.mechanisms import from_grid, gaussian_on_grid, grid_bits, to_grid
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

# No draw of the noise has more standard deviations.
_LONGEST = 9.5


@final
@dataclass(frozen=True, kw_only=True)
class LocalGaussian(Rule):
    """The mean of updates that each client has clipped and noised.

    The server sees each of them, so neighbours are any two updates, which lie ``2 clip`` apart; a client in R rounds
    has released R Gaussians with sensitivity ``2 clip``, and no sampling counts. The server adds nothing.

    Args:
        clip: Bound on one update's norm, all tensors together.
        noise: Noise multiplier: the standard deviation at each client is ``noise * 2 * clip``.
        bits: The grid is ``2^-bits``.
        divisor: The public constant: the expected cohort.

    Guarantees:
        ==============  =====================================
        update          what the client sends
        ==============  =====================================
        all zeros       noise
        non-finite      noise
        norm above clip just under ``clip`` in length, and noise
        absent          nothing
        ==============  =====================================
    """

    clip: float
    noise: float
    bits: int
    divisor: float
    name: ClassVar[str] = "local_gaussian"
    proven_sensitivity: ClassVar[bool] = True
    mechanism: ClassVar[str] = LOCAL
    needs_draws: ClassVar[bool] = True

    @classmethod
    def from_plan(cls, plan: PrivacyPlan) -> Self:
        """Clip, noise and divisor of the plan's client level, on a grid that holds the noise of all clients."""
        level = plan.client
        most = level.clip * (1.0 + 2.0 * _LONGEST * level.noise)
        bits = min(level.grid_bits, grid_bits(most, plan.clients))
        return cls(clip=level.clip, noise=level.noise, bits=bits, divisor=plan.divisor)

    @property
    def deviation(self) -> float:
        """Standard deviation of one client's noise on each value."""
        return self.noise * 2.0 * self.clip

    def zero(self, parameters: int) -> Fold:
        """The sum over no client."""
        return Fold(arrays={"total": np.zeros(parameters, np.int64)})

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """What each client sends: checked, clipped, rounded toward zero and noised on the grid; then summed.

        Raises:
            EngineError: The clients were given nothing to draw from.
        """
        if len(updates.rows) != len(updates.draws or ()):
            raise EngineError(f"the aggregator {self.name} needs a stream for each client, and got none")
        total = fold.arrays["total"].copy()
        for index, stream in enumerate(updates.draws or ()):
            clipped = to_grid(clip_rows(updates.rows[index : index + 1], self.clip), self.bits)[0]
            total += gaussian_on_grid(clipped, self.deviation, self.bits, stream)
        return Fold(arrays={"total": total})

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sum over both."""
        return Fold(arrays={"total": first.arrays["total"] + second.arrays["total"]})

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The public divisor: post-processing of what the clients sent."""
        return from_grid(fold.arrays["total"].astype(np.int64, copy=False), self.bits) / self.divisor
