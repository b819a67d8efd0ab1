"""Two answers to the same questions: how much more often one of them is right, and whether that is chance."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fedsafe.errors import ConfigError
from fedsafe.findings.intervals import Interval, wilson


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """How often two models hold on the same examples.

    Attributes:
        both: Examples on which both hold.
        first: Examples on which the first alone holds.
        second: Examples on which the second alone holds.
        neither: Examples on which none holds.

    Raises:
        ConfigError: A count is negative.
    """

    both: int
    first: int
    second: int
    neither: int

    def __post_init__(self) -> None:
        if min(self.both, self.first, self.second, self.neither) < 0:
            raise ConfigError(f"pairs are counted from 0: {self}")

    @classmethod
    def of(cls, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> "Pairs":
        """Counts ``(n,)`` flags of the one and of the other, example by example."""
        return cls(
            both=int(np.sum(first & second)),
            first=int(np.sum(first & ~second)),
            second=int(np.sum(~first & second)),
            neither=int(np.sum(~first & ~second)),
        )

    @property
    def n(self) -> int:
        """Number of examples."""
        return self.both + self.first + self.second + self.neither

    @property
    def difference(self) -> float:
        """Share of the first less that of the second; there is an example at least."""
        return (self.first - self.second) / self.n

    @property
    def counts(self) -> list[int]:
        """All four, in the order of the attributes."""
        return [self.both, self.first, self.second, self.neither]


def mcnemar(pairs: Pairs) -> float:
    """Exact two-sided p-value of "both are right equally often" (McNemar, 1947; binomial form).

    Args:
        pairs: The counts; without an example on which the two differ the value is 1.
    """
    differ = pairs.first + pairs.second
    if differ == 0:
        return 1.0
    return min(1.0, 2.0 * float(special.bdtr(min(pairs.first, pairs.second), differ, 0.5)))


def paired_newcombe(pairs: Pairs, confidence: float = 0.95) -> Interval:
    """Interval of a difference of shares of the same examples (Newcombe, 1998, for paired data, method 10).

    Two Wilson intervals, combined with the correlation of the pairs, which is corrected for continuity.

    Args:
        pairs: The counts, of one example at least.
        confidence: Two-sided confidence, in (0, 1).

    Raises:
        ConfigError: There is no example, or a bad confidence.
    """
    n = pairs.n
    if n == 0:
        raise ConfigError("a difference of shares needs at least 1 pair")
    one, two = pairs.both + pairs.first, pairs.both + pairs.second
    (low_one, high_one), (low_two, high_two) = wilson(one, n, confidence), wilson(two, n, confidence)
    share_one, share_two, phi = one / n, two / n, _correlation(pairs, one, two)
    down, up = share_one - low_one, high_one - share_one
    other_down, other_up = share_two - low_two, high_two - share_two
    below = math.sqrt(max(0.0, down**2 - 2 * phi * down * other_up + other_up**2))
    above = math.sqrt(max(0.0, up**2 - 2 * phi * up * other_down + other_down**2))
    return pairs.difference - below, pairs.difference + above


def _correlation(pairs: Pairs, one: int, two: int) -> float:
    """Of the two answers, brought nearer to 0 where it is positive; 0 where one of them never changes."""
    margins = one * (pairs.n - one) * two * (pairs.n - two)
    if margins == 0:
        return 0.0
    cross = float(pairs.both * pairs.neither - pairs.first * pairs.second)
    if cross > 0:
        cross = max(cross - pairs.n / 2, 0.0)
    return cross / math.sqrt(margins)
