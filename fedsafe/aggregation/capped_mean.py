"""A weighted mean whose weights are capped: one client moves it by no more than an equal one would."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, Updates
from fedsafe.aggregation.noisy_mean import NoisyMean
from fedsafe.aggregation.options import require_number
from fedsafe.errors import ConfigError
from fedsafe.privacy.clipping import clip_rows
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream


@final
@dataclass(frozen=True, kw_only=True)
class CappedMean(Rule):
    """The noisy mean with weights ``min(n_k / cap, 1)`` over a fixed denominator (McMahan et al., 2018).

    Their estimator with the fixed denominator: one client moves the weighted sum by at most ``clip``, since no weight
    is above one. Dividing by the weights of those who replied would move the mean by twice as much and more.

    Args:
        clip: Bound on one update's norm, all tensors together, before it is weighted.
        noise: Noise multiplier: the standard deviation is ``noise * clip``.
        bits: The grid is ``2^-bits``.
        divisor: The public constant: the expected cohort times the mean weight.
        cap: Records from which on a client has the full weight, a public number.

    Guarantees:
        ==========================  ===================================
        client                      contribution to the sum
        ==========================  ===================================
        non-finite update           zero
        norm above clip             just under ``clip`` times its weight
        no records, or no count     zero
        absent                      zero
        ==========================  ===================================
    """

    clip: float
    noise: float
    bits: int
    divisor: float
    cap: float
    name: ClassVar[str] = "capped_mean"
    proven_sensitivity: ClassVar[bool] = True

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *, cap: float, mean_weight: float = 1.0) -> Self:
        """Clip, noise, grid and expected cohort of the plan's client level.

        Args:
            plan: The calibrated plan.
            cap: Records from which on a client has the full weight.
            mean_weight: What the clients' weights are expected to be on average, in (0, 1]: a public number that is
                declared, not measured. It scales the update and costs no privacy.

        Raises:
            ConfigError: An option is no such number.
        """
        require_number(cls.name, "cap", cap)
        require_number(cls.name, "mean_weight", mean_weight)
        if cap <= 0.0 or not 0.0 < mean_weight <= 1.0:
            raise ConfigError(
                f"server.aggregator ({cls.name}): cap = {cap!r} and mean_weight = {mean_weight!r}; the cap is above 0, "
                "and the mean of weights of at most 1 is above 0 and at most 1"
            )
        level = plan.client
        return cls(
            clip=level.clip,
            noise=level.noise,
            bits=level.grid_bits,
            divisor=plan.divisor * mean_weight,
            cap=float(cap),
        )

    @property
    def _sum(self) -> NoisyMean:
        """What folds and noises the weighted rows."""
        return NoisyMean(clip=self.clip, noise=self.noise, bits=self.bits, divisor=self.divisor)

    def weights(self, examples: NDArray[np.float64]) -> NDArray[np.float64]:
        """``(rows,)`` in [0, 1]; a count that is no number, or below zero, has no weight."""
        sound = np.isfinite(examples) & (examples > 0.0)
        weights: NDArray[np.float64] = np.minimum(np.where(sound, examples, 0.0) / self.cap, 1.0)
        return weights

    def zero(self, parameters: int) -> Fold:
        """The sum over no client."""
        return self._sum.zero(parameters)

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Clip, then weigh: a weight on the update as trained would leave its norm unbounded."""
        weighted = clip_rows(updates.rows, self.clip) * self.weights(updates.examples)[:, None]
        return self._sum.add(fold, replace(updates, rows=weighted))

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sum over both."""
        return self._sum.merge(first, second)

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """Noise calibrated to the sum's sensitivity, then the public divisor."""
        return self._sum.finish(fold, noise)
