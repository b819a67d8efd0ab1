"""Exact samples of the discrete Gaussian: integer arithmetic on random words, and nothing else.

The algorithms are those of Canonne, Kamath and Steinke (2020), done for many samples at once: a discrete Laplace
variable is accepted with a probability that is the exponential of a rational number, and such an event is drawn from
events of rational probability. No floating-point number is involved, so a probability is never off by a rounding.

Rejection takes a random time: who can measure how long a client draws learns something about its noise (Jin et al.,
2022). Nobody is told that time in a simulation.
"""

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import CalibrationError
from fedsafe.privacy.mechanisms.grid import Grid
from fedsafe.rng import Stream

Events = NDArray[np.bool_]

# Up to here every product of the algorithm fits 63 bits.
MOST_DEVIATION = 2**24


def discrete_gaussian(stream: Stream, count: int, deviation: int) -> Grid:
    """``(count,)`` integers k, each with probability proportional to ``exp(-k^2 / (2 deviation^2))``.

    Source: Canonne, Kamath and Steinke (2020), algorithm 3.

    Args:
        stream: Of random words.
        count: How many.
        deviation: A whole number from 1 to 2^24; the standard deviation is never larger.

    Raises:
        CalibrationError: The deviation is not such a number.
    """
    if not 1 <= deviation <= MOST_DEVIATION or deviation != int(deviation):
        raise CalibrationError(
            f"a discrete Gaussian of deviation {deviation!r} cannot be drawn: it is a whole number from 1 to "
            f"{MOST_DEVIATION}; choose another grid"
        )
    deviation = int(deviation)
    found: Grid = np.empty(count, np.int64)
    filled = 0
    while filled < count:
        # More than half of all candidates are accepted.
        proposed = _discrete_laplace(stream, 2 * (count - filled) + 16, deviation + 1)
        distance = np.abs(np.abs(proposed) * (deviation + 1) - deviation**2)
        accepted = proposed[_exp_of_square(stream, distance, deviation * (deviation + 1))][: count - filled]
        found[filled : filled + len(accepted)] = accepted
        filled += len(accepted)
    return found


def _discrete_laplace(stream: Stream, candidates: int, scale: int) -> Grid:
    """Independent integers k with probability proportional to ``exp(-|k| / scale)``, at most ``candidates`` of them.

    Source: Canonne, Kamath and Steinke (2020), algorithm 2.
    """
    rest = _below(stream, candidates, scale)
    rest = rest[_exp(stream, rest, scale)]
    whole: Grid = np.zeros(len(rest), np.int64)
    climbing = np.arange(len(rest))
    while len(climbing):
        climbing = climbing[_exp(stream, np.ones(len(climbing), np.int64), 1)]
        whole[climbing] += 1
    size = rest + scale * whole
    negative = (stream.words(len(size)) & np.uint64(1)).astype(bool)
    signed = np.where(negative, -size, size)
    # Zero has one sign only.
    kept: Grid = signed[~(negative & (size == 0))]
    return kept


def _exp(stream: Stream, over: Grid, under: int) -> Events:
    """Events of probability ``exp(-over / under)``, each exponent at most 1 (algorithm 1)."""
    runs = np.ones(len(over), np.int64)
    active = np.arange(len(over))
    while len(active):
        active = active[_ratio(stream, over[active], under * runs[active])]
        runs[active] += 1
    happened: Events = runs % 2 == 1
    return happened


def _exp_of_square(stream: Stream, size: Grid, scale: int) -> Events:
    """Events of probability ``exp(-size^2 / (2 scale^2))``.

    Where the size exceeds the scale by up to 2^j, the event is that 4^j events of exponent at most 1/2 all happen; such
    an exponent over k is a product of two ratios with small parts, so that no square is ever computed.
    """
    wide = np.full(len(size), scale, np.int64)
    left = np.ones(len(size), np.int64)
    while (short := wide < size).any():
        wide[short] *= 2
        left[short] *= 4
    happened: Events = np.zeros(len(size), bool)
    runs = np.ones(len(size), np.int64)
    active = np.arange(len(size))
    while len(active):
        some = size[active]
        longer = _ratio(stream, some, wide[active]) & _ratio(stream, some, 2 * wide[active] * runs[active])
        runs[active[longer]] += 1
        ended = active[~longer]
        succeeded = ended[runs[ended] % 2 == 1]
        left[succeeded] -= 1
        runs[succeeded] = 1
        happened[succeeded[left[succeeded] == 0]] = True
        active = np.concatenate([active[longer], succeeded[left[succeeded] > 0]])
    return happened


def _ratio(stream: Stream, over: Grid, under: Grid) -> Events:
    """Events of probability ``over / under``, exactly; ``0 <= over <= under < 2^63``."""
    divisor = under.astype(np.uint64)
    share = np.uint64(2**64 - 1) // divisor
    happened: Events = _words_below(stream, share * divisor) < over.astype(np.uint64) * share
    return happened


def _below(stream: Stream, count: int, bound: int) -> Grid:
    """``(count,)`` uniform integers from 0 up to but not including ``bound``."""
    share = np.uint64((2**64 - 1) // bound)
    words = _words_below(stream, np.full(count, share * np.uint64(bound)))
    return (words // share).astype(np.int64)


def _words_below(stream: Stream, limits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Uniform words, each below its limit: those that are not are drawn again."""
    words = stream.words(len(limits))
    beyond = np.flatnonzero(words >= limits)
    while len(beyond):
        words[beyond] = stream.words(len(beyond))
        beyond = beyond[words[beyond] >= limits[beyond]]
    return words
