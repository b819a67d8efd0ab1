"""Samples of the symmetric Skellam law: the difference of two Poisson variables of equal means.

Instead of two Poisson variables, their difference is drawn by inversion of its own law. The table of tail
probabilities is built from ratios of Bessel functions by a recursion that only adds positive numbers, and is read with
a uniform variable that keeps 53 bits at every size down to 2^-128. So each value k has its probability up to a factor
within ``1 ± 2^-49 deviation``, far out in the tail as well as in the middle, and what lies beyond the table has a
probability below 2^-128: d values add no more than ``2^-48 deviation d`` to a privacy loss.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import CalibrationError
from fedsafe.privacy.mechanisms.grid import Grid
from fedsafe.rng import Stream

# The table takes 14 values for each unit of the deviation.
MOST_DEVIATION = 2**16


def skellam(stream: Stream, count: int, deviation: float) -> Grid:
    """``(count,)`` differences of two Poisson variables of mean ``deviation^2 / 2`` each.

    Sums of such variables have the same law, with the sum of their variances (Agarwal et al., 2021).

    Args:
        stream: Of random words.
        count: How many.
        deviation: Standard deviation, above 0 and at most 2^16.

    Raises:
        CalibrationError: The deviation is not such a number.
    """
    if not 0.0 < deviation <= MOST_DEVIATION:
        raise CalibrationError(
            f"a Skellam variable of deviation {deviation!r} cannot be drawn: it is above 0 and at most "
            f"{MOST_DEVIATION}; choose another grid"
        )
    tails = _tails(float(deviation))
    words = stream.words(2 * count)
    high, low = words[:count].astype(np.float64), words[count:].astype(np.float64)
    uniform = (high + (low + 1.0) * 2.0**-64) * 2.0**-64
    size = len(tails) - np.searchsorted(tails, uniform, side="left")
    flips = np.unpackbits(stream.words(-(-count // 64)).view(np.uint8))[:count].astype(bool)
    return np.where(flips, -size, size).astype(np.int64)


def skellam_probabilities(deviation: float) -> NDArray[np.float64]:
    """Probabilities of 0, 1, 2, ... (and of -1, -2, ...), ``exp(-v) I_k(v)`` for the variance v.

    ``I_(k-1) / I_k = 2 k / v + I_(k+1) / I_k``, downwards from where nothing is left (Amos, 1974).
    """
    variance = deviation**2
    last = int(np.ceil(14.0 * deviation)) + 60
    # What the recursion starts from is forgotten before its results are used.
    start = last + int(np.ceil(4.0 * deviation)) + 60
    ratio = variance / (start + float(np.hypot(start, variance)))
    ratios = np.empty(last)
    for order in range(start, 0, -1):
        ratio = 1.0 / (2.0 * order / variance + ratio)
        if order <= last:
            ratios[order - 1] = ratio
    relative = np.concatenate([[1.0], np.cumprod(ratios)])
    probabilities: NDArray[np.float64] = relative / (2.0 * relative[:0:-1].sum() + 1.0)
    return probabilities


@functools.lru_cache(maxsize=4)
def _tails(deviation: float) -> NDArray[np.float64]:
    """Probabilities that the size exceeds k, ascending: for the largest k first, added up from there."""
    return 2.0 * np.cumsum(skellam_probabilities(deviation)[:0:-1])
