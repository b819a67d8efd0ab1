"""How much each group counts, and how that follows from what was released about the groups' losses."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import State
from fedsafe.aggregation.grouped_membership import Membership
from fedsafe.aggregation.options import require_number
from fedsafe.errors import ConfigError, RecordError

SIZE, UNIFORM, MINIMUM, ADAPTIVE = "size", "uniform", "minimum", "adaptive"
WEIGHTS = (SIZE, UNIFORM, MINIMUM, ADAPTIVE)
# Those that follow the groups' losses.
FOLLOWING = (MINIMUM, ADAPTIVE)

_STEP, _SMOOTHING, _BOUND = 0.5, 0.9, 1.5
# Far beyond what losses are: a larger bound leaves nothing of them beside the noise, a smaller one cuts all to one.
_LEAST_BOUND, _MOST_BOUND = 0.01, 1e4
_SCORES = "scores"
# Further below the largest, the exponential of a score is zero in double precision: nothing is lost by stopping there.
_LOWEST = -800.0


@final
class GroupWeights:
    """Weights of groups, on the simplex: the coming round's update is the sum of ``weight * mean of the group``.

    ============  ===========================================================================================
    weights       what they are
    ============  ===========================================================================================
    ``size``      each group's share of the registered clients: every client counts the same
    ``uniform``   the same for each group, whatever its size
    ``adaptive``  ``w_g`` grows by ``exp(step * loss_g)`` after each round, from ``size`` on (exponentiated gradient
                  ascent, as in group DRO: Sagawa et al., 2020, algorithm 1)
    ``minimum``   all on the group whose loss, averaged over rounds, is the largest (the minimum over groups' rewards:
                  Srewa et al., 2025); ``size`` before the first round
    ============  ===========================================================================================

    Args:
        rule: What the configuration calls the rule, for messages.
        groups: Who is in which.
        weights: One of the four.
        step: Of ``adaptive``: how fast weights follow losses, 0.5 by default.
        smoothing: Of ``minimum``: what is kept of the average loss from round to round, in [0, 1), 0.9 by default.
        bound: Losses are cut to [0, bound], a public number; 1.5 by default. Twice the loss of a model that knows
            nothing holds most: ``2 ln 2 = 1.39`` for two classes.

    Raises:
        ConfigError: An option is out of range, or is for other weights.
    """

    def __init__(
        self,
        rule: str,
        groups: Membership,
        *,
        weights: str,
        step: float | None = None,
        smoothing: float | None = None,
        bound: float | None = None,
    ) -> None:
        if weights not in WEIGHTS:
            raise ConfigError(
                f"server.aggregator ({rule}): weights = {weights!r}; they are one of {', '.join(WEIGHTS)}"
            )
        for option, value, of in (
            ("step", step, (ADAPTIVE,)),
            ("smoothing", smoothing, (MINIMUM,)),
            ("bound", bound, FOLLOWING),
        ):
            if value is not None and weights not in of:
                raise ConfigError(
                    f"server.aggregator ({rule}): {option} = {value!r} is for weights = {' or '.join(of)}, and they "
                    f"are {weights}: leave it out"
                )
        self.step = _STEP if step is None else step
        self.smoothing = _SMOOTHING if smoothing is None else smoothing
        self.bound = _BOUND if bound is None else bound
        require_number(rule, "step", self.step)
        require_number(rule, "smoothing", self.smoothing, below=1.0)
        require_number(rule, "bound", self.bound)
        if not _LEAST_BOUND <= self.bound <= _MOST_BOUND:
            raise ConfigError(
                f"server.aggregator ({rule}): bound = {self.bound:g}; it is the largest loss that is told from others, "
                f"between {_LEAST_BOUND:g} and {_MOST_BOUND:g}"
            )
        self._rule, self._groups, self._how = rule, groups, weights
        self._scores = np.zeros(len(groups.names))

    @property
    def follow(self) -> bool:
        """Whether they follow the groups' losses."""
        return self._how in FOLLOWING

    @property
    def current(self) -> NDArray[np.float64]:
        """``(groups,)`` weights of the coming round, at least zero, which sum to one."""
        count = len(self._scores)
        if self._how == UNIFORM:
            return np.full(count, 1.0 / count)
        shares = self._groups.shares
        if self._how == ADAPTIVE:
            grown = shares * np.exp(self._scores - self._scores.max())
            weights: NDArray[np.float64] = grown / grown.sum()
            return weights
        if self._how == MINIMUM and self._scores.any():
            return np.asarray(np.arange(count) == self._scores.argmax(), np.float64)
        return shares

    def cut(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """Losses within [0, bound]; one that is no number of at least zero is zero."""
        with np.errstate(invalid="ignore"):
            sound = np.isfinite(losses) & (losses >= 0.0)
        return np.minimum(np.where(sound, losses, 0.0), self.bound)

    def learn(self, losses: NDArray[np.float64], heard: NDArray[np.bool_] | None = None) -> None:
        """Move on by what a round released.

        Args:
            losses: ``(groups,)`` within [0, bound].
            heard: ``(groups,)`` whether anything is known of a group; the others stay where they are.
        """
        if not self.follow:
            return
        known = np.ones(len(losses), bool) if heard is None else heard
        if self._how == MINIMUM:
            kept = self.smoothing * self._scores + (1.0 - self.smoothing) * losses
            self._scores = np.where(known, kept, self._scores)
        else:
            moved = self._scores + np.where(known, self.step * losses, 0.0)
            self._scores = np.maximum(moved - moved.max(), _LOWEST)

    def state(self) -> State:
        """What is remembered: average losses, or logarithms of what the weights have grown by."""
        return {_SCORES: self._scores} if self.follow else {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            RecordError: It is not of these groups.
        """
        if not self.follow and not state:
            return
        scores = state.get(_SCORES)
        sound = self.follow and set(state) == {_SCORES} and scores is not None
        if not sound or scores is None or scores.shape != self._scores.shape or not np.isfinite(scores).all():
            raise RecordError(
                f"the state of the aggregator is not that of {self._rule} for {len(self._scores)} groups: "
                f"{', '.join(sorted(state))}"
            )
        self._scores = np.array(scores, np.float64)

    def figures(self) -> dict[str, float]:
        """The weights by group, for the record of a round."""
        return {
            f"weight of {name}": float(weight)
            for name, weight in zip(self._groups.names, self.current, strict=True)
        }
