"""Blurs: by a lens, by glass and by motion. Images are ``(n, channels, height, width)`` in [0, 1]."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Images = NDArray[np.float64]


def smooth(x: Images, sigma: float) -> Images:
    """A Gaussian filter of each image, the edge pixels repeated outside."""
    return np.asarray(ndimage.gaussian_filter(x, (0, 0, sigma, sigma), mode="nearest"))


def gaussian_blur(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """A Gaussian filter of half a pixel to three, for 28 pixels across."""
    return smooth(x, (0.5, 1.0, 1.5, 2.0, 3.0)[severity - 1] * x.shape[2] / 28)


def glass_blur(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Swaps pixels with others nearby between two Gaussian filters (Mu and Gilmer 2019)."""
    sigma, reach, passes = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[severity - 1]
    # The filtered image is stored in bytes before pixels are swapped.
    x = np.floor(smooth(x, sigma) * 255) / 255
    n, _, height, width = x.shape
    every = np.arange(n)
    for _ in range(passes):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, across = rng.integers(-reach, reach, size=(2, n))
                swaps = rng.random(n) < 0.5
                rows = np.where(swaps, row + down, row)
                columns = np.where(swaps, column + across, column)
                here = x[every, :, row, column].copy()
                x[every, :, row, column] = x[every, :, rows, columns]
                x[every, :, rows, columns] = here
    return np.clip(smooth(x, sigma), 0, 1)


def motion_blur(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Half a Gaussian along a line, at a random angle of at most 45 degrees (Mu and Gilmer 2019).

    The line starts at each pixel and is as long as twice the radius; edge pixels are repeated outside.
    """
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2.0 * sigma**2))
    weights /= weights.sum()
    angles = np.radians(rng.uniform(-45, 45, len(x)))
    _, _, height, width = x.shape
    blurred, every = np.zeros_like(x), np.arange(len(x))[:, None, None]
    for step, weight in zip(steps, weights, strict=True):
        down = np.ceil(step * np.sin(angles) - 0.5).astype(np.int64)[:, None, None]
        across = np.ceil(step * np.cos(angles) - 0.5).astype(np.int64)[:, None, None]
        rows = np.clip(np.arange(height)[None, :, None] + down, 0, height - 1)
        columns = np.clip(np.arange(width)[None, None, :] + across, 0, width - 1)
        blurred += weight * np.moveaxis(x[every, :, rows, columns], -1, 1)
    return blurred
