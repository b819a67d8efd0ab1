"""FedAvg as an exact sum: what a worker sends and what the server keeps do not grow with the cohort."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Rule, Updates
from fedsafe.privacy.clipping import finite_rows
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream

# A weighted value is cut to 2^40, and is kept as a whole number and a fraction in units of 2^-40. Sums of so many rows
# of either are whole numbers below 2^53: exact in double precision, in any order. Sums of 2^22 rows fit 64 bits.
_MOST, _UNITS = 2.0**40, 2.0**40
_ROWS_AT_ONCE = 2**12


@final
@dataclass(frozen=True, kw_only=True)
class FedAvg(Rule):
    """The mean weighted by example counts (McMahan et al., 2017), for runs without a client-level guarantee.

    Guarantees:
        ===============================  ==========================================================
        client                           what it adds
        ===============================  ==========================================================
        non-finite update                a zero update, with its weight
        absent                           nothing
        update times count above 2^40    that value, cut to 2^40
        no client at all                 the update is zero
        ===============================  ==========================================================

        Values are rounded to 2^-40 once they are weighted, which is far below what the model's single precision can
        tell apart; the sums are exact, so neither order nor packing changes a bit.
    """

    name: ClassVar[str] = "fedavg"
    folds_uploads: ClassVar[bool] = True

    @classmethod
    def from_plan(cls, plan: PrivacyPlan, *args: Any, **options: Any) -> Self:
        """Nothing of the plan decides it."""
        return cls(*args, **options)

    def zero(self, parameters: int) -> Fold:
        """The sums over no client."""
        whole, fraction = np.zeros(parameters, np.int64), np.zeros(parameters, np.int64)
        return Fold(arrays={"whole": whole, "fraction": fraction, "examples": np.zeros(1, np.int64)})

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Weight, round and sum."""
        weights = updates.examples.astype(np.int64)
        whole, fraction = fold.arrays["whole"].copy(), fold.arrays["fraction"].copy()
        for first in range(0, len(weights), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            parts = _split(finite_rows(updates.rows[some]), weights[some])
            whole += parts[0]
            fraction += parts[1]
        examples = fold.arrays["examples"] + weights.sum()
        return Fold(arrays={"whole": whole, "fraction": fraction, "examples": examples})

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sums over both."""
        return Fold(arrays={name: first.arrays[name] + second.arrays[name] for name in first.arrays})

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """The weighted mean; zero if nobody replied."""
        total = fold.arrays["whole"] + fold.arrays["fraction"] / _UNITS
        mean: NDArray[np.float64] = total / max(1, int(fold.arrays["examples"][0]))
        return mean


def _split(
    rows: NDArray[np.float64], weights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums ``(parameters,)`` of the weighted rows' whole numbers and of their fractions, in units of ``1 / _UNITS``."""
    wholes, fractions = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    # Row by row: what is in between stays in the cache.
    weighted, whole = np.empty_like(wholes), np.empty_like(wholes)
    for row, weight in zip(rows, weights, strict=True):
        np.multiply(row, weight, out=weighted)
        np.clip(weighted, -_MOST, _MOST, out=weighted)
        np.rint(weighted, out=whole)
        wholes += whole
        weighted -= whole
        weighted *= _UNITS
        np.rint(weighted, out=weighted)
        fractions += weighted
    return wholes.astype(np.int64), fractions.astype(np.int64)
