"""q-FedAvg: clients with a larger loss count more."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Updates
from fedsafe.aggregation.options import require_number
from fedsafe.aggregation.rows import RowRule

# A client without any loss keeps a finite step (the same floor as in the authors' own code).
_FLOOR = 1e-10
LOSS_RELEASED = "the training loss of each client in each round, un-noised"


@final
@dataclass(frozen=True, kw_only=True)
class QFedAvg(RowRule):
    """Fair resource allocation (Li et al., 2020, algorithm 2), with L = 1/lr.

    With update d_k and loss F_k at the broadcast model, the authors' step is the sum of ``F_k^q L d_k`` over the sum
    of ``q F_k^(q-1) |L d_k|^2 + L F_k^q``. Both sums are divided here by ``L max(F)^q``, which changes nothing and
    overflows nowhere. q = 0 is the unweighted mean; a large q nears the minimax of agnostic learning.

    Args:
        q: At least 0: how much more a large loss counts.
        learning_rate: Of the clients.
    """

    learning_rate: float
    q: float = 1.0
    name: ClassVar[str] = "q_fedavg"
    needs_losses: ClassVar[bool] = True
    releases: ClassVar[tuple[str, ...]] = (LOSS_RELEASED,)

    def __post_init__(self) -> None:
        """Refuse a q that is no number of at least zero."""
        require_number(self.name, "q", self.q)

    def combine(self, updates: Updates) -> NDArray[np.float64]:
        """The step of the authors' algorithm."""
        losses = np.maximum(np.zeros(0) if updates.losses is None else updates.losses, _FLOOR)
        weights = (losses / losses.max()) ** self.q
        # A power of two at least as large as every value: scaling by it is exact, and no square overflows.
        scale = np.ldexp(1.0, max(0, int(np.frexp(np.abs(updates.rows).max(initial=0.0))[1])))
        total, divisor = np.zeros(updates.rows.shape[1]), 0.0
        for row, weight, loss in zip(updates.rows / scale, weights, losses, strict=True):
            if weight > 0.0:
                total += weight * row
                with np.errstate(over="ignore"):
                    curvature = self.q * (row @ row) * scale / (self.learning_rate * loss)
                    divisor += weight * (1.0 / scale + curvature)
        step: NDArray[np.float64] = total / divisor
        return step
