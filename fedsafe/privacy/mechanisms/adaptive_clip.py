"""Adaptive clipping: the clip follows a quantile of the updates' norms, which is released with noise of its own.

Each client adds one indicator, whether its update was within the clip; the noisy share of those that were moves the
clip of the next round. Update and indicator are one Gaussian query, so the whole step is accounted as one release
with the noise multiplier that the plan names (Andrew et al., 2021).
"""

import math

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import CalibrationError
from fedsafe.privacy.mechanisms.grid import Grid, gaussian_on_grid, grid_bits
from fedsafe.rng import Stream

# So many clients fit the sum of indicators on its grid.
_MOST_CLIENTS = 2**22
# Of the noise multiplier: the indicators' share then makes the noise of the sum 6 % larger.
_LEAST_SHARE = 1.5


def indicator_noise_for(noise: float, cohort: float) -> float:
    """Standard deviation of the noise on the sum of indicators: a twentieth of the cohort.

    That is the published choice. In a small cohort it would leave no noise multiplier for the sum of updates, so it
    is never less than 1.5 times ``noise``.

    Args:
        noise: Noise multiplier of the whole step.
        cohort: Expected cohort.
    """
    return max(cohort / 20.0, _LEAST_SHARE * noise)


def noise_of_sum(noise: float, indicator_noise: float) -> float:
    """Noise multiplier z_D of the sum of updates, ``(z^-2 - (2 s_b)^-2)^-1/2``.

    A client moves the sum of centred indicators by 1/2 and that of updates by the clip: both together are one Gaussian
    with multiplier z (Andrew et al., 2021, theorem 1).

    Args:
        noise: z, of the whole step; 0 for none.
        indicator_noise: s_b, standard deviation of the noise on the sum of indicators.

    Raises:
        CalibrationError: The indicators alone would spend more than the whole step may.
    """
    if noise == 0.0:
        return 0.0
    rest = noise**-2 - (2.0 * indicator_noise) ** -2 if indicator_noise > 0.0 else -math.inf
    if rest <= 0.0:
        raise CalibrationError(
            f"indicator_noise = {indicator_noise:g} spends all of noise multiplier {noise:g}: "
            f"raise it above {noise / 2.0:g}"
        )
    return float(rest**-0.5)


def within_clip(rows: NDArray[np.float64], clip: float) -> NDArray[np.int64]:
    """For each row twice its centred indicator: 1 within the clip, -1 beyond it, 0 for a zeroed client.

    A client whose update is not finite, or is zero, has nothing to say about norms.

    Args:
        rows: ``(rows, parameters)`` updates, as trained.
        clip: The clip of this round.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.square(rows).sum(axis=1))
    speaks = np.isfinite(rows).all(axis=1) & rows.any(axis=1)
    signs = np.where(norms <= clip, 1, -1)
    return np.where(speaks, signs, 0).astype(np.int64)


def noisy_share(balance: int, *, indicator_noise: float, cohort: float, stream: Stream) -> float:
    """The noisy share of clients within the clip, ``(sum(b - 1/2) + N(0, s_b^2)) / m + 1/2``; one draw.

    The sum is noised on a grid of its own. The divisor is public, and an absent client counts as half.

    Args:
        balance: Clients within the clip less those beyond it.
        indicator_noise: s_b.
        cohort: m, the expected cohort.
        stream: Of the release.
    """
    bits = grid_bits(1.0, _MOST_CLIENTS, max(1.0, indicator_noise))
    halves: Grid = np.array([balance << (bits - 1)], np.int64)
    noisy = gaussian_on_grid(halves, indicator_noise, bits, stream)
    return float(np.ldexp(float(noisy[0]), -bits)) / cohort + 0.5


def next_clip(
    clip: float, share: float, *, pace: float, quantile: float, bounds: tuple[float, float]
) -> float:
    """``C exp(-pace (share - quantile))``, within public bounds.

    Too many within the clip make it smaller; post-processing of the noisy share (Andrew et al., 2021, algorithm 1).

    Args:
        clip: Of this round.
        share: Noisy share of the clients within it.
        pace: eta, how fast the clip moves.
        quantile: gamma, the share that is aimed at.
        bounds: The least and the largest clip.
    """
    # Noise in a small cohort can be any number: what the bounds would cut off need not overflow.
    step = min(50.0, max(-50.0, -pace * (share - quantile)))
    return min(bounds[1], max(bounds[0], clip * math.exp(step)))
