"""Federated evaluation: a mean score of each client, noised, summed exactly, noised again, over a public constant.

A client's mean score over n records lies in [0, 1], and one record moves it by at most 1/n: noise of standard
deviation ``multiplier / n`` is the Gaussian mechanism at the record level. Clipped to [0, 1] again, one client moves
the sum by at most 1: noise of standard deviation ``multiplier`` on the sum is that mechanism at the client level.

Guarantees:
    =======================  ==================================================
    score of a record        counts as
    =======================  ==================================================
    not finite               0
    outside of [0, 1]        the nearer end
    =======================  ==================================================

    A client without records has a score of 0, and noise. Sums are integers on a public grid of 2^-30, so that the
    packing of clients cannot change a bit.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation import Fold
from fedsafe.privacy.mechanisms import from_grid, gaussian_on_grid, to_grid
from fedsafe.rng import Stream

_BITS = 30


def score_of_client(scores: NDArray[np.float64], multiplier: float, stream: Stream) -> float:
    """A client's mean score with its own noise, in [0, 1].

    Args:
        scores: ``(records,)``, each in [0, 1].
        multiplier: Standard deviation of the noise over the sensitivity, ``1 / records``; 0 adds none.
        stream: Of this client, round and model.
    """
    bounded = np.clip(np.where(np.isfinite(scores), scores, 0.0), 0.0, 1.0)
    count = max(1, len(bounded))
    noise = stream.normal(1)[0] * multiplier / count
    return float(np.clip(bounded.sum() / count + noise, 0.0, 1.0))


def sum_of_scores(scores: Sequence[float]) -> Fold:
    """The sum of clients' scores on the grid."""
    return Fold(arrays={"score": to_grid(np.array(scores, np.float64), _BITS).sum(keepdims=True)})


def merge_scores(folds: Sequence[Fold]) -> Fold:
    """The sum over all; that of nobody is zero."""
    total = np.zeros(1, np.int64)
    for fold in folds:
        total = total + fold.arrays["score"]
    return Fold(arrays={"score": total})


def mean_score(fold: Fold, multiplier: float, divisor: float, stream: Stream) -> float:
    """The noised sum over a public constant.

    Args:
        fold: The sum over the clients that replied.
        multiplier: Standard deviation of the noise, the sensitivity being 1; 0 adds none.
        divisor: The expected cohort: never the number of replies, which would tell its size.
        stream: Of this round and model.
    """
    noisy = gaussian_on_grid(fold.arrays["score"], multiplier, _BITS, stream)
    return float(from_grid(noisy, _BITS)[0] / divisor)
