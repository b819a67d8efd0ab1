"""A public random rotation that spreads an update evenly over its values: random signs, then Hadamard's matrix.

Flat vectors need fewer bits for their sum. A rotation keeps every norm, so privacy does not depend on it.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from fedsafe.rng import public_generator


def rotated_length(parameters: int) -> int:
    """The next power of two: vectors are padded with zeros to it."""
    return 1 << max(0, parameters - 1).bit_length()


def rotate(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(rotated_length(parameters),)`` of the same norm."""
    length = rotated_length(len(values))
    padded = np.zeros(length)
    padded[: len(values)] = values
    return _hadamard(padded * _signs(length))


def rotate_back(values: NDArray[np.float64], parameters: int) -> NDArray[np.float64]:
    """What :func:`rotate` was given: Hadamard's matrix is its own inverse."""
    return (_hadamard(values.copy()) * _signs(len(values)))[:parameters]


@functools.lru_cache(maxsize=4)
def _signs(length: int) -> NDArray[np.float64]:
    return public_generator(0, "signs of the rotation").choice([-1.0, 1.0], length)


def _hadamard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The orthonormal Walsh-Hadamard transform, in place."""
    half = 1
    while half < len(values):
        pairs = values.reshape(-1, 2, half)
        first = pairs[:, 0].copy()
        pairs[:, 0] += pairs[:, 1]
        np.subtract(first, pairs[:, 1], out=pairs[:, 1])
        half *= 2
    values /= np.sqrt(len(values))
    return values
