"""How near rebuilt records are to the true ones, each feature in units of its public range."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float64]

_CAP = 1e-15  # mean square error of what counts as exact: 150 dB
_WINDOW = 7
_K1, _K2 = 0.01, 0.03


def to_ranges(x: NDArray[np.floating], low: NDArray[np.floating], high: NDArray[np.floating]) -> Array:
    """``(n, *inputs)`` on a scale where each feature's public range is 0 to 1; what lies outside is moved to its end.

    Args:
        x: ``(n, *inputs)`` in encoded units.
        low: ``(*inputs,)`` smallest values.
        high: ``(*inputs,)`` largest values; a feature without a range is 0.
    """
    bottom, width = low.astype(np.float64), high.astype(np.float64) - low
    return np.clip((x.astype(np.float64) - bottom) / np.where(width > 0, width, 1.0), 0.0, 1.0)


def mean_squares(rebuilt: Array, true: Array) -> Array:
    """``(n,)`` mean square errors over the features of each record."""
    return np.asarray(((rebuilt - true) ** 2).reshape(len(true), -1).mean(axis=1))


def psnr(rebuilt: Array, true: Array) -> Array:
    """``(n,)`` peak signal to noise in dB, ``-10 log10`` of the mean square error; at most 150.

    Args:
        rebuilt: ``(n, *inputs)`` from `to_ranges`, whose peak is 1.
        true: ``(n, *inputs)`` likewise.
    """
    return np.asarray(-10.0 * np.log10(np.maximum(mean_squares(rebuilt, true), _CAP)))


def ssim(rebuilt: Array, true: Array) -> Array:
    """``(n,)`` structural similarity, the mean over windows of 7 x 7 and over channels (Wang et al. 2004).

    Args:
        rebuilt: ``(n, ..., height, width)`` from `to_ranges`.
        true: Likewise.
    """
    first, second = (x.reshape(len(x), -1, *x.shape[-2:]) for x in (rebuilt, true))
    size = min(_WINDOW, *first.shape[-2:])

    def local(values: Array) -> Array:
        return np.asarray(ndimage.uniform_filter(values, size=(0, 0, size, size), mode="reflect"))

    means, other_means = local(first), local(second)
    variance = np.maximum(local(first**2) - means**2, 0.0)
    other_variance = np.maximum(local(second**2) - other_means**2, 0.0)
    covariance = local(first * second) - means * other_means
    c1, c2 = _K1**2, _K2**2
    above = (2 * means * other_means + c1) * (2 * covariance + c2)
    below = (means**2 + other_means**2 + c1) * (variance + other_variance + c2)
    return np.asarray((above / below).reshape(len(first), -1).mean(axis=1))


def identified(rebuilt: Array, true: Array, decoys: Array) -> NDArray[np.bool_]:
    """``(n,)`` whether each rebuilt record is nearer to the true one than to every decoy; a tie is not.

    Args:
        rebuilt: ``(n, *inputs)`` from `to_ranges`.
        true: ``(n, *inputs)``.
        decoys: ``(decoys, *inputs)`` other records of the distribution.
    """
    own = mean_squares(rebuilt, true)
    nearest = np.array([mean_squares(np.broadcast_to(r, decoys.shape), decoys).min() for r in rebuilt])
    return np.asarray(own < nearest)
