"""Rules that need every row, in a fixed order. None has a proven sensitivity: no client-level claim can be made."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, Updates
from fedsafe.errors import EngineError
from fedsafe.privacy.clipping import finite_rows
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream


class RowRule(Rule, ABC):
    """Folds to the list of rows; :meth:`combine` sees them in ascending order of client.

    Guarantees:
        ==========================================  ======================================================
        client                                      what ``combine`` sees
        ==========================================  ======================================================
        non-finite update                           a zero update
        loss not finite, or below zero              a zero update and a loss of zero (rules with losses only)
        absent                                      nothing
        no client at all                            it is not called: the update is zero
        ==========================================  ======================================================
    """

    name: ClassVar[str]
    folds_rows: ClassVar[bool] = True

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *args: Any, **options: Any) -> Self:
        """Nothing of the plan decides most rules over rows; the options are the constructor's."""
        return cls(*args, **options)

    @abstractmethod
    def combine(self, updates: Updates) -> NDArray[np.float64]:
        """One update ``(parameters,)`` from the updates of at least one client."""

    def combine_drawing(self, updates: Updates, draws: Stream | None) -> NDArray[np.float64]:
        """What ``combine`` gives; a rule that draws something has the server's stream of the round."""
        return self.combine(updates)

    @final
    def zero(self, parameters: int) -> Fold:
        """The rows of no client."""
        arrays = {
            "clients": np.zeros(0, np.int64),
            "examples": np.zeros(0),
            "rows": np.zeros((0, parameters)),
        }
        return Fold(arrays={**arrays, "losses": np.zeros(0)} if self.needs_losses else arrays)

    @final
    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Append the rows, checked."""
        arrays = {"clients": updates.clients, "examples": updates.examples, "rows": finite_rows(updates.rows)}
        if self.needs_losses:
            if updates.losses is None:
                raise EngineError(f"the aggregator {self.name} needs the loss of each client, and got none")
            with np.errstate(invalid="ignore"):
                sound = np.isfinite(updates.losses) & (updates.losses >= 0.0)
            arrays["losses"] = np.where(sound, updates.losses, 0.0)
            arrays["rows"] = np.where(sound[:, None], arrays["rows"], 0.0)
        return self.merge(fold, Fold(arrays=arrays))

    @final
    def merge(self, first: Fold, second: Fold) -> Fold:
        """The rows of both, one after the other."""
        return Fold(arrays={k: np.concatenate([first.arrays[k], second.arrays[k]]) for k in first.arrays})

    @final
    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """Combine in ascending order of client, since a float sum depends on it; zero if nobody replied."""
        updates = self.ordered(fold)
        return self.combine_drawing(updates, noise) if len(updates.rows) else np.zeros(updates.rows.shape[1])

    @final
    def ordered(self, fold: Fold) -> Updates:
        """The fold's updates in ascending order of client."""
        order = np.argsort(fold.arrays["clients"], kind="stable")
        return Updates(
            clients=fold.arrays["clients"][order],
            rows=fold.arrays["rows"][order],
            examples=fold.arrays["examples"][order],
            losses=fold.arrays["losses"][order] if self.needs_losses else None,
        )


def weighted_mean(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(parameters,)`` mean of rows, summed one by one so that the bits depend on their order alone.

    Zero if all weights are.
    """
    total = np.zeros(rows.shape[1])
    if not weights.any():
        return total
    for row, weight in zip(rows, weights, strict=True):
        total += weight * row
    mean: NDArray[np.float64] = total / weights.sum()
    return mean
