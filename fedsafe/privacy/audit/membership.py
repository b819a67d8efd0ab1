"""A lower bound on epsilon from the error rates of one membership test (Jagielski, Ullman and Oprea 2020)."""

import math

from fedsafe.errors import ConfigError
from fedsafe.findings.intervals import clopper_pearson

ASSUMPTION = "the canaries' scores are independent of each other, which within one run they are only nearly"


def membership_epsilon(
    *,
    true_positives: int,
    members: int,
    false_positives: int,
    others: int,
    delta: float,
    confidence: float = 0.95,
) -> float:
    """What the rates of a fixed test prove, by exact intervals (Clopper and Pearson 1934); 0 if nothing.

    Under (epsilon, delta)-differential privacy every test has ``TPR <= exp(epsilon) FPR + delta`` and
    ``TNR <= exp(epsilon) FNR + delta`` (Kairouz, Oh and Viswanath 2015). A bound where trials are independent: one run
    for each trial, or :data:`ASSUMPTION`.

    Args:
        true_positives: Members that the test calls so.
        members: Members.
        false_positives: Others that the test calls members.
        others: Others.
        delta: Of the claim.
        confidence: That both rates lie in their intervals, in (0, 1).

    Raises:
        ConfigError: More positives than there are, or delta or confidence is outside its range.
    """
    if not 0.0 <= delta < 1.0:
        raise ConfigError(f"delta is {delta!r}: use a number in [0, 1)")
    # Two-sided at the confidence: each end that is used fails with half of what is left.
    found = clopper_pearson(true_positives, members, confidence)[0]
    mistaken = clopper_pearson(false_positives, others, confidence)[1]
    best = 0.0
    for rate, error in ((found, mistaken), (1.0 - mistaken, 1.0 - found)):
        if rate > delta:
            best = max(best, math.log((rate - delta) / error))
    return best
