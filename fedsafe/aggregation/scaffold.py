"""SCAFFOLD: control variates that cancel the drift of unlike clients, held by the server."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, State, Updates
from fedsafe.aggregation.rows import RowRule, weighted_mean
from fedsafe.errors import RecordError
from fedsafe.params import Vector
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

_LARGEST = float(np.finfo(np.float32).max)


@final
class Scaffold(RowRule):
    """Stochastic controlled averaging (Karimireddy et al., 2020, algorithm 1, option II).

    A client's variate is a function of what the server has received, ``c_i - c - d_i / (K lr)`` for an update d_i of K
    steps, so the server keeps c and every c_i, and sends ``c - c_i`` with the model: clients stay stateless, and
    nothing more of a client's records is released than its update. See
    ``docs/decisions/0005-server-held-control-variates.md``.

    Args:
        clients: The registered population.
        steps: K, the steps of a client in a round.
        learning_rate: Of the clients.

    Guarantees:
        ``c`` is the mean of all ``c_i``, of which those never heard are zero. A variate that single precision cannot
        hold is not taken over.
    """

    name: ClassVar[str] = "scaffold"
    remembers: ClassVar[bool] = True

    def __init__(self, *, clients: int, steps: int, learning_rate: float) -> None:
        self._clients = clients
        self._distance = steps * learning_rate
        self._mean: NDArray[np.float64] | None = None
        self._variates: dict[int, Vector] = {}

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *, learning_rate: float) -> Self:
        """Population and steps of the plan."""
        return cls(clients=plan.clients, steps=plan.record.steps, learning_rate=learning_rate)

    def combine(self, updates: Updates) -> NDArray[np.float64]:
        """The unweighted mean of the replies: SCAFFOLD minimises the mean of the clients' objectives."""
        return weighted_mean(updates.rows, np.ones(len(updates.rows)))

    def correction(self, client: int, parameters: int) -> Vector:
        """``c - c_i``, to be added to each step's gradient."""
        mean = np.zeros(parameters) if self._mean is None else self._mean
        variate = self._variates.get(client)
        difference = mean if variate is None else mean - variate.astype(np.float64)
        return np.clip(difference, -_LARGEST, _LARGEST).astype(np.float32)

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """New variates of the clients that replied, and of their mean."""
        updates = self.ordered(fold)
        if not len(updates.clients):
            return
        mean = np.zeros(updates.rows.shape[1]) if self._mean is None else self._mean
        moved = mean.copy()
        for client, row in zip(updates.clients.tolist(), updates.rows, strict=True):
            before = self._variates.get(client, np.zeros(len(row), np.float32)).astype(np.float64)
            with np.errstate(over="ignore"):
                after = (before - mean - row / self._distance).astype(np.float32)
            if np.isfinite(after).all():
                self._variates[client] = after
                # From the rounded variate, so that the mean stays the mean.
                moved += (after.astype(np.float64) - before) / self._clients
        self._mean = moved

    def state(self) -> State:
        """``mean`` (parameters,), and the ``variates`` (heard, parameters) of the ``clients`` heard so far."""
        if self._mean is None:
            return {}
        heard = sorted(self._variates)
        variates = [self._variates[client] for client in heard]
        return {
            "mean": self._mean,
            "clients": np.array(heard, np.int64),
            "variates": np.array(variates, np.float32).reshape(len(heard), len(self._mean)),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over variates; the empty state is that before the first round.

        Raises:
            RecordError: They are not those of this population.
        """
        if not state:
            self._mean, self._variates = None, {}
            return
        if set(state) != {"mean", "clients", "variates"} or state["variates"].shape != (
            len(state["clients"]),
            len(state["mean"]),
        ):
            raise RecordError(
                f"the state of the aggregator is not that of scaffold: {', '.join(sorted(state))}"
            )
        self._mean = np.array(state["mean"], np.float64)
        rows = np.array(state["variates"], np.float32)
        self._variates = dict(zip(state["clients"].tolist(), rows, strict=True))
