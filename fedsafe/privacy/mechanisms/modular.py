"""Sums modulo a power of two, as secure aggregation computes them, and how many bits they need."""

import math

import numpy as np

from fedsafe.privacy.mechanisms.grid import Grid

# Standard deviations of the noise in the sum that the modulus leaves room for.
_ROOM = 10.0


def wrap(values: Grid, bits: int) -> Grid:
    """Values modulo ``2^bits``, from ``-2^(bits-1)`` up to but not including ``2^(bits-1)``; bits is at most 62.

    Two wrapped values can be added without overflow, so a sum that is wrapped after each addition is exact.
    """
    half, mask = np.int64(1 << (bits - 1)), np.int64((1 << bits) - 1)
    return ((values + half) & mask) - half


def finest_bits(modulus: int, *, clip: float, clients: int, noise: float, honest: int) -> int:
    """The finest grid ``2^-bits`` on which a sum of all clients fits ``2^modulus``, however their updates lie.

    The sum of ``clients`` updates is at most ``clients * clip`` in any value, and the noise of as many shares is below
    ten standard deviations but for a probability that :func:`overflow_probability` bounds. A value that wraps around
    spoils the model and costs no privacy.

    Args:
        modulus: Bits of the sum.
        clip: Bound on one client's norm.
        clients: The most that can be summed.
        noise: Deviation, over ``clip``, of the noise of ``honest`` clients.
        honest: Clients whose shares are counted on.
    """
    largest = clip * (clients + _ROOM * noise * math.sqrt(clients / honest))
    # A hundredth is left for what rounding adds to the clip.
    return math.floor(modulus - 1 - math.log2(1.01 * largest))


def overflow_probability(
    modulus: int, *, bound: float, clients: int, share: float, values: int, heavy: bool
) -> float:
    """Upper bound on the probability that any value of the noisy sum leaves ``2^modulus``.

    Chernoff's bound and the union over values. The discrete Gaussian is as concentrated as the continuous one (Canonne
    et al., 2020, corollary 17); a Skellam variable of variance v has ``E exp(t X) = exp(v (cosh t - 1))``.

    Args:
        modulus: Bits of the sum.
        bound: On one client's contribution to a value, in units of the grid.
        clients: How many are summed.
        share: Deviation of one client's noise.
        values: How many are summed at once.
        heavy: Whether the noise is Skellam.
    """
    room = 2.0 ** (modulus - 1) - 1.0 - clients * bound
    if room <= 0.0:
        return 1.0
    variance = clients * share**2
    if heavy:
        # hypot(room, variance) - variance, without losing what is left of it.
        rest = room**2 / (math.hypot(room, variance) + variance)
        exponent = room * math.asinh(room / variance) - rest
    else:
        exponent = room**2 / (2.0 * variance)
    return min(1.0, 2.0 * values * math.exp(-exponent))
