"""The one-run audit against a whole trade-off curve (Mahloujifar, Melis and Chaudhuri 2024).

The claim that is tested is not one (epsilon, delta) but that the mechanism is as private as a Gaussian one: if that
family is right for what was run, the bound is about twice as high. If it is not, nothing is proved: a bound *under the
hypothesis*, which is printed with it.
"""

import math

from scipy import optimize, special

from fedsafe.privacy.audit.one_run import _alpha, _check, largest_refuted

HYPOTHESIS = "the trade-off curve is that of a Gaussian mechanism"


def gaussian_one_run_epsilon(
    right: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95
) -> float:
    """The largest epsilon at ``delta`` of a Gaussian mechanism that so many right guesses refute; 0 if none.

    Source: Mahloujifar, Melis and Chaudhuri (2024), algorithm 3, for guesses with abstention.

    Args:
        right: Right guesses.
        guesses: Guesses; how many is fixed before the run.
        canaries: Canaries.
        delta: At which the refuted mechanism's epsilon is told; above 0.
        confidence: One-sided, in (0, 1).

    Raises:
        ConfigError: Not 0 <= right <= guesses <= canaries, or delta or confidence is outside its range.
    """
    _check(right, guesses, canaries, delta)
    alpha = _alpha(confidence)
    if not right or delta == 0.0:
        return 0.0

    def excess(epsilon: float) -> float:
        return -_contradiction(right, guesses, canaries, gaussian_mu(epsilon, delta), alpha)

    return largest_refuted(excess)


def _contradiction(right: int, guesses: int, canaries: int, mu: float, alpha: float) -> float:
    """Above zero where ``right`` or more right guesses have a probability below ``alpha`` under mu-GDP.

    If they had probability ``alpha`` or more, the probabilities of fewer right guesses would follow from the trade-off
    curve one after the other, and must not add up to more than there is.
    """
    in_tail = alpha * right / canaries
    wrong = alpha * (guesses - right) / canaries
    for count in range(right - 1, -1, -1):
        more = max(wrong, float(special.ndtr(special.ndtri(in_tail) - mu)))
        if more == wrong:
            break  # neither changes any more
        in_tail = min(1.0, in_tail + count / (guesses - count) * (more - wrong))
        wrong = more
    return in_tail + wrong - guesses / canaries


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The mu of Gaussian differential privacy that is exactly (epsilon, delta) (Balle and Wang 2018).

    Args:
        epsilon: Not below 0.
        delta: In (0, 1).
    """

    def excess(log_mu: float) -> float:
        mu = math.exp(log_mu)
        far = float(special.log_ndtr(-mu / 2.0 - epsilon / mu))
        return float(special.ndtr(mu / 2.0 - epsilon / mu)) - math.exp(min(700.0, epsilon + far)) - delta

    return math.exp(float(optimize.brentq(excess, math.log(1e-8), math.log(1e4), xtol=1e-10)))
