"""Bounds for many clients: a loss distribution in milliseconds, hardly above that of the finest interval.

The grid is as fine as the release needs, and it is composed in one Fourier transform that is no longer than the losses
that matter. No headline figure comes from here.
"""

import math

import numpy as np

from fedsafe.privacy.accounting.accounted import account
from fedsafe.privacy.accounting.curves import FINE, least_epsilon
from fedsafe.privacy.accounting.losses import Pair, TooWideError, on_grid, pairs
from fedsafe.privacy.accounting.releases import SampledGaussian

# The interval over the deviation of one release's loss: rounding widens its variance by a 100th at most.
_INTERVAL = 0.2
_NARROWEST, _WIDEST = FINE, 0.02
_MOST_POINTS = 2**20
# Mass that truncation may move to an infinite loss, over delta.
_TAIL = 1e-6
# Below this delta, rounding in the transform would show.
_LEAST_DELTA = 1e-9
# Orders of the Chernoff bound that says where to truncate, over the width of one release.
_ORDERS = np.geomspace(0.3, 300.0, 10)


def rough_epsilon(release: SampledGaussian, delta: float) -> float:
    """Upper bound on epsilon at ``delta``.

    Args:
        release: Of any rate, noise and count.
        delta: Probability that the bound fails.
    """
    sampled = 0.0 < release.rate < 1.0 and release.count and release.noise
    if sampled and delta >= _LEAST_DELTA:
        try:
            ways = pairs(release)
            interval = min(max(_INTERVAL * ways[0].deviation(), _NARROWEST), _WIDEST)
            return max(_composed(pair, release.count, delta, interval) for pair in ways)
        except TooWideError:
            pass
    return account([release], delta).epsilon


def _composed(pair: Pair, count: int, delta: float, interval: float) -> float:
    first, masses, infinite = on_grid(pair, interval, _MOST_POINTS)
    tail = _TAIL * delta
    low, high = _window(masses, count, tail)
    if high - low > _MOST_POINTS:
        raise TooWideError(f"{count} releases have {high - low} points")
    from scipy.fft import irfft, next_fast_len, rfft

    # What lies outside of the window wraps around into it, and is counted once more as infinite: still a bound.
    length = next_fast_len(max(high - low + 1, masses.size), real=True)
    whole = np.roll(irfft(rfft(masses, length) ** count, length), -low)[: high - low + 1]
    whole = np.maximum(whole, 0.0)
    losses = (first * count + low + np.arange(whole.size)) * interval
    endless = tail - math.expm1(count * math.log1p(-infinite))

    def delta_at(epsilon: float) -> float:
        at = int(np.searchsorted(losses, epsilon, side="right"))
        return endless + float(np.dot(-np.expm1(epsilon - losses[at:]), whole[at:]))

    return least_epsilon(delta_at, delta, 2.0**20)


def _window(masses: np.ndarray, count: int, tail: float) -> tuple[int, int]:
    """Between which indices all but ``tail`` of the mass of the ``count``-fold sum lies."""
    indices = np.arange(masses.size)
    orders = np.concatenate((-_ORDERS, _ORDERS)) / masses.size
    logs = np.log(np.exp(np.multiply.outer(orders, indices)) @ masses)
    ends = (count * logs + math.log(2.0 / tail)) / orders
    low = max(0, math.floor(ends[: _ORDERS.size].max()))
    high = min((masses.size - 1) * count, math.ceil(ends[_ORDERS.size :].min()))
    return low, max(low, high)
