"""Means over examples as findings, each with its interval."""

from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.findings import Context, Finding, bootstrap, estimate

Array = NDArray[np.float64]

_RESAMPLES = 1000


def mean_of(metric: str, values: Array, rng: np.random.Generator, **context: Unpack[Context]) -> Finding:
    """The mean of ``(n,)`` values of examples, with its bootstrap interval."""
    return estimate(
        metric,
        float(values.mean()),
        interval=bootstrap(values, lambda drawn: drawn.mean(axis=1), rng, resamples=_RESAMPLES),
        method="bca bootstrap",
        n=len(values),
        unit="examples",
        **context,
    )


def ratio_of_means(
    metric: str, above: Array, below: Array, rng: np.random.Generator, **context: Unpack[Context]
) -> Finding:
    """The ratio of the means of two values ``(n,)`` of each example, with its bootstrap interval."""
    pairs = np.stack([above, below], axis=1)
    return estimate(
        metric,
        float(_ratio(pairs[None])[0]),
        interval=bootstrap(pairs, _ratio, rng, resamples=_RESAMPLES),
        method="bca bootstrap",
        n=len(pairs),
        unit="examples",
        **context,
    )


def norms(x: Tensor) -> Tensor:
    """Euclidean norm of each example, shaped to scale it."""
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm.view(-1, *([1] * (x.ndim - 1)))


def gini(values: Array) -> Array:
    """Gini index (1912) of each row's magnitudes: 0 where all are equal, near 1 where one holds everything.

    Args:
        values: ``(n, columns)``; the sign is ignored.

    Returns:
        ``(n,)``; 0 where a row is all zero.
    """
    ordered = np.sort(np.abs(values), axis=1)
    count, total = values.shape[1], ordered.sum(axis=1)
    weights = (2 * np.arange(1, count + 1) - count - 1) / count
    return np.asarray(np.divide(ordered @ weights, total, out=np.zeros(len(values)), where=total > 0))


def _ratio(pairs: Array) -> Array:
    """Ratio of the means of the two columns of ``(rows, n, 2)``; 0 where the second is all zero."""
    sums = pairs.sum(axis=1)
    return np.asarray(np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0))
