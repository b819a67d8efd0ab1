"""What an aggregator is: a monoid that folds clients' updates, wherever they were trained.

A worker folds the updates of its clients with ``add``; the server joins the folds with ``merge`` and turns the
result into one update of the model with ``finish``. How clients were packed into folds must not change a bit.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream


@dataclass(frozen=True, kw_only=True)
class Updates:
    """Updates of several clients, as trained.

    Args:
        clients: ``(rows,)`` client numbers.
        rows: ``(rows, parameters)`` float64, the trained parameters less the broadcast ones.
        examples: ``(rows,)`` number of records of each client, the weight of plain FedAvg.
    """

    clients: NDArray[np.int64]
    rows: NDArray[np.float64]
    examples: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What an aggregator has folded so far, as plain arrays that any transport can carry."""

    arrays: dict[str, NDArray[Any]]


class Aggregator(Protocol):
    """Folds updates and turns a fold into one update of the global model.

    Guarantees:
        ``merge`` is associative and commutative up to the bits of ``finish``, and ``zero`` is its identity. An
        absent client changes nothing but what it would have added.
    """

    name: ClassVar[str]
    # Whether one client's influence on the fold is bounded by the clip, with a proof. Without it there is no
    # client-level claim.
    proven_sensitivity: ClassVar[bool]

    @classmethod
    def from_plan(cls, plan: PrivacyPlan) -> Self:
        """The aggregator for a privacy plan."""
        ...

    def zero(self, parameters: int) -> Fold:
        """The fold of no client."""
        ...

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """The fold with these clients' updates added; a non-finite update counts as zero."""
        ...

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The fold of the clients of both."""
        ...

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """``(parameters,)`` update of the global model."""
        ...
