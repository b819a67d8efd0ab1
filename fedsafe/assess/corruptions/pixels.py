"""Corruptions of single pixels: noise, brightness, inverted stripes.

Images are ``(n, channels, height, width)`` in [0, 1]. Parameters are those of MNIST-C (Mu and Gilmer 2019), which for
noise are those of Hendrycks and Dietterich (2019).
"""

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float64]


def shot_noise(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Counts of photons: Poisson with mean ``x * c``, over c."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return np.clip(rng.poisson(x * photons) / photons, 0, 1)


def impulse_noise(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """A share of the values becomes black or white, with equal chances."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    hit, white = rng.random(x.shape) < share, rng.random(x.shape) < 0.5
    return np.where(hit, white.astype(np.float64), x)


def gaussian_noise(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Normal noise on every value."""
    scale = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return np.clip(x + rng.normal(scale=scale, size=x.shape), 0, 1)


def brightness(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Adds to the value of hue, saturation and value, the largest channel; the hue stays."""
    value = x.max(axis=1, keepdims=True)
    brighter = np.clip(value + 0.1 * severity, 0, 1)
    return np.asarray(np.where(value > 0, x * brighter / np.where(value > 0, value, 1), brighter))


def stripe(x: Images, severity: int, rng: np.random.Generator) -> Images:
    """Inverts the left and the right quarter."""
    width, turned = x.shape[3], x.copy()
    quarter = width // 4
    for columns in (slice(0, quarter), slice(width - quarter, width)):
        turned[..., columns] = 1 - x[..., columns]
    return turned
