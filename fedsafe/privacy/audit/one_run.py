"""A lower bound on epsilon from one run (Steinke, Nasr and Jagielski 2023): guess which canaries were in it.

Each canary is in the run with probability one half, by a coin of its own. Whoever sees what was released guesses for
some canaries whether they were in, and abstains for the others. Under (epsilon, delta)-differential privacy the right
guesses are hardly more than a binomial count with probability ``1 / (1 + exp(-epsilon))``: canaries need not be
independent in what they do to the output, only in their coins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from fedsafe.errors import ConfigError

# Shares of the canaries with the highest scores that are guessed in, and with the lowest that are guessed out. Fixed,
# so that the confidence can be divided by how many are tried. Few right guesses are proof of a leak that some canaries
# suffer; many are the better proof of one that all do.
GUESSES: tuple[tuple[float, float], ...] = (
    (0.05, 0.0),
    (0.1, 0.0),
    (0.2, 0.0),
    (0.4, 0.0),
    (0.45, 0.45),
)

_LARGEST = 500.0  # an epsilon that nobody distinguishes from infinity
_TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class OneRunBound:
    """What one run proves.

    Args:
        epsilon: With this confidence, what was run is not (e, delta)-differentially private for any e below.
        delta: Of the statement.
        confidence: Of the statement, after all ways of guessing that were tried.
        canaries: How many coins were thrown.
        guesses: How many were guessed, in the way of guessing that proves most.
        right: How many of these were right.
        tried: How many ways of guessing shared the confidence.
    """

    epsilon: float
    delta: float
    confidence: float
    canaries: int
    guesses: int
    right: int
    tried: int


def one_run_p_value(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Largest probability of so many right guesses under (epsilon, delta)-differential privacy.

    Source: Steinke, Nasr and Jagielski (2023), theorem 5.2:
    ``P[W >= v] + 2 m delta max_i (P[W >= v - i] - P[W >= v]) / i`` with ``W ~ Binomial(r, 1 / (1 + exp(-epsilon)))``.

    Args:
        right: Right guesses, v.
        guesses: Guesses, r; how many is fixed before, not which.
        canaries: Canaries, m, those for which nobody guessed included.
        epsilon: Of the claim that is tested.
        delta: Of the claim that is tested.

    Raises:
        ConfigError: Not 0 <= right <= guesses <= canaries, or delta outside [0, 1).
    """
    _check(right, guesses, canaries, delta)
    share = float(special.expit(epsilon))
    tail = float(_at_least(np.array(right), guesses, share))
    if delta == 0.0 or right == 0:
        return tail
    fewer = np.arange(1, right + 1)
    excess = (_at_least(right - fewer, guesses, share) - tail) / fewer
    return min(1.0, tail + 2.0 * canaries * delta * max(0.0, float(excess.max())))


def one_run_epsilon(right: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that so many right guesses refute; 0 if they refute none.

    Args:
        right: Right guesses.
        guesses: Guesses; how many is fixed before the run.
        canaries: Canaries.
        delta: Of the claim.
        confidence: One-sided, in (0, 1).

    Raises:
        ConfigError: Not 0 <= right <= guesses <= canaries, or delta or confidence is outside its range.
    """
    _check(right, guesses, canaries, delta)
    alpha = _alpha(confidence)

    def excess(epsilon: float) -> float:
        return one_run_p_value(right, guesses, canaries, epsilon, delta) - alpha

    return largest_refuted(excess)


def largest_refuted(excess: Callable[[float], float]) -> float:
    """Where a test stops refuting, as epsilon grows: never above, and within ``3e-8``; 0 if it refutes nothing.

    Args:
        excess: A function of epsilon, not above zero where epsilon is refuted.
    """
    low, high = 0.0, 1.0
    if excess(low) > 0.0:
        return 0.0
    while excess(high) <= 0.0:
        low, high = high, 2.0 * high
        if high > _LARGEST:
            return low
    root = float(optimize.brentq(excess, low, high, xtol=_TOLERANCE))
    return max(low, root - 2.0 * _TOLERANCE)


def right_guesses(scores: NDArray[np.float64], included: NDArray[np.bool_], first: int, last: int) -> int:
    """How many are right if the ``first`` highest scores are guessed in and the ``last`` lowest out."""
    order = np.argsort(-scores, kind="stable")
    return int(included[order[:first]].sum() + (~included[order[len(order) - last :]]).sum())


def one_run_bound(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    delta: float,
    confidence: float = 0.95,
    guesses: Sequence[tuple[float, float]] = GUESSES,
    rng: np.random.Generator,
) -> OneRunBound:
    """The best bound over a fixed set of ways of guessing, whose number the confidence pays for (Bonferroni).

    Args:
        scores: ``(canaries,)``, higher for those that seem to have been in; a function of what was released, and of
            nothing that depends on the coins besides.
        included: ``(canaries,)`` the coins.
        delta: Of the claim.
        confidence: One-sided, in (0, 1).
        guesses: Shares of the canaries that are guessed in and out; fixed before the run.
        rng: Puts equal scores into an order that the coins do not decide.

    Raises:
        ConfigError: Scores and coins are not of one length, a score is NaN, or a number is outside its range.
    """
    canaries = len(scores)
    if included.shape != (canaries,) or np.isnan(scores).any():
        raise ConfigError(
            f"an audit needs one score, a number, for each of the {len(included)} canaries: got {canaries}, of which "
            f"{int(np.isnan(scores).sum())} are NaN"
        )
    alpha = _alpha(confidence) / len(guesses)
    mixed = rng.permutation(canaries)
    scores, included = scores[mixed], included[mixed]
    best = OneRunBound(
        epsilon=0.0,
        delta=delta,
        confidence=confidence,
        canaries=canaries,
        guesses=0,
        right=0,
        tried=len(guesses),
    )
    for shares in guesses:
        first, last = (int(share * canaries) for share in shares)
        right, made = right_guesses(scores, included, first, last), first + last
        # Without delta the p-value is smaller: what is not refuted then is not refuted at all.
        if not made or one_run_p_value(right, made, canaries, best.epsilon, 0.0) > alpha:
            continue
        epsilon = one_run_epsilon(right, made, canaries, delta, 1.0 - alpha)
        if epsilon > best.epsilon:
            best = OneRunBound(
                epsilon=epsilon,
                delta=delta,
                confidence=confidence,
                canaries=canaries,
                guesses=made,
                right=right,
                tried=len(guesses),
            )
    return best


def _at_least(counts: NDArray[np.int64], trials: int, share: float) -> NDArray[np.float64]:
    """P[Binomial(trials, share) >= counts]."""
    positive = np.maximum(counts, 1)
    tails: NDArray[np.float64] = special.betainc(positive, trials - positive + 1, share)
    return np.where(counts <= 0, 1.0, tails)


def _alpha(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ConfigError(
            f"the confidence of an audit is {confidence!r}: use a number in (0, 1), such as 0.95"
        )
    return 1.0 - confidence


def _check(right: int, guesses: int, canaries: int, delta: float) -> None:
    if not 0 <= right <= guesses <= canaries:
        raise ConfigError(
            f"{right} right guesses of {guesses} over {canaries} canaries: each number may not exceed the next"
        )
    if not 0.0 <= delta < 1.0:
        raise ConfigError(f"delta is {delta!r}: use a number in [0, 1)")
