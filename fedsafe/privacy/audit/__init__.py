"""Lower bounds and estimates of epsilon from what an attack guessed: pure statistics, which know nothing of training.

A *bound* holds with its confidence for the mechanism that was run. An *estimate* may lie on either side of the truth.
"""

from fedsafe.privacy.audit.cosine import (
    CosineEstimate,
    cosine_bound,
    cosine_estimate,
    paired_cosine_estimate,
    two_gaussians_epsilon,
)
from fedsafe.privacy.audit.gaussian_one_run import gaussian_one_run_epsilon
from fedsafe.privacy.audit.membership import membership_epsilon
from fedsafe.privacy.audit.one_run import (
    GUESSES,
    OneRunBound,
    one_run_bound,
    one_run_epsilon,
    one_run_p_value,
    right_guesses,
)

__all__ = [
    "GUESSES",
    "CosineEstimate",
    "OneRunBound",
    "cosine_bound",
    "cosine_estimate",
    "gaussian_one_run_epsilon",
    "membership_epsilon",
    "one_run_bound",
    "one_run_epsilon",
    "one_run_p_value",
    "paired_cosine_estimate",
    "right_guesses",
    "two_gaussians_epsilon",
]
