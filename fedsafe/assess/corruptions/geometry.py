"""Shear, scale, rotation and translation about the middle (Mu and Gilmer 2019).

Images are ``(n, channels, height, width)`` in [0, 1]. An output pixel is read by bilinear interpolation from where an
affine map takes it; outside the image is black.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float64]


def shear(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """By 0.2 radians for each step of severity, to either side."""
    return _to_either_side(x, 0.2 * severity, lambda a: np.array([[1.0, -np.sin(a)], [0.0, np.cos(a)]]), rng)


def rotate(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """By 0.2 radians for each step of severity, to either side."""
    return _to_either_side(
        x, 0.2 * severity, lambda a: np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]), rng
    )


def scale(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Down to 0.9 of the size, and 0.1 less for each step of severity."""
    return warp(x, np.eye(2) / (1 - 0.1 * severity))


def translate(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """By one of 28 pixels for each step of severity, along both axes, to either side of each."""
    signs = rng.choice([-1, 1], size=(len(x), 2))
    moved = np.zeros_like(x)
    steps = [max(1, round(severity * side / 28)) for side in (x.shape[3], x.shape[2])]
    for across in (-1, 1):
        for down in (-1, 1):
            (rows,) = np.nonzero((signs == (across, down)).all(axis=1))
            moved[rows] = warp(x[rows], np.eye(2), (across * steps[0], down * steps[1]))
    return moved


def warp(x: Images, matrix: NDArray[np.float64], shift: tuple[float, float] = (0.0, 0.0)) -> Images:
    """Output at (column, row) from the middle is the input at ``matrix @ (column, row) + shift`` from the middle.

    Args:
        x: ``(n, channels, height, width)``.
        matrix: ``(2, 2)``.
        shift: In pixels, across and down.
    """
    _, _, height, width = x.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    columns, rows = np.meshgrid(np.arange(width) - middle[0], np.arange(height) - middle[1])
    across = matrix[0, 0] * columns + matrix[0, 1] * rows + middle[0] + shift[0]
    down = matrix[1, 0] * columns + matrix[1, 1] * rows + middle[1] + shift[1]
    left, top = np.floor(across).astype(np.int64), np.floor(down).astype(np.int64)
    result = np.zeros_like(x)
    for right in (0, 1):
        for below in (0, 1):
            column, row = left + right, top + below
            weight = np.abs(1 - right - (across - left)) * np.abs(1 - below - (down - top))
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            taken = x[:, :, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            result += np.where(inside, weight, 0.0) * taken
    return result


def _to_either_side(
    x: Images, angle: float, matrix: Callable[[float], NDArray[np.float64]], rng: np.random.Generator
) -> Images:
    turned = np.zeros_like(x)
    sides = rng.random(len(x)) < 0.5
    for side, sign in ((sides, 1), (~sides, -1)):
        turned[side] = warp(x[side], matrix(sign * angle))
    return turned
