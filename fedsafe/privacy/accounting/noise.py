"""From a target to the noise that meets it."""

import math
from collections.abc import Callable
from functools import lru_cache

from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.privacy.accounting.accounted import epsilon
from fedsafe.privacy.accounting.curves import COARSE, FINE, GaussianCurve
from fedsafe.privacy.accounting.releases import Adjacency, Release, SampledGaussian

LEAST_NOISE = 0.3
MOST_NOISE = 1e5


def analytic_noise(target: float, delta: float) -> float:
    """The least noise multiplier of one Gaussian release that meets ``(target, delta)``.

    Over what the protected element moves; R releases need sqrt(R) times as much, and a replaced update, which moves the
    sum by twice the clip, twice as much over the clip. Source: Balle and Wang (2018), theorem 8.

    Args:
        target: Epsilon, zero or more.
        delta: Probability that the bound fails.

    Raises:
        ConfigError: The target is negative, or delta not a probability.
    """
    from scipy.optimize import brentq

    if not target >= 0.0 or not 0.0 < delta < 1.0:
        raise ConfigError(
            f"epsilon {target!r} at delta {delta!r} is no target: give epsilon >= 0 and 0 < delta < 1"
        )

    def excess(log_noise: float) -> float:
        return GaussianCurve(noise=math.exp(log_noise)).delta(target) - delta

    found = float(brentq(excess, math.log(1e-6), math.log(1e12), xtol=1e-13))
    while excess(found) > 0.0:
        found += 1e-13
    return math.exp(found)


@lru_cache(maxsize=256)
def calibrate_noise(
    target: float,
    delta: float,
    *,
    rate: float,
    count: int,
    adjacency: Adjacency = "zero-out",
    also: tuple[Release, ...] = (),
) -> float:
    """A noise multiplier whose epsilon does not exceed ``target``, and is within 0.5 % of it.

    Never below ``LEAST_NOISE``: the loss distribution of less noise is too wide to handle, and more noise than
    asked for is always sound.

    Args:
        target: Epsilon of the whole, what is in ``also`` included.
        delta: Probability that the bound fails.
        rate: Probability that the protected element takes part in one release.
        count: Number of releases.
        adjacency: What differs between neighbouring data sets.
        also: Further releases, whose noise is fixed already.

    Raises:
        CalibrationError: No noise up to 10^5 meets the target.
    """

    def of(noise: float) -> Release:
        return SampledGaussian(rate=rate, noise=noise, count=count, adjacency=adjacency)

    return least_noise(of, target, delta, also)


def least_noise(
    of: Callable[[float], Release],
    target: float,
    delta: float,
    also: tuple[Release, ...] = (),
    bound: Callable[..., float] = epsilon,
) -> float:
    """What :func:`calibrate_noise` does, for any release that noise decides.

    Args:
        of: The release with a noise multiplier.
        target: Epsilon of the whole.
        delta: Probability that the bound fails.
        also: Further releases, whose noise is fixed already.
        bound: Epsilon of a release, called as :func:`~fedsafe.privacy.accounting.epsilon` is.

    Raises:
        CalibrationError: No noise up to 10^5 meets the target.
    """
    from scipy.optimize import brentq

    def excess(log_noise: float, interval: float) -> float:
        found = bound(of(math.exp(log_noise)), delta, interval=interval, also=also)
        # Zero has no logarithm; a floor above the target would look like a miss.
        return math.log(max(found, min(1e-9, 1e-3 * target))) - math.log(target)

    if not target > 0.0:
        raise CalibrationError(f"no noise reaches epsilon {target:g}: ask for a positive one")
    if excess(math.log(LEAST_NOISE), COARSE) <= 0.0:
        return LEAST_NOISE
    low, high = _bracket(lambda log_noise: excess(log_noise, COARSE), target)
    rough = brentq(lambda x: excess(x, COARSE), low, high, xtol=1e-4)
    # The fine bound lies a little below the coarse one, at nearly the same slope: one step of Newton's method
    # spares most of the slow evaluations. What counts is the check that follows.
    slope = (excess(rough + 0.01, COARSE) - excess(rough - 0.01, COARSE)) / 0.02
    noise = round_up(math.exp(rough - excess(rough, FINE) / slope))
    while excess(math.log(noise), FINE) > 0.0:
        noise = round_up(noise * 1.0005)
    return noise


def _bracket(excess: Callable[[float], float], target: float) -> tuple[float, float]:
    low, high = math.log(0.5), math.log(2.0)
    while excess(high) > 0.0:
        low, high = high, high + math.log(2.0)
        if high > math.log(MOST_NOISE):
            raise CalibrationError(
                f"no noise multiplier up to 100000 reaches epsilon {target:g}; raise epsilon or delta, or plan "
                "fewer rounds"
            )
    while excess(low) <= 0.0:
        low, high = low - math.log(1.5), low
    return low, high


def round_up(value: float) -> float:
    """To four significant digits, so that a claim prints all of them."""
    digits = 3 - math.floor(math.log10(value))
    return float(math.ceil(value * 10**digits - 1e-9) / 10**digits)
