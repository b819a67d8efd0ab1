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


def squared_distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(n, n)`` squared Euclidean distances, of order ``n^2 parameters`` in one matrix product.

    ``|a|^2 + |b|^2 - 2 a.b`` loses digits where rows share a large part, so the coordinate-wise median, which no
    minority moves far, is taken off first; what rounding makes negative becomes zero.

    Args:
        rows: ``(n, parameters)`` finite values.
    """
    apart = shortened(rows)
    apart = apart - np.median(apart, axis=0)
    products = apart @ apart.T
    squares = np.diagonal(products)
    found: NDArray[np.float64] = np.maximum(squares[:, None] + squares[None, :] - 2.0 * products, 0.0)
    np.fill_diagonal(found, 0.0)
    return found
