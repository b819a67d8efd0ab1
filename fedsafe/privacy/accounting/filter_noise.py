"""The noise that a Rényi filter pays for: an order for a budget, and multipliers that spend so much."""

import math
from collections.abc import Callable
from functools import lru_cache

from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.privacy.accounting.releases import SampledGaussian
from fedsafe.privacy.accounting.renyi import RenyiCurve, renyi, renyi_curve

_LEAST, _MOST = 0.3, 1e5
# What a sum over many releases may lose by rounding, many times over.
_ROOM = 1e-9
# Whole orders alone: there the moment is a finite sum, where a broken order needs a series that may not converge.
_ORDERS = (*map(float, range(2, 65)), *(80.0, 96.0, 128.0, 192.0, 256.0, 512.0, 1024.0))


@lru_cache(maxsize=64)
def order_for(epsilon: float, delta: float, *, rate: float, count: int) -> float:
    """The order at which a budget pays for the least noise, if all releases have the same.

    It is a guess about the run, made before it: where the run turns out otherwise it costs noise, never privacy.

    Args:
        epsilon: What may be spent, all told.
        delta: Probability that the bound fails.
        rate: Of Poisson cohorts.
        count: The most releases.

    Raises:
        CalibrationError: No noise meets the budget.
    """

    def curve(noise: float) -> RenyiCurve:
        return renyi_curve([SampledGaussian(rate=rate, noise=noise, count=count)], _ORDERS)

    noise = _least(lambda noise: curve(noise).epsilon(delta) <= epsilon, 1e-3)
    if curve(noise).epsilon(delta) > epsilon:
        raise CalibrationError(
            f"no noise multiplier up to {_MOST:g} keeps {count} releases of rate {rate:g} inside epsilon {epsilon:g} "
            f"at delta {delta:g}, counted by Rényi divergence: raise epsilon or delta, or plan fewer rounds"
        )
    return curve(noise).order(delta)


def require_whole(order: float) -> float:
    """An order at which the cost of every release can be found.

    Raises:
        ConfigError: It is no whole number from 2 to 1024.
    """
    if isinstance(order, bool) or not isinstance(order, int | float) or not 2 <= order <= _ORDERS[-1]:
        raise ConfigError(f"the order of a Rényi filter is {order!r}: give a whole number from 2 to 1024")
    if order != int(order):
        raise ConfigError(
            f"the order of a Rényi filter is {order!r}: give a whole number, such as {round(order)}"
        )
    return float(order)


def noise_that_costs(divergence: float, *, order: float, rate: float, count: int = 1) -> float:
    """The least noise multiplier, from 0.3 on, at which releases cost no more than a divergence together.

    Args:
        divergence: At ``order``.
        order: Of the filter.
        rate: Of Poisson cohorts.
        count: Releases with this noise.

    Returns:
        The multiplier; infinite where none up to 1e5 is enough.
    """
    limit = divergence * (1.0 - _ROOM)

    def affordable(noise: float) -> bool:
        cost = float(renyi(SampledGaussian(rate=rate, noise=noise, count=1), (order,))[0])
        return count * cost <= limit

    noise = _least(affordable, 1e-12)
    return noise if affordable(noise) else math.inf


def _least(affordable: Callable[[float], bool], tolerance: float) -> float:
    """The least that is affordable, by bisection of the logarithm; the largest of all where none is."""
    low, high = math.log(_LEAST), math.log(_MOST)
    if affordable(_LEAST):
        return _LEAST
    while high - low > tolerance:
        middle = (low + high) / 2.0
        low, high = (low, middle) if affordable(math.exp(middle)) else (middle, high)
    return math.exp(high)
