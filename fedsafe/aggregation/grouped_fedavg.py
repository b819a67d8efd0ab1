"""Weights of groups without clip and noise: what ``grouped_mean`` is where there is no client-level target."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import State, Updates
from fedsafe.aggregation.grouped_mean import require_column
from fedsafe.aggregation.grouped_membership import Membership
from fedsafe.aggregation.grouped_weights import GroupWeights
from fedsafe.aggregation.q_fedavg import LOSS_RELEASED
from fedsafe.aggregation.rows import RowRule, weighted_mean
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream


@final
class GroupedFedAvg(RowRule):
    """The weighted sum of the groups' means, each of them FedAvg's: the replies weighted by their records.

    A group that nobody of replied in a round has no part in it, and the weights of the others are scaled up to one.

    Args:
        groups: Who is in which.
        weights: How much each counts; where they follow losses, by the mean loss of the replies, weighted by records.
    """

    name: ClassVar[str] = "grouped_fedavg"
    needs_groups: ClassVar[bool] = True

    def __init__(self, *, groups: Membership, weights: GroupWeights) -> None:
        self.needs_losses = self.remembers = weights.follow  # type: ignore[misc]
        self.releases = (LOSS_RELEASED,) if weights.follow else ()  # type: ignore[misc]
        self._groups, self._weights = groups, weights

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
        smallest: int = 1,
    ) -> Self:
        """Options as for :meth:`GroupedMean.from_plan`.

        Raises:
            ConfigError: An option is out of range, or the groups are of another population.
        """
        require_column(cls.name, column, smallest)
        membership.require(cls.name, plan.clients)
        return cls(
            groups=membership,
            weights=GroupWeights(
                cls.name, membership, weights=weights, step=step, smoothing=smoothing, bound=bound
            ),
        )

    @property
    def weights(self) -> NDArray[np.float64]:
        """``(groups,)`` of the coming round."""
        return self._weights.current

    def combine(self, updates: Updates) -> NDArray[np.float64]:
        """The groups' means under their weights."""
        groups = self._groups.groups_of(updates.clients)
        present = np.unique(groups)
        means = [weighted_mean(updates.rows[groups == g], updates.examples[groups == g]) for g in present]
        return weighted_mean(np.array(means), self.weights[present])

    def advance(self, fold: Any, noise: Stream | None = None) -> None:
        """Move the weights by the replies' losses."""
        updates = self.ordered(fold) if self.needs_losses else None
        if updates is None or updates.losses is None or not len(updates.clients):
            return
        groups, losses = self._groups.groups_of(updates.clients), self._weights.cut(updates.losses)
        means, heard = np.zeros(len(self._groups.names)), np.zeros(len(self._groups.names), bool)
        for group in np.unique(groups):
            own = groups == group
            heard[group] = updates.examples[own].any()
            means[group] = weighted_mean(losses[own, None], updates.examples[own])[0]
        self._weights.learn(means, heard)

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
        """The weights of the coming round."""
        return self._weights.figures()
