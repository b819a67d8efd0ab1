"""Rounding to whole numbers at random, without bias and with a bound on the norm (Kairouz et al., 2021)."""

import math

import numpy as np
from numpy.typing import NDArray

from fedsafe.privacy.mechanisms.grid import Grid
from fedsafe.rng import Stream

# The published beta = exp(-1/2): two roundings in five, at least, keep the bound.
_LOG_INVERSE_BETA = 0.5
# After so many the values are cut toward zero, with a probability below 2^-46 and within the bound all the same.
_MOST_TRIALS = 64


def rounded_norm(norm: float, dimension: int) -> float:
    """The bound on the Euclidean norm after rounding.

    ``min(c + sqrt d, sqrt(c^2 + d/4 + sqrt(2 ln 1/beta) (c + sqrt(d)/2)))`` (Kairouz et al., 2021, proposition 22).

    Args:
        norm: c, the bound before, in units of the grid.
        dimension: d, the number of values.
    """
    root = math.sqrt(dimension)
    likely = norm**2 + dimension / 4.0 + math.sqrt(2.0 * _LOG_INVERSE_BETA) * (norm + root / 2.0)
    return min(norm + root, math.sqrt(likely))


def rounded_sum(norm: float, dimension: int) -> float:
    """The bound on the sum of absolute values of whole numbers whose Euclidean norm is at most ``norm``."""
    return norm * min(math.sqrt(dimension), norm)


def round_at_random(values: NDArray[np.float64], bound: float, stream: Stream) -> Grid:
    """Each value to one of its two neighbours, so that the mean is kept, again until the norm is within the bound.

    Args:
        values: ``(parameters,)`` in units of the grid, below 2^52.
        bound: See :func:`rounded_norm`.
        stream: Of random words.
    """
    low = np.floor(values)
    # A sum of squares in double precision is off by less.
    most = bound**2 * (1.0 - 1e-9)
    for _ in range(_MOST_TRIALS):
        uniform = (stream.words(len(values)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        rounded = low + (uniform < values - low)
        if float(np.square(rounded).sum()) <= most:
            return rounded.astype(np.int64)
    return np.trunc(values).astype(np.int64)
