"""The Gaussian mechanism on a public grid.

Values are integers: multiples of ``2^-bits``. Sums of integers are exact, so the order in which clients arrive
cannot change a bit. Rounding the noise to the grid of the value is the same as rounding their sum, which is
post-processing of the Gaussian mechanism and costs no privacy.

Guarantees:
    A row's norm never grows on its way to the grid (truncation is toward zero), and a sum over the whole
    population cannot overflow 64 bits.
"""

import numpy as np
from numpy.typing import NDArray

from fedsafe.rng import Stream

Grid = NDArray[np.int64]


def grid_bits(clip: float, population: int) -> int:
    """The finest public grid on which the sum of ``population`` clipped rows and its noise fit 62 bits.

    At most 40: then one value has at most 53 bits for clips up to 4096, and converts without loss.
    """
    headroom = int(np.ceil(np.log2(max(clip, 1e-300)))) + int(np.ceil(np.log2(population + 1)))
    # 16 times the population's sum leaves room for noise far beyond any plan.
    return max(0, min(40, 62 - headroom - 4, 52 - int(np.ceil(np.log2(max(clip, 1.0))))))


def to_grid(rows: NDArray[np.float64], bits: int) -> Grid:
    """Round toward zero to multiples of ``2^-bits``; ``(rows, parameters)`` int64."""
    grid: Grid = np.trunc(np.ldexp(rows, bits)).astype(np.int64)
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
