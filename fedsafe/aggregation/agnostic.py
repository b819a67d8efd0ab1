"""Agnostic federated learning: the worst mixture of clients decides."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, State, Updates
from fedsafe.aggregation.options import require_number
from fedsafe.aggregation.q_fedavg import LOSS_RELEASED
from fedsafe.aggregation.rows import RowRule, weighted_mean
from fedsafe.errors import RecordError
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

# More than any sum of a weight and a gain needs to be: the projection only sees differences below one.
_LARGEST = 1e100


@final
class Agnostic(RowRule):
    """Minimax over mixtures of the clients (Mohri et al., 2019; with several local steps, Ro et al., 2021).

    The server keeps one weight for each client, on the simplex. A round's update is the mean of the replies weighted
    by them; then the weights climb the losses, ``ascent * F_k / rate`` (the cohort is a sample: the rate makes the
    gradient unbiased), and are projected back to the simplex. Clients whose weights are all zero move nothing.

    Args:
        clients: The registered population.
        rate: Poisson rate of clients in a cohort.
        ascent: Learning rate of the weights, at least 0; a tenth of the uniform weight by default.
    """

    name: ClassVar[str] = "agnostic"
    needs_losses: ClassVar[bool] = True
    remembers: ClassVar[bool] = True
    releases: ClassVar[tuple[str, ...]] = (LOSS_RELEASED,)

    def __init__(self, *, clients: int, rate: float, ascent: float | None = None) -> None:
        step = 0.1 / clients if ascent is None else ascent
        require_number(self.name, "ascent", step)
        self._gain = step / rate
        self._weights = np.full(clients, 1.0 / clients)

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *, ascent: float | None = None) -> Self:
        """Population and rate of the plan."""
        return cls(clients=plan.clients, rate=plan.client.rate, ascent=ascent)

    @property
    def weights(self) -> NDArray[np.float64]:
        """``(clients,)`` mixture, which sums to one."""
        return self._weights.copy()

    def combine(self, updates: Updates) -> NDArray[np.float64]:
        """The mean of the replies under the mixture."""
        return weighted_mean(updates.rows, self._weights[updates.clients])

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """One step of projected gradient ascent on the losses."""
        updates = self.ordered(fold)
        if updates.losses is None or not len(updates.clients):
            return
        with np.errstate(over="ignore"):
            gains = np.minimum(self._gain * updates.losses, _LARGEST)
        climbed = self._weights.copy()
        climbed[updates.clients] += gains
        self._weights = project_to_simplex(climbed)

    def state(self) -> State:
        """The mixture."""
        return {"weights": self._weights}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a mixture.

        Raises:
            RecordError: It is not one of this population.
        """
        weights = state.get("weights")
        if set(state) != {"weights"} or weights is None or weights.shape != self._weights.shape:
            raise RecordError(f"the state of the aggregator is not a mixture of {len(self._weights)} clients")
        self._weights = np.array(weights, np.float64)


def project_to_simplex(point: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest point whose values are at least zero and sum to one (Duchi et al., 2008).

    Args:
        point: ``(n,)`` finite values, n at least 1.
    """
    # The projection does not see a common shift; after this one, large values lose no digits.
    shifted = point - point.max()
    ranked = np.sort(shifted)[::-1]
    excess = (np.cumsum(ranked) - 1.0) / np.arange(1, len(ranked) + 1)
    kept = int(np.flatnonzero(ranked > excess)[-1])
    nearest: NDArray[np.float64] = np.maximum(shifted - excess[kept], 0.0)
    return nearest
