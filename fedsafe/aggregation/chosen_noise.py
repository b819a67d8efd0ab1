"""The noisy mean with a noise multiplier that is chosen for each round, inside a Rényi filter."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, State, Updates
from fedsafe.aggregation.noise_choices import CHOICES, Choice, SoFar
from fedsafe.aggregation.noisy_mean import NoisyMean
from fedsafe.errors import ConfigError, EngineError, FedSafeError, PlanViolation, RecordError
from fedsafe.extensions import one_line, resolve
from fedsafe.privacy.accounting import noise_that_costs, require_whole
from fedsafe.privacy.levels import FILTERED, Mechanics
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

_NOISES, _NORMS, _PARAMETERS = "noises", "norms", "parameters"


@final
class ChosenNoise(Rule):
    """The adaptive regime: how much noise a round has is decided from what the rounds before it released.

    The plan fixes a budget, as a Rényi divergence at one order, and no noise (Feldman and Zrnic 2021). Before a round
    the function ``choose`` is asked once; the ledger writes its answer down, and refuses one that what is left does
    not pay for, which ends the run. The function is given released values alone (:class:`SoFar`).

    Args:
        plan: With the order of its filter; one without can fold, and not choose.
        choose: From what was released to a noise multiplier.
        label: What the configuration calls that function.

    Guarantees:
        A client adds to a round's sum what it adds to that of :class:`NoisyMean`. A round without clients releases
        noise, and counts. A round is finished with the noise that was chosen before it, and with no other.
    """

    name: ClassVar[str] = "chosen_noise"
    proven_sensitivity: ClassVar[bool] = True
    mechanism: ClassVar[str] = FILTERED
    remembers: ClassVar[bool] = True

    def __init__(self, *, plan: PrivacyPlan, choose: Choice, label: str) -> None:
        self._plan, self._choose, self._label = plan, choose, label
        self._noises: list[float] = []
        self._norms: list[float] = []
        self._parameters = 0
        # Of the coming round, once it is asked for.
        self._chosen: float | None = None

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *, choose: str = "signal", order: float | None = None) -> Self:
        """Clip, rate, divisor and filter of the plan.

        Args:
            plan: The calibrated plan, which has the order.
            choose: ``"signal"``, ``"even"``, or ``"module:function"`` of your own.
            order: A whole number from 2; by default the best for a multiplier that stays the same.

        Raises:
            ConfigError: Nothing has that name, or it is no function, or the order is out of range.
        """
        if not isinstance(choose, str):
            raise ConfigError(
                f"server.aggregator ({cls.name}): choose = {choose!r}; it is one of {', '.join(CHOICES)}, or the "
                "import path of a function, 'module:function'"
            )
        if order is not None:
            require_whole(order)
        return cls(plan=plan, choose=resolve("noise choice", choose, CHOICES), label=choose)

    @classmethod
    def mechanics(cls, *, cohort: float, parameters: int, options: Mapping[str, Any]) -> Mechanics:
        """With the order, if one is configured."""
        return Mechanics(mechanism=cls.mechanism, order=options.get("order"))

    def choose_noise(self) -> float:
        """The noise multiplier of the coming round; the function is asked once for each.

        Raises:
            EngineError: The function failed, or returned what is no multiplier.
        """
        if self._chosen is None:
            self._chosen = self._asked()
        return self._chosen

    def _asked(self) -> float:
        level = self._plan.client
        so_far = self._so_far()
        try:
            found: Any = self._choose(so_far)
        except FedSafeError:
            raise
        except Exception as error:  # a user's own code may raise anything
            raise EngineError(
                f"choose = {self._label!r} failed before round {so_far.round}: {one_line(error)}; mend it, or name "
                "another"
            ) from error
        if isinstance(found, np.floating | np.integer):
            found = float(found)
        try:
            return level.chosen(found).noise
        except PlanViolation as error:
            raise EngineError(f"choose = {self._label!r}, before round {so_far.round}: {error}") from error

    def _so_far(self) -> SoFar:
        plan, level = self._plan, self._plan.client
        budget = level.filter()
        budget.spend([level.chosen(noise) for noise in self._noises])
        rounds_left = plan.rounds - len(self._noises)
        even = math.inf
        if budget.remaining > 0.0 and rounds_left > 0:
            even = noise_that_costs(budget.remaining, order=budget.order, rate=level.rate, count=rounds_left)
        return SoFar(
            round=len(self._noises) + 1,
            rounds_left=rounds_left,
            order=budget.order,
            spent=budget.spent,
            left=budget.remaining,
            even=even,
            planned=level.noise,
            noises=tuple(self._noises),
            norms=tuple(self._norms),
            floors=tuple(self._floor(noise) for noise in self._noises),
            parameters=self._parameters,
        )

    def _floor(self, noise: float) -> float:
        return noise * self._plan.client.clip * math.sqrt(self._parameters) / self._plan.divisor

    def zero(self, parameters: int) -> Fold:
        """The sum over no client."""
        return self._mean(0.0).zero(parameters)

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Check, clip, round toward zero and sum: exact, so order cannot matter."""
        return self._mean(0.0).add(fold, updates)

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sum over both."""
        return self._mean(0.0).merge(first, second)

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The noisy mean, with the noise that was chosen before the round.

        Raises:
            EngineError: None was chosen: it may not be once the updates are there.
        """
        if self._chosen is None:
            raise EngineError(
                f"the aggregator {self.name} has chosen no noise for round {len(self._noises) + 1}: it is chosen, and "
                "written down, before a message leaves"
            )
        return self._mean(self._chosen).finish(fold, noise)

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """Remember the multiplier, and the norm of what was released.

        Args:
            fold: The round's.
            noise: The stream that ``finish`` was given, from its start.

        Raises:
            EngineError: There is no stream: the exact sum is never looked at.
        """
        if noise is None:
            raise EngineError(f"the aggregator {self.name} looks at what was released alone: pass the noise")
        released = self.finish(fold, noise)
        self._norms.append(float(np.linalg.norm(released)))
        self._noises.append(self.choose_noise())
        self._parameters, self._chosen = len(released), None

    def state(self) -> State:
        """Multipliers and norms of the rounds so far."""
        return {
            _NOISES: np.array(self._noises),
            _NORMS: np.array(self._norms),
            _PARAMETERS: np.array([self._parameters], np.int64),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on after rounds that were released.

        Raises:
            RecordError: It is not a state of this rule.
        """
        sound = set(state) == {_NOISES, _NORMS, _PARAMETERS} and state[_PARAMETERS].shape == (1,)
        if not sound or state[_NOISES].ndim != 1 or state[_NOISES].shape != state[_NORMS].shape:
            raise RecordError(f"the state of the aggregator is not one of {self.name}: {dict(state)!r}")
        self._noises = state[_NOISES].astype(float).tolist()
        self._norms = state[_NORMS].astype(float).tolist()
        self._parameters, self._chosen = int(state[_PARAMETERS][0]), None

    def _mean(self, noise: float) -> NoisyMean:
        level = self._plan.client
        return NoisyMean(clip=level.clip, noise=noise, bits=level.grid_bits, divisor=self._plan.divisor)
