"""The sensitivity of banded matrix factorisations: what one client moves over all the rounds that it takes part in.

With it, all rounds together are one Gaussian release: noise z of standard deviation ``noise * sensitivity * clip`` on
``C x`` is accounted as ``SampledGaussian(rate=1.0, noise=noise, count=1)``, for anyone who sees every release and every
cohort, and although each round's updates depend on the releases before (Denisov et al., 2022).
"""

import math
from collections.abc import Sequence

from fedsafe.errors import CalibrationError


def banded_sensitivity(
    coefficients: Sequence[float], *, rounds: int, separation: int, participations: int
) -> float:
    """The largest norm of ``C x`` over all that a client may contribute, for updates of norm at most 1.

    A client takes part at most ``participations`` times, and any two of its rounds are at least ``separation`` apart.
    As that is no less than the number of bands, no two of its columns of C meet in a row: their squares add up,
    whatever the updates are (Choquette-Choo et al., 2023). Columns only get shorter towards the last round, where they
    are cut off, so the earliest rounds that the separation allows are the worst.

    Args:
        coefficients: First column of the lower-triangular Toeplitz matrix C, its bands.
        rounds: The most releases.
        separation: b, the least distance of two rounds with the same client: 1 for clients that may be in each.
        participations: k, the most rounds with the same client.

    Raises:
        CalibrationError: A client may come back before its noise has passed: the columns meet.
    """
    bands = len(coefficients)
    if separation < bands:
        raise CalibrationError(
            f"{bands} bands need clients to stay away for {bands} rounds, and they may be back after {separation}: "
            "use as many bands as that, or a larger separation"
        )
    times = min(participations, -(-rounds // separation))
    squares = [
        math.fsum(value**2 for value in coefficients[: rounds - time * separation]) for time in range(times)
    ]
    return math.sqrt(math.fsum(squares))
