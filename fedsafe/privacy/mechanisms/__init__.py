"""Mechanisms: how noise is drawn and added, and nothing about what it costs.

Each file is one idea: the Gaussian mechanism on a grid, adaptive clipping, correlated noise, and the parts of
distributed privacy (a rotation, rounding at random, shares of noise on whole numbers, sums modulo a power of two).
"""

from fedsafe.privacy.mechanisms.adaptive_clip import (
    indicator_noise_for,
    next_clip,
    noise_of_sum,
    noisy_share,
    within_clip,
)
from fedsafe.privacy.mechanisms.banded import (
    correlated,
    inverse_coefficients,
    largest_deviation,
    square_root_coefficients,
)
from fedsafe.privacy.mechanisms.discrete_gaussian import discrete_gaussian
from fedsafe.privacy.mechanisms.distributed import LAWS, DistributedMechanism, Law
from fedsafe.privacy.mechanisms.grid import Grid, from_grid, gaussian_on_grid, grid_bits, to_grid
from fedsafe.privacy.mechanisms.modular import finest_bits, overflow_probability, wrap
from fedsafe.privacy.mechanisms.rotation import rotate, rotate_back, rotated_length
from fedsafe.privacy.mechanisms.rounding import round_at_random, rounded_norm, rounded_sum
from fedsafe.privacy.mechanisms.skellam import skellam, skellam_probabilities

__all__ = [
    "LAWS",
    "DistributedMechanism",
    "Grid",
    "Law",
    "correlated",
    "discrete_gaussian",
    "finest_bits",
    "from_grid",
    "gaussian_on_grid",
    "grid_bits",
    "indicator_noise_for",
    "inverse_coefficients",
    "largest_deviation",
    "next_clip",
    "noise_of_sum",
    "noisy_share",
    "overflow_probability",
    "rotate",
    "rotate_back",
    "rotated_length",
    "round_at_random",
    "rounded_norm",
    "rounded_sum",
    "skellam",
    "skellam_probabilities",
    "square_root_coefficients",
    "to_grid",
    "within_clip",
    "wrap",
]
