"""The last value that still meets a target, of something that costs more the more there is of it."""

import math
from collections.abc import Callable

from fedsafe.errors import CalibrationError
from fedsafe.privacy.accounting import COARSE, FINE

# Epsilon at a value, at an interval of the accountant. The coarse one is faster, and never below the fine one.
Cost = Callable[[float, float], float]

MOST = 10**8


def largest_count(cost: Cost, target: float, most: int = MOST) -> int:
    """The largest whole number from 1 to ``most`` whose cost does not exceed ``target``.

    Args:
        cost: Never falls in its first argument.
        target: Epsilon.
        most: Where to stop.

    Raises:
        CalibrationError: Even 1 costs more.
    """
    found = _gallop(lambda n: cost(n, COARSE) <= target, 0, most, max(1, most // MOST))
    # The coarse figure lies above: a few more may fit.
    found = _gallop(lambda n: cost(n, FINE) <= target, found, most, max(1, found // 1000))
    if found == 0:
        raise CalibrationError(f"even one costs epsilon {cost(1, FINE):.4g}, more than {target:g}")
    return found


def least_count(cost: Cost, target: float, least: int, most: int = MOST) -> int:
    """The smallest whole number from ``least`` to ``most`` whose cost does not exceed ``target``.

    Args:
        cost: Never rises in its first argument.
        target: Epsilon.
        least: Where to start.
        most: Where to stop.

    Raises:
        CalibrationError: Even ``most`` costs more.
    """
    if cost(least, FINE) <= target:
        return least
    if cost(most, COARSE) > target:
        raise CalibrationError(f"even {most} cost epsilon {cost(most, FINE):.4g}, more than {target:g}")
    low, found = least, most
    while found - low > max(1.0, 1e-4 * low):
        middle = min(max(math.isqrt(low * found), low + 1), found - 1)
        low, found = (low, middle) if cost(middle, COARSE) <= target else (middle, found)
    # Downward, at the fine interval: what costs a little less may still fit.
    gained = _gallop(lambda n: cost(found - n, FINE) <= target, 0, found - least - 1, max(1, found // 1000))
    return found - gained


def largest_rate(cost: Cost, target: float) -> float:
    """The largest rate up to 1, to four digits, whose cost does not exceed ``target``.

    Args:
        cost: Never falls in its first argument.
        target: Epsilon.

    Raises:
        CalibrationError: Even 10^-8 costs more.
    """
    if cost(1.0, FINE) <= target:
        return 1.0
    low, high = math.log(1e-8), 0.0
    if cost(1e-8, COARSE) > target:
        raise CalibrationError(
            f"even a rate of 1e-08 costs epsilon {cost(1e-8, FINE):.4g}, more than {target:g}"
        )
    while high - low > 2e-4:
        middle = (low + high) / 2.0
        low, high = (low, middle) if cost(math.exp(middle), COARSE) > target else (middle, high)
    rate = _round_down(math.exp(low))
    step = 1.001
    while cost(rate, FINE) > target:
        rate = _round_down(rate / step)
    while cost(_round_down(rate * step), FINE) <= target:
        rate = _round_down(rate * step)
    return rate


def _gallop(fits: Callable[[int], bool], start: int, most: int, step: int) -> int:
    """The largest n from ``start`` to ``most`` that fits, if ``start`` does and everything below one that fits does."""
    low, high = start, most + 1
    while low + step < high:
        if not fits(low + step):
            high = low + step
            break
        low += step
        step *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _round_down(value: float) -> float:
    digits = 3 - math.floor(math.log10(value))
    return float(math.floor(value * 10**digits + 1e-9) / 10**digits)
