"""The noisy mean with noise that later rounds take back: differential privacy without sampled cohorts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, State, Updates
from fedsafe.aggregation.noisy_mean import NoisyMean
from fedsafe.aggregation.options import require_number
from fedsafe.errors import ConfigError, EngineError, RecordError
from fedsafe.privacy.accounting.banded import banded_sensitivity
from fedsafe.privacy.levels import BANDED, Mechanics
from fedsafe.privacy.mechanisms import (
    correlated,
    from_grid,
    grid_bits,
    largest_deviation,
    square_root_coefficients,
)
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

_ROUND = "round"


@final
class BandedMean(Rule):
    """DP-FTRL by a banded matrix factorisation (Choquette-Choo et al., 2023).

    Each round releases the clipped sum with the noise ``C^-1 z``; all rounds together are one Gaussian release with the
    multiplier ``noise``, against anyone who sees all of them and knows every cohort. Cohorts may be chosen in any way
    that looks at no private data, as long as a client stays away for ``separation`` rounds, which the ledger enforces.

    Only how many rounds there were is kept with a checkpoint. The noise of earlier rounds, which a resumed run needs,
    is drawn again from their streams (:meth:`recall`).

    Args:
        clip: Bound on one update's norm, all tensors together.
        noise: Noise multiplier: z has the standard deviation ``noise * sensitivity * clip``.
        bits: The grid is ``2^-bits``.
        divisor: The public constant.
        coefficients: First column of C.
        sensitivity: Of C under the planned participation.

    Guarantees:
        A client adds to a round's sum what it adds to that of :class:`NoisyMean`. A round without clients releases
        noise, and counts.
    """

    name: ClassVar[str] = "banded_mean"
    proven_sensitivity: ClassVar[bool] = True
    mechanism: ClassVar[str] = BANDED
    remembers: ClassVar[bool] = True

    def __init__(
        self,
        *,
        clip: float,
        noise: float,
        bits: int,
        divisor: float,
        coefficients: Sequence[float],
        sensitivity: float,
    ) -> None:
        self._sum = NoisyMean(clip=clip, noise=noise * sensitivity, bits=bits, divisor=divisor)
        self._coefficients = tuple(coefficients)
        self._round = 0
        # What earlier rounds added, in standard deviations of z, the latest first; None until it is recalled.
        self._earlier: list[NDArray[np.float64]] | None = []

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *, bands: int, separation: int | None = None) -> Self:
        """Clip, noise, divisor and participation of the plan.

        Args:
            plan: The calibrated plan.
            bands: Of C: as many as ``separation`` is usually best; 1 is independent noise.
            separation: The least distance of two rounds with the same client, ``bands`` by default.

        Raises:
            ConfigError: An option is no whole number of at least 1.
            CalibrationError: ``separation`` is below ``bands``.
        """
        apart = bands if separation is None else separation
        for option, value in (("bands", bands), ("separation", apart)):
            require_number(cls.name, option, value, low=1)
            if value != int(value):
                raise ConfigError(
                    f"server.aggregator ({cls.name}): {option} = {value!r}; it is a whole number"
                )
        level, coefficients = plan.client, square_root_coefficients(int(bands))
        sensitivity = banded_sensitivity(
            coefficients,
            rounds=plan.rounds,
            separation=int(apart),
            participations=plan.record.max_participations,
        )
        widest = level.noise * sensitivity * largest_deviation(coefficients, plan.rounds)
        return cls(
            clip=level.clip,
            noise=level.noise,
            bits=min(level.grid_bits, grid_bits(level.clip, plan.clients, widest)),
            divisor=plan.divisor,
            coefficients=coefficients,
            sensitivity=sensitivity,
        )

    @classmethod
    def mechanics(cls, *, cohort: float, parameters: int, options: Mapping[str, Any]) -> Mechanics:
        """Clients are kept apart by ``separation`` rounds."""
        apart = options.get("separation") or options.get("bands", 1)
        require_number(cls.name, "separation", apart, low=1)
        return Mechanics(mechanism=cls.mechanism, separation=int(apart))

    @property
    def deviation(self) -> float:
        """Standard deviation of z on each value of the sum."""
        return self._sum.noise * self._sum.clip

    def zero(self, parameters: int) -> Fold:
        """The sum over no client."""
        return self._sum.zero(parameters)

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Check, clip, round toward zero and sum: exact, so order cannot matter."""
        return self._sum.add(fold, updates)

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sum over both."""
        return self._sum.merge(first, second)

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The sum with this round's part of ``C^-1 z``, then the public divisor.

        Raises:
            EngineError: The run was resumed, and its earlier noise has not been recalled.
        """
        total = fold.arrays["total"].astype(np.int64, copy=False)
        drawn = self._next(noise, len(total)) * np.ldexp(self.deviation, self._sum.bits)
        return from_grid(total + np.rint(drawn).astype(np.int64), self._sum.bits) / self._sum.divisor

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """Remember the round's noise for those that follow.

        Args:
            fold: The round's.
            noise: The stream that ``finish`` was given, from its start.

        Raises:
            EngineError: There is no stream, or the earlier noise has not been recalled.
        """
        if noise is None:
            raise EngineError(
                f"the aggregator {self.name} correlates the noise of rounds: pass the round's noise"
            )
        self._remember(self._next(noise, len(fold.arrays["total"])))

    def recall(self, parameters: int, noise: Callable[[int], Stream]) -> None:
        """Draw the noise of earlier rounds again, once a state was restored.

        Args:
            parameters: Values of the model.
            noise: For each earlier round, from 1, the stream that its ``finish`` was given, from its start.
        """
        rounds, self._round, self._earlier = self._round, 0, []
        for round in range(1, rounds + 1):
            self._remember(self._next(noise(round), parameters))

    def state(self) -> State:
        """How many rounds there were."""
        return {_ROUND: np.array([self._round], np.int64)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a number of rounds; :meth:`recall` must follow where there were any.

        Raises:
            RecordError: It is not one.
        """
        found = state.get(_ROUND)
        if set(state) != {_ROUND} or found is None or found.shape != (1,) or int(found[0]) < 0:
            raise RecordError(f"the state of the aggregator is not a round of {self.name}: {dict(state)!r}")
        self._round = int(found[0])
        self._earlier = None if self._round else []

    def _next(self, noise: Stream, parameters: int) -> NDArray[np.float64]:
        if self._earlier is None:
            raise EngineError(
                f"the aggregator {self.name} was restored after round {self._round} without the noise before it: "
                "recall it"
            )
        return correlated(noise.normal(parameters), self._earlier, self._coefficients)

    def _remember(self, drawn: NDArray[np.float64]) -> None:
        self._earlier = [drawn, *(self._earlier or [])][: len(self._coefficients) - 1]
        self._round += 1
