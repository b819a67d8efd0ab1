"""Epsilon along a plan."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from fedsafe.privacy.accounting.accounted import epsilon
from fedsafe.privacy.accounting.curves import COARSE, FINE
from fedsafe.privacy.accounting.releases import Release

CURVE_POINTS = 50


def spending_curve(
    mechanism: Release,
    delta: float,
    counts: Sequence[int],
    also: Callable[[int], tuple[Release, ...]] = lambda count: (),
) -> list[float]:
    """Upper bounds on epsilon after each of ``counts`` releases, never above the plan's own figure.

    At most ``CURVE_POINTS`` horizons are composed, at the coarse interval; a count between two of them gets the
    figure of the larger, which bounds it.

    Args:
        mechanism: The whole plan's mechanism.
        delta: Probability that the bound fails.
        counts: Numbers of releases, ascending.
        also: What else is released by then; more for a larger count.
    """
    ceiling = epsilon(mechanism, delta, FINE, also(mechanism.count))
    distinct = sorted(set(counts))
    horizons = distinct[:: -max(1, len(distinct) // CURVE_POINTS)][::-1]
    bounds = [
        min(ceiling, epsilon(replace(mechanism, count=count), delta, COARSE, also(count)))
        for count in horizons
    ]
    return [bounds[bisect_left(horizons, count)] for count in counts]
