"""The noisy mean with the choice in the open of whose updates count how much: a weight for each public group."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, State, Updates
from fedsafe.aggregation.grouped_membership import Membership
from fedsafe.aggregation.grouped_weights import GroupWeights
from fedsafe.aggregation.options import require_number
from fedsafe.errors import ConfigError, EngineError
from fedsafe.privacy.clipping import MARGIN, clip_rows
from fedsafe.privacy.levels import GROUPED
from fedsafe.privacy.mechanisms import from_grid, gaussian_on_grid, to_grid
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

_TOTALS = "totals"
# A group's weight, for the sum, is a whole multiple of 2^-12 of the largest: the weighted sum stays one of integers.
_FINENESS = 12
_VALUES_AT_ONCE = 2**15
_LOSS_SHARE = 0.3
_LEAST_SHARE = 0.01


@final
class GroupedMean(Rule):
    """The weighted sum of the groups' means, with Gaussian noise fitted to the group that counts the most.

    Each client k is in one group g, which is public. The update is ``sum_g w_g S_g / c_g`` for S_g the sum of the
    clipped updates of the group's clients and c_g its expected cohort, a public constant. Released is, once a round,

        ``(sum_g a_g S_g,  L_1, ..., L_G) + N(0, (noise clip)^2 I)``,  ``a_g = (w_g / c_g) / max_h (w_h / c_h)``,

    and everything else follows from it: the update is the first part times ``max_h w_h / c_h``, and the weights of the
    next round follow from the second. L_g is there only where weights follow losses: the sum over the group's clients
    of their mean training loss at the broadcast model, cut to [0, bound], counted from the middle and scaled to
    ``[-s clip, s clip]``, for s the ``loss_share``; updates are then clipped to ``clip sqrt(1 - s^2)``.

    Proof of the sensitivity: one client's updates and losses replaced by zero change the first part by ``a_g`` times a
    vector no longer than ``clip sqrt(1 - s^2)``, with ``a_g <= 1`` since it is a share of the largest, and of the rest
    the one coordinate L_g by at most ``s clip``. So the whole moves by at most ``sqrt((1 - s^2) + s^2) clip = clip``:
    what one client moves the sum of :class:`NoisyMean` by, so a round is the same Gaussian release with the same
    multiplier. Weights are fixed by earlier rounds' releases and group sizes, which are public, before a round begins:
    adaptive composition covers them. Another client in its place, of its own group or another, moves it by at most
    ``2 clip`` (two vectors of that norm), which replace-one adjacency counts with.

    What it costs: the update's noise has the deviation ``noise clip max_g w_g / c_g``. With ``size`` that is what
    :class:`NoisyMean` has, and the same update; a group of a tenth that counts half has five times as much.

    Args:
        clip: Bound on one client's part of a release.
        noise: Noise multiplier: the standard deviation is ``noise * clip``.
        bits: The grid is ``2^-bits``.
        divisor: The expected cohort.
        groups: Who is in which.
        weights: How much each counts.
        loss_share: s, in [0.01, 0.99].

    Guarantees:
        ======================  ==============================  ====================
        client                  adds to its group's sum         adds to L
        ======================  ==============================  ====================
        update non-finite       zero                            what its loss says
        norm above the clip     just under the clip             what its loss says
        loss not finite, or <0  zero                            ``-s clip``: a zero
        absent                  nothing                         nothing
        ======================  ==============================  ====================

        An empty cohort, or group, still releases noise. No exact loss is looked at: weights follow noised ones alone.
    """

    name: ClassVar[str] = "grouped_mean"
    proven_sensitivity: ClassVar[bool] = True
    mechanism: ClassVar[str] = GROUPED
    needs_groups: ClassVar[bool] = True

    def __init__(
        self,
        *,
        clip: float,
        noise: float,
        bits: int,
        divisor: float,
        groups: Membership,
        weights: GroupWeights,
        loss_share: float | None = None,
    ) -> None:
        if loss_share is not None and not weights.follow:
            raise ConfigError(
                f"server.aggregator ({self.name}): loss_share = {loss_share!r} is for weights that follow losses: "
                "leave it out"
            )
        share = _LOSS_SHARE if loss_share is None else loss_share
        require_number(self.name, "loss_share", share, below=1.0)
        if not _LEAST_SHARE <= share <= 1.0 - _LEAST_SHARE:
            raise ConfigError(
                f"server.aggregator ({self.name}): loss_share = {share:g} hides the losses or the updates; it is from "
                f"{_LEAST_SHARE:g} to {1.0 - _LEAST_SHARE:g}"
            )
        self.needs_losses = self.remembers = weights.follow  # type: ignore[misc]
        self._share = share if weights.follow else 0.0
        self._clip, self._noise, self._bits = clip, noise, bits
        self._groups, self._weights = groups, weights
        self._cohorts = divisor * groups.shares

    @classmethod
    def from_plan(
        cls,
        plan: PrivacyPlan,
        *,
        membership: Membership,
        column: str,
        weights: str,
        step: float | None = None,
        smoothing: float | None = None,
        bound: float | None = None,
        loss_share: float | None = None,
        smallest: int = 1,
    ) -> Self:
        """Clip, noise, grid and expected cohort of the plan's client level.

        Args:
            plan: The calibrated plan.
            membership: Who is in which group, by the column.
            column: Of the task: a group column, or one that says who holds a record. All records of a client agree.
            weights: See :class:`GroupWeights`, as for the next three.
            step: See there.
            smoothing: See there.
            bound: See there.
            loss_share: s: what of the clip is for the losses; 0.3 by default, which leaves 0.95 for the update.
            smallest: Groups of fewer clients are one together.

        Raises:
            ConfigError: An option is out of range, or the groups are of another population.
        """
        require_column(cls.name, column, smallest)
        membership.require(cls.name, plan.clients)
        level = plan.client
        return cls(
            clip=level.clip,
            noise=level.noise,
            bits=level.grid_bits,
            divisor=plan.divisor,
            groups=membership,
            weights=GroupWeights(
                cls.name, membership, weights=weights, step=step, smoothing=smoothing, bound=bound
            ),
            loss_share=loss_share,
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """``(groups,)`` of the coming round."""
        return self._weights.current

    def zero(self, parameters: int) -> Fold:
        """The sums over no client, a row for each group."""
        width = parameters + (1 if self.needs_losses else 0)
        return Fold(arrays={_TOTALS: np.zeros((len(self._cohorts), width), np.int64)})

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Check, clip, round toward zero and add to the client's group: exact, so order cannot matter."""
        totals = fold.arrays[_TOTALS].copy()
        groups = self._groups.groups_of(updates.clients)
        rows, losses = updates.rows, self._losses(updates)
        few = max(1, _VALUES_AT_ONCE // max(1, totals.shape[1]))
        for first in range(0, len(rows), few):
            some = slice(first, first + few)
            part = clip_rows(rows[some], self._clip * float(np.sqrt(1.0 - self._share**2)))
            if losses is not None:
                sound, scaled = losses[0][some], losses[1][some]
                part = np.column_stack([np.where(sound[:, None], part, 0.0), scaled])
            grid = to_grid(part, self._bits - _FINENESS)
            for group in np.unique(groups[some]):
                totals[group] += grid[groups[some] == group].sum(axis=0, dtype=np.int64)
        return Fold(arrays={_TOTALS: totals})

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sums over both."""
        return Fold(arrays={_TOTALS: first.arrays[_TOTALS] + second.arrays[_TOTALS]})

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The weighted sum of the groups, noise that fits the largest weight, and then that weight."""
        totals = fold.arrays[_TOTALS].astype(np.int64, copy=False)
        # One release, one stream: the losses' noise comes first, and is drawn again in ``advance``.
        if self.needs_losses:
            self._released(totals, noise)
            totals = totals[:, :-1]
        each = self.weights / self._cohorts
        multiples = np.rint(each / each.max() * 2**_FINENESS).astype(np.int64)
        noisy = gaussian_on_grid(multiples @ totals, self._noise * self._clip, self._bits, noise)
        update: NDArray[np.float64] = from_grid(noisy, self._bits) * each.max()
        return update

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """Move the weights by the round's noisy losses.

        Args:
            fold: The round's.
            noise: The stream that ``finish`` was given, from its start.

        Raises:
            EngineError: There is no stream: exact losses are never used.
        """
        if not self.needs_losses:
            return
        if noise is None:
            raise EngineError(
                f"the aggregator {self.name} moves its weights by noisy losses alone: pass the noise"
            )
        self._weights.learn(self._released(fold.arrays[_TOTALS].astype(np.int64, copy=False), noise))

    def state(self) -> State:
        """What the weights follow from."""
        return self._weights.state()

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what :meth:`state` gave.

        Raises:
            RecordError: It is not of these groups.
        """
        self._weights.restore(state)

    def figures(self) -> Mapping[str, float]:
        """The weights of the coming round, which follow from what was released."""
        return self._weights.figures()

    def _losses(self, updates: Updates) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
        """Whether each loss is one, and what it adds, just within ``[-s clip, s clip]``; None where none is needed."""
        if not self.needs_losses:
            return None
        if updates.losses is None:
            raise EngineError(f"the aggregator {self.name} needs the loss of each client, and got none")
        with np.errstate(invalid="ignore"):
            sound = np.isfinite(updates.losses) & (updates.losses >= 0.0)
        return sound, (2.0 * self._weights.cut(updates.losses) / self._weights.bound - 1.0) * self._scale

    @property
    def _scale(self) -> float:
        # The margin is that of clipped rows: rounding cannot carry the two together above the clip.
        return self._share * self._clip * MARGIN

    def _released(self, totals: NDArray[np.int64], noise: Stream) -> NDArray[np.float64]:
        """``(groups,)`` noisy mean losses in [0, bound]; of absent clients the middle counts."""
        bits = self._bits - _FINENESS
        sums = from_grid(gaussian_on_grid(totals[:, -1], self._noise * self._clip, bits, noise), bits)
        means = self._weights.bound / 2.0 * (1.0 + sums / (self._scale * self._cohorts))
        return np.clip(means, 0.0, self._weights.bound)


def require_column(rule: str, column: object, smallest: object) -> None:
    """Refuse settings that name no groups.

    Raises:
        ConfigError: The column is no name, or the least size no whole number.
    """
    if not isinstance(column, str) or not column:
        raise ConfigError(
            f"server.aggregator ({rule}): column = {column!r}; it names a group column of the task, or one that says "
            "who holds a record"
        )
    if not isinstance(smallest, int) or isinstance(smallest, bool) or smallest < 1:
        raise ConfigError(
            f"server.aggregator ({rule}): smallest = {smallest!r}; it is a whole number of clients of at least 1"
        )
