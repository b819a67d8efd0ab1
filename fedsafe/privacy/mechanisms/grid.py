"""The Gaussian mechanism on a public grid.

Values are integers: multiples of ``2^-bits``. Sums of integers are exact, so the order in which clients arrive
cannot change a bit. Rounding the noise to the grid of the value is the same as rounding their sum, which is
post-processing of the Gaussian mechanism and costs no privacy.

Guarantees:
    A row's norm never grows on its way to the grid (truncation is toward zero), a sum over the whole population
    and its noise cannot overflow 64 bits, and the noise can take every value of the grid.
"""

import numpy as np
from numpy.typing import NDArray

from fedsafe.rng import Stream

Grid = NDArray[np.int64]


def grid_bits(clip: float, population: int, noise: float = 1.0) -> int:
    """The finest public grid, 40 bits at most, on which neither the sum nor its noise loses a bit.

    The sum of ``population`` clipped rows fits 58 bits. The largest draw, 9.5 standard deviations, stays below
    2^53, up to which double precision holds every integer: coarser noise would leave the last bits of the sum
    bare. A large clip gives a negative number: a grid coarser than one.

    Args:
        clip: Bound on one row's norm.
        population: The most rows that can be summed.
        noise: Noise multiplier: the standard deviation over ``clip``.
    """
    magnitude = int(np.ceil(np.log2(max(clip, 1e-300))))
    sum_fits = 58 - magnitude - int(np.ceil(np.log2(population + 1)))
    noise_fits = 49 - magnitude - int(np.ceil(np.log2(max(noise, 1.0))))
    return min(40, sum_fits, noise_fits)


def to_grid(rows: NDArray[np.float64], bits: int) -> Grid:
    """Round toward zero to multiples of ``2^-bits``; ``(rows, parameters)`` int64."""
    # A cast to whole numbers cuts what follows the point.
    grid: Grid = (rows * 2.0**bits).astype(np.int64)
    return grid


def from_grid(values: Grid, bits: int) -> NDArray[np.float64]:
    """The real values of grid integers."""
    return np.ldexp(values.astype(np.float64), -bits)


def gaussian_on_grid(total: Grid, standard_deviation: float, bits: int, stream: Stream) -> Grid:
    """Add Gaussian noise of ``standard_deviation`` (in real units), rounded to the grid.

    Source: Dwork and Roth (2014), appendix A, for the mechanism; the grid answers Mironov (2012).
    """
    noise = stream.normal(total.size) * np.ldexp(standard_deviation, bits)
    noisy: Grid = total + np.rint(noise).astype(np.int64).reshape(total.shape)
    return noisy
