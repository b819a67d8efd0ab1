"""The noisy mean with a clip that follows the updates: larger where too many are cut, smaller where too few are."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, State, Updates
from fedsafe.aggregation.noisy_mean import NoisyMean
from fedsafe.aggregation.options import require_number
from fedsafe.errors import ConfigError, EngineError, RecordError
from fedsafe.privacy.levels import ADAPTIVE
from fedsafe.privacy.mechanisms import (
    grid_bits,
    indicator_noise_for,
    next_clip,
    noise_of_sum,
    noisy_share,
    within_clip,
)
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

_CLIP = "clip"
# The clip stays within so many doublings of where it started.
_DOUBLINGS = 20


@final
class AdaptiveClip(Rule):
    """Adaptive clipping (Andrew et al., 2021): the clip tracks a quantile of the updates' norms.

    The noise is a multiple of the clip that the updates of *this* round were cut to; the next clip follows from this
    round's noisy indicators, is announced with the model, and is public. Sum and indicators together are one Gaussian
    release with the multiplier ``noise``, whatever the clip.

    Args:
        clip: The clip of round 1.
        noise: Noise multiplier z of the whole step.
        clients: The registered population, which decides the grid.
        cohort: The expected cohort, which both sums are divided by.
        pace: eta, how fast the clip moves.
        quantile: gamma, the share of updates that should be within the clip, in (0, 1).
        indicator_noise: Standard deviation of the noise on the sum of indicators; by default a twentieth of the cohort,
            and never less than 1.5 z.

    Guarantees:
        =====================  ==================  =========================
        update                 adds to the sum     adds to the indicators
        =====================  ==================  =========================
        all zeros, non-finite  zero                nothing
        norm above the clip    just under the clip  -1/2
        norm within the clip   itself              +1/2
        absent                 nothing             nothing
        =====================  ==================  =========================

        The clip stays within 2^20 times its start, either way. The grid follows from the clip, so that nothing
        overflows, and no clip is lost in it.
    """

    name: ClassVar[str] = "adaptive_clip"
    proven_sensitivity: ClassVar[bool] = True
    mechanism: ClassVar[str] = ADAPTIVE
    remembers: ClassVar[bool] = True

    def __init__(
        self,
        *,
        clip: float,
        noise: float,
        clients: int,
        cohort: float,
        pace: float = 0.2,
        quantile: float = 0.5,
        indicator_noise: float | None = None,
    ) -> None:
        require_number(self.name, "pace", pace)
        require_number(self.name, "quantile", quantile, below=1.0)
        if quantile == 0.0:
            raise ConfigError(f"server.aggregator ({self.name}): quantile = 0; it is above 0 and below 1")
        if indicator_noise is not None:
            require_number(self.name, "indicator_noise", indicator_noise)
        self._clip = clip
        self._clients, self._cohort = clients, cohort
        self._pace, self._quantile = pace, quantile
        self._bounds = (clip * 2.0**-_DOUBLINGS, clip * 2.0**_DOUBLINGS)
        usual = indicator_noise_for(noise, cohort) if noise else 0.0
        self._indicator_noise = usual if indicator_noise is None else indicator_noise
        self._sum_noise = noise_of_sum(noise, self._indicator_noise)

    @classmethod
    def from_plan(
        cls,
        plan: PrivacyPlan,
        *,
        pace: float = 0.2,
        quantile: float = 0.5,
        indicator_noise: float | None = None,
    ) -> Self:
        """Noise, population, expected cohort and the first clip of the plan.

        Raises:
            ConfigError: An option is out of range.
            CalibrationError: The indicators would spend all of the noise multiplier.
        """
        return cls(
            clip=plan.client.clip,
            noise=plan.client.noise,
            clients=plan.clients,
            cohort=plan.divisor,
            pace=pace,
            quantile=quantile,
            indicator_noise=indicator_noise,
        )

    @property
    def clip(self) -> float:
        """The clip of the coming round."""
        return self._clip

    @property
    def sum_noise(self) -> float:
        """z_D: the standard deviation of the noise on the sum, over the clip of the round."""
        return self._sum_noise

    @property
    def indicator_noise(self) -> float:
        """s_b: the standard deviation of the noise on the sum of indicators."""
        return self._indicator_noise

    def announce(self) -> Mapping[str, float]:
        """The clip: post-processing of what earlier rounds released."""
        return {_CLIP: self._clip}

    def zero(self, parameters: int) -> Fold:
        """The sums over no client."""
        return Fold(
            arrays={
                "total": np.zeros(parameters, np.int64),
                "balance": np.zeros(1, np.int64),
                _CLIP: np.zeros(1),
            }
        )

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Clip to what was announced, and sum updates and indicators: exact, so order cannot matter."""
        clip = float(updates.announced.get(_CLIP, self._clip))
        if not self._bounds[0] <= clip <= self._bounds[1]:
            raise EngineError(
                f"the server announced a clip of {clip!r}, outside {self._bounds[0]:g} to {self._bounds[1]:g}, which "
                "the plan allows"
            )
        total = self._mean(clip).add(Fold(arrays={"total": fold.arrays["total"]}), updates).arrays["total"]
        balance = fold.arrays["balance"] + within_clip(updates.rows, clip).sum(dtype=np.int64)
        used = np.maximum(fold.arrays[_CLIP], clip if len(updates.rows) else 0.0)
        return Fold(arrays={"total": total, "balance": balance, _CLIP: used})

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sums over both."""
        a, b = first.arrays, second.arrays
        return Fold(
            arrays={
                "total": a["total"] + b["total"],
                "balance": a["balance"] + b["balance"],
                _CLIP: np.maximum(a[_CLIP], b[_CLIP]),
            }
        )

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The noisy mean, with noise scaled to the clip that was used.

        Raises:
            EngineError: The clients clipped to something else than was announced.
        """
        used = float(fold.arrays[_CLIP][0])
        if used not in (0.0, self._clip):
            raise EngineError(
                f"clients clipped to {used:g} where {self._clip:g} was announced: the noise would not fit; resume the "
                "run from its last checkpoint"
            )
        # One release, one stream: the indicators' noise comes first, and is drawn again in ``advance``.
        self._share(fold, noise)
        return self._mean(self._clip).finish(Fold(arrays={"total": fold.arrays["total"]}), noise)

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """Move the clip by the round's noisy indicators.

        Args:
            fold: The round's.
            noise: The stream that ``finish`` was given, from its start.

        Raises:
            EngineError: There is no stream: the exact indicators are never used.
        """
        if noise is None:
            raise EngineError(
                f"the aggregator {self.name} moves its clip by noisy indicators alone: pass the noise"
            )
        share = self._share(fold, noise)
        self._clip = next_clip(
            self._clip, share, pace=self._pace, quantile=self._quantile, bounds=self._bounds
        )

    def state(self) -> State:
        """The clip of the coming round."""
        return {_CLIP: np.array([self._clip])}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a clip.

        Raises:
            RecordError: It is not one of this rule.
        """
        found = state.get(_CLIP)
        sound = set(state) == {_CLIP} and found is not None and found.shape == (1,)
        if not sound or not self._bounds[0] <= float(state[_CLIP][0]) <= self._bounds[1]:
            raise RecordError(f"the state of the aggregator is not a clip of {self.name}: {dict(state)!r}")
        self._clip = float(state[_CLIP][0])

    def _share(self, fold: Fold, noise: Stream) -> float:
        return noisy_share(
            int(fold.arrays["balance"][0]),
            indicator_noise=self._indicator_noise,
            cohort=self._cohort,
            stream=noise,
        )

    def _mean(self, clip: float) -> NoisyMean:
        bits = grid_bits(clip, self._clients, self._sum_noise)
        return NoisyMean(clip=clip, noise=self._sum_noise, bits=bits, divisor=self._cohort)
