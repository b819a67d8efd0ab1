"""Averages: the noisy mean with a proven sensitivity, and plain FedAvg."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, Updates
from fedsafe.privacy.clipping import clip_rows, finite_rows
from fedsafe.privacy.mechanisms import from_grid, gaussian_on_grid, to_grid
from fedsafe.rng import Stream


@dataclass(frozen=True, kw_only=True)
class NoisyMean:
    """Clipped sum on a public grid, plus Gaussian noise, over a public constant.

    The weights are uniform and the divisor is the expected cohort, never the number of replies: one client moves
    the sum by at most ``clip``, whoever else takes part. An empty cohort still releases noise.

    Args:
        clip: Bound on one update's norm, all tensors together.
        noise: Noise multiplier: the standard deviation is ``noise * clip``.
        bits: The grid is ``2^-bits``.
        divisor: The public constant.

    Guarantees:
        ==============  =================================
        update          contribution to the sum
        ==============  =================================
        all zeros       zero
        non-finite      zero
        norm above clip scaled to just under ``clip``
        absent          zero
        ==============  =================================
    """

    clip: float
    noise: float
    bits: int
    divisor: float
    name: ClassVar[str] = "noisy_mean"
    proven_sensitivity: ClassVar[bool] = True

    def zero(self, parameters: int) -> Fold:
        """The sum over no client."""
        return Fold(arrays={"total": np.zeros(parameters, np.int64)})

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Check, clip, round toward zero and sum: exact, so order cannot matter."""
        grid = to_grid(clip_rows(updates.rows, self.clip), self.bits)
        return Fold(arrays={"total": fold.arrays["total"] + grid.sum(axis=0, dtype=np.int64)})

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The sum over both."""
        return Fold(arrays={"total": first.arrays["total"] + second.arrays["total"]})

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """Noise calibrated to the sum's sensitivity, then the public divisor."""
        total = fold.arrays["total"].astype(np.int64, copy=False)
        return (
            from_grid(gaussian_on_grid(total, self.noise * self.clip, self.bits, noise), self.bits)
            / self.divisor
        )


@dataclass(frozen=True, kw_only=True)
class FedAvg:
    """The mean weighted by example counts (McMahan et al., 2017), for runs without a client-level guarantee."""

    name: ClassVar[str] = "fedavg"
    proven_sensitivity: ClassVar[bool] = False

    def zero(self, parameters: int) -> Fold:
        """The rows of no client."""
        return no_rows(parameters)

    def add(self, fold: Fold, updates: Updates) -> Fold:
        """Keep the rows: a float sum is only reproducible in a fixed order, which ``finish`` knows."""
        return add_rows(fold, updates)

    def merge(self, first: Fold, second: Fold) -> Fold:
        """The rows of both."""
        return merge_rows(first, second)

    def finish(self, fold: Fold, noise: Stream) -> NDArray[np.float64]:
        """Weighted mean over the replies, in ascending order of client; zero if there are none."""
        rows, weights = sorted_rows(fold)
        total = np.zeros(rows.shape[1])
        for row, weight in zip(rows, weights, strict=True):
            total += weight * row
        return total / weights.sum() if len(weights) else total


def no_rows(parameters: int) -> Fold:
    """A fold that keeps rows, with none."""
    return Fold(
        arrays={
            "clients": np.zeros(0, np.int64),
            "examples": np.zeros(0),
            "rows": np.zeros((0, parameters)),
        }
    )


def add_rows(fold: Fold, updates: Updates) -> Fold:
    """Append the updates; a non-finite one becomes zero."""
    added = {"clients": updates.clients, "examples": updates.examples, "rows": finite_rows(updates.rows)}
    return merge_rows(fold, Fold(arrays=added))


def merge_rows(first: Fold, second: Fold) -> Fold:
    """Both lists of rows, one after the other."""
    return Fold(arrays={k: np.concatenate([first.arrays[k], second.arrays[k]]) for k in first.arrays})


def sorted_rows(fold: Fold) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows ``(clients, parameters)`` and example counts, in ascending order of client."""
    order = np.argsort(fold.arrays["clients"], kind="stable")
    rows: NDArray[np.float64] = fold.arrays["rows"][order].astype(np.float64, copy=False)
    examples: NDArray[np.float64] = fold.arrays["examples"][order].astype(np.float64, copy=False)
    return rows, examples
