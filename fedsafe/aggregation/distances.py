"""Distances between the rows of a round, from one matrix product, whatever an adversary sends."""

import numpy as np
from numpy.typing import NDArray

# The square of no distance overflows, and sums of rows stay finite.
_LARGEST = 1e100


def shortened(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows whose largest value is above 1e100 are scaled down to it; the others are untouched.

    Args:
        rows: ``(n, parameters)`` finite values.
    """
    largest = np.abs(rows).max(axis=1, initial=0.0)
    if not (largest > _LARGEST).any():
        return rows
    scale = np.where(largest > _LARGEST, _LARGEST / np.maximum(largest, 1.0), 1.0)
    return rows * scale[:, None]


def median_row(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(parameters,)`` coordinate-wise median, the mean of the two middle values for an even number.

    The bits of ``numpy.median``, which takes eight times as long over the columns of a wide matrix.

    Args:
        rows: ``(n, parameters)`` finite values, n at least 1.
    """
    ranked = np.sort(rows, axis=0)
    median: NDArray[np.float64] = ranked[(len(rows) - 1) // 2 : len(rows) // 2 + 1].mean(axis=0)
    return median


def squared_distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, n)`` squared Euclidean distances, of order ``n^2 parameters`` in one matrix product.

    ``|a|^2 + |b|^2 - 2 a.b`` loses digits where rows share a large part, so the coordinate-wise median, which no
    minority moves far, is taken off first; what rounding makes negative becomes zero.

    Args:
        rows: ``(n, parameters)`` finite values.
    """
    apart = shortened(rows)
    apart = apart - median_row(apart)
    products = apart @ apart.T
    squares = np.diagonal(products)
    found: NDArray[np.float64] = np.maximum(squares[:, None] + squares[None, :] - 2.0 * products, 0.0)
    np.fill_diagonal(found, 0.0)
    return found
