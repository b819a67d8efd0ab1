"""Federated evaluation: a mean score of each client, noised, summed exactly, noised again, made a mean.

Scores of records lie in [0, 1] and are counted from the middle, 1/2, so that whoever is absent counts as the middle and
moves nothing. A client's mean over n records then moves by at most 1/(2n) if one of them becomes nothing: noise of
standard deviation ``multiplier / (2n)`` is the Gaussian mechanism at the record level. Clipped to the plan's
``score_bound``, one client moves the sum by at most that: noise of standard deviation ``multiplier * bound`` on the sum
is that mechanism at the client level.

Guarantees:
    =======================  ==================================================
    score of a record        counts as
    =======================  ==================================================
    not finite               0
    outside of [0, 1]        the nearer end
    =======================  ==================================================

    A client without records adds nothing. Sums are integers on a public grid of 2^-30, so that the packing of clients
    cannot change a bit.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation import Fold
from fedsafe.privacy.levels import EvaluationPlan
from fedsafe.privacy.mechanisms import from_grid, gaussian_on_grid, to_grid
from fedsafe.rng import Stream

_BITS = 30
_MIDDLE = 0.5


def score_of_client(scores: NDArray[np.float64], evaluation: EvaluationPlan, stream: Stream) -> float:
    """A client's mean score from the middle with its own noise, in ``[-score_bound, score_bound]``.

    Args:
        scores: ``(records,)``, at least one, each in [0, 1].
        evaluation: Has the noise multiplier; 0 adds none.
        stream: Of this client, round and model.
    """
    bounded = np.clip(np.where(np.isfinite(scores), scores, 0.0), 0.0, 1.0) - _MIDDLE
    noise = stream.normal(1)[0] * evaluation.noise_record * _MIDDLE
    bound = evaluation.score_bound
    return float(np.clip((bounded.sum() + noise) / len(bounded), -bound, bound))


def sum_of_scores(scores: Sequence[float]) -> Fold:
    """The sum of clients' scores on the grid."""
    return Fold(arrays={"score": to_grid(np.array(scores, np.float64), _BITS).sum(keepdims=True)})


def merge_scores(folds: Sequence[Fold]) -> Fold:
    """The sum over all; that of nobody is zero."""
    total = np.zeros(1, np.int64)
    for fold in folds:
        total = total + fold.arrays["score"]
    return Fold(arrays={"score": total})


def mean_score(
    fold: Fold,
    replies: int,
    clients: int,
    evaluation: EvaluationPlan,
    stream: Stream,
    present: float = 1.0,
) -> float | None:
    """The mean score, an estimate that noise can carry outside of [0, 1]; None if there is nothing to estimate from.

    Args:
        fold: The sum over the clients that replied.
        replies: How many did. Only where the server adds no noise does the mean depend on it: it tells the cohort's
            size.
        clients: How many could, the registered ones; the public divisor is the expected cohort.
        evaluation: Of the plan.
        stream: Of this round and model.
        present: The share of asked clients that is expected to answer, a public number. 0 means that nobody can.
    """
    if not evaluation.noise_client:
        return float(from_grid(fold.arrays["score"], _BITS)[0] / replies) + _MIDDLE if replies else None
    if not present:
        return None
    deviation = evaluation.noise_client * evaluation.score_bound
    noisy = gaussian_on_grid(fold.arrays["score"], deviation, _BITS, stream)
    return float(from_grid(noisy, _BITS)[0] / (evaluation.rate * present * clients)) + _MIDDLE


def score_deviation(evaluation: EvaluationPlan, sizes: Sequence[int], present: float = 1.0) -> float | None:
    """Largest standard deviation of the mean score, from noise and the cohort's size; None where nothing is added.

    Args:
        evaluation: Of the plan.
        sizes: How many validation records each registered client has, which is public.
        present: The least share of asked clients that is expected to answer an evaluation.
    """
    if not present or (not evaluation.noise_client and not evaluation.noise_record):
        return None
    rate = evaluation.rate * present
    expected = rate * len(sizes)
    own = [(evaluation.noise_record * _MIDDLE / size) ** 2 for size in sizes if size]
    # Clipping only lowers it, and so do clients who are absent, but whose noise is left out is not known.
    variance = evaluation.rate * sum(min(each, evaluation.score_bound**2) for each in own)
    if evaluation.noise_client:
        variance += (evaluation.noise_client * evaluation.score_bound) ** 2
        # At its largest where all are there alike: x (1 - x) is concave.
        variance += rate * (1.0 - rate) * len(sizes) * _MIDDLE**2
    return math.sqrt(variance) / expected
