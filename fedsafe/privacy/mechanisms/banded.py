"""Correlated noise: a banded matrix factorisation of the running sums that training releases.

Releasing each round's sum with the noise ``C^-1 z`` is post-processing of ``C x + z``, for a lower-triangular C with
few bands and independent Gaussian z (Choquette-Choo et al., 2023). Later noise takes back part of what earlier noise
added, so that the *sum* of the releases, which is what the model is, carries less noise for the same privacy; no cohort
needs to be sampled at random for it.

C is a Toeplitz matrix. Its first column is the square root of the running-sum matrix, cut off after ``bands`` values
(Kalinin and Lampert, 2024). It does not depend on the number of rounds, so that stopping early changes nothing, and is
the same on every machine, as no solver finds it; its error is within 1 % of the best Toeplitz matrix of as many bands
for 4 participations 16 rounds apart, and within 8 % for 32 participations 8 rounds apart.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Noise = NDArray[np.float64]


def square_root_coefficients(bands: int) -> tuple[float, ...]:
    """The first column of C: ``binom(2j, j) / 4^j`` for j below ``bands`` (Fichtenberger et al., 2023).

    One band is independent noise.

    Args:
        bands: At least 1.
    """
    found = [1.0]
    for lag in range(1, bands):
        found.append(found[-1] * (2 * lag - 1) / (2 * lag))
    return tuple(found)


def inverse_coefficients(coefficients: Sequence[float], rounds: int) -> NDArray[np.float64]:
    """``(rounds,)`` first column of ``C^-1``, which is a Toeplitz matrix too but has no bands."""
    column = np.zeros(rounds)
    for lag in range(rounds):
        begun = sum(
            coefficients[back] * column[lag - back] for back in range(1, min(len(coefficients), lag + 1))
        )
        column[lag] = ((1.0 if lag == 0 else 0.0) - begun) / coefficients[0]
    return column


def largest_deviation(coefficients: Sequence[float], rounds: int) -> float:
    """The largest standard deviation of any round's noise, for z of one."""
    return float(np.sqrt(np.square(inverse_coefficients(coefficients, rounds)).sum()))


def correlated(fresh: Noise, earlier: Sequence[Noise], coefficients: Sequence[float]) -> Noise:
    """The next of ``C^-1 z``, by solving ``C w = z`` forwards: ``w_t = (z_t - sum_j c_j w_(t-j)) / c_0``.

    Args:
        fresh: ``(parameters,)`` z of this round.
        earlier: What this function gave for the rounds before, the latest first; no more of them count than C has bands
            below the diagonal.
        coefficients: First column of C.
    """
    noise = fresh.copy()
    for coefficient, before in zip(coefficients[1:], earlier, strict=False):
        noise -= coefficient * before
    noise /= coefficients[0]
    return noise
