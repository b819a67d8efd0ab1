"""The one-run bound: it is the published formula, it is a bound, and it is not far below the truth."""

import math

import numpy as np
import pytest
from scipy import special, stats

from fedsafe.errors import ConfigError
from fedsafe.privacy.audit import (
    GUESSES,
    gaussian_one_run_epsilon,
    one_run_bound,
    one_run_epsilon,
    one_run_p_value,
)
from fedsafe.privacy.audit.gaussian_one_run import gaussian_mu

# Of google-deepmind/jax_privacy, tests of its auditing module: 10,000 scores N(shift, 1) and 10,000 scores N(0, 1), at
# their exact quantiles; significance 0.05, delta 1e-6.
SHIFTED = {1.0: 1.13346, 2.0: 2.311945, 4.0: 4.395568}


def shifted(shift: float, n: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    quantiles = special.ndtri((np.arange(n) + 0.5) / n)
    return quantiles + shift, quantiles


def frontier(inside: np.ndarray, outside: np.ndarray) -> list[tuple[int, int]]:
    """Guesses and right ones at each threshold on the upper hull of the counts, which are the hypotheses there."""
    thresholds = np.append(np.unique(np.concatenate([inside, outside])), np.inf)
    misses = np.searchsorted(np.sort(inside), thresholds)
    rejected = np.searchsorted(np.sort(outside), thresholds)
    hull: list[tuple[int, int]] = []
    for point in zip(misses.tolist(), rejected.tolist(), strict=True):
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0) < 0:
                break
            hull.pop()
        hull.append(point)
    n, m = len(inside), len(outside)
    return [(n - x + m - y, n - x) for x, y in hull]


@pytest.mark.parametrize("shift", SHIFTED)
def test_the_published_vectors_are_met(shift):
    inside, outside = shifted(shift)
    hypotheses = frontier(inside, outside)
    confidence = 1.0 - 0.05 / len(hypotheses)
    best = 0.0
    # The most precise first, which leave little to search to the others.
    precise = sorted(hypotheses, key=lambda h: -special.betaincinv(h[1] + 1e-9, h[0] - h[1] + 1, 1e-6))
    for guesses, right in precise:
        if guesses and one_run_p_value(right, guesses, 20_000, best, 0.0) <= 1.0 - confidence:
            best = max(best, one_run_epsilon(right, guesses, 20_000, 1e-6, confidence))
    assert best == pytest.approx(SHIFTED[shift], rel=1e-5)


def test_the_p_value_is_the_theorem_s():
    def by_hand(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
        share = math.exp(epsilon) / (1 + math.exp(epsilon))

        def chance(k: int) -> float:
            return math.comb(guesses, k) * share**k * (1 - share) ** (guesses - k)

        tail = sum(chance(k) for k in range(right, guesses + 1))
        running, most = 0.0, 0.0
        for i in range(1, right + 1):
            running += chance(right - i)
            most = max(most, running / i)
        return min(1.0, tail + 2 * canaries * delta * most)

    for guesses, canaries in ((1, 10), (10, 10), (40, 100)):
        for right in {0, 1, guesses // 2, guesses - 1, guesses}:
            for epsilon in (0.0, 0.5, 2.0):
                for delta in (0.0, 1e-6, 1e-3, 0.1):
                    expected = by_hand(right, guesses, canaries, epsilon, delta)
                    found = one_run_p_value(right, guesses, canaries, epsilon, delta)
                    assert found == pytest.approx(expected, rel=1e-9), (right, guesses, epsilon, delta)


@pytest.mark.parametrize(
    ("canaries", "ceiling"), [(50, 2.78), (100, 3.49), (500, 5.11), (1000, 5.81), (5000, 7.42)]
)
def test_so_many_canaries_can_prove_so_much(canaries, ceiling):
    assert one_run_epsilon(canaries, canaries, canaries, 0.0) == pytest.approx(ceiling, abs=0.006)
    assert one_run_epsilon(canaries // 2, canaries, canaries, 0.0) == 0.0


def test_the_bound_is_refuted_and_a_little_more_is_not():
    for right, guesses, canaries, delta in (
        (90, 100, 1000, 1e-6),
        (450, 450, 1000, 1e-5),
        (700, 900, 5000, 0.0),
    ):
        epsilon = one_run_epsilon(right, guesses, canaries, delta)
        assert one_run_p_value(right, guesses, canaries, epsilon, delta) <= 0.05
        assert one_run_p_value(right, guesses, canaries, epsilon + 1e-6, delta) > 0.05


def test_randomised_response_is_bounded_from_below_and_closely():
    """The acceptance line, with fewer runs: benchmarks/audits.py has all of them."""
    rng, canaries, truth = np.random.default_rng(5), 5000, 1.0
    bounds = []
    for _ in range(150):
        included = rng.random(canaries) < 0.5
        told = included ^ (rng.random(canaries) > special.expit(truth))
        bounds.append(one_run_bound(told.astype(float), included, delta=0.0, rng=rng).epsilon)
    above = sum(bound > truth for bound in bounds)
    # More than one in twenty would be a false bound: 15 of 150 have a chance of 1 % under a true one.
    assert above <= 15
    assert np.median(bounds) >= 0.8 * truth
    # And it can fail: against half of what was run, every one is above.
    assert min(bounds) > truth / 2


def test_scores_that_know_nothing_prove_nothing_whatever_the_order_of_coins():
    rng = np.random.default_rng(3)
    for included in (np.arange(1000) < 500, np.arange(1000) >= 500, rng.random(1000) < 0.5):
        assert one_run_bound(np.zeros(1000), included, delta=1e-5, rng=rng).epsilon < 0.3
    found = [
        one_run_bound(rng.normal(size=1000), rng.random(1000) < 0.5, delta=0.0, rng=rng).epsilon
        for _ in range(200)
    ]
    assert np.mean(np.array(found) > 0.0) <= 0.05 + 3 * 0.0155


def test_ways_of_guessing_share_the_confidence():
    rng = np.random.default_rng(0)
    included = rng.random(400) < 0.5
    scores = included.astype(float)
    alone = one_run_bound(scores, included, delta=1e-6, guesses=[(0.4, 0.0)], rng=rng)
    assert alone.right == alone.guesses == 160
    assert alone.epsilon == one_run_epsilon(160, 160, 400, 1e-6, 0.95)
    shared = one_run_bound(scores, included, delta=1e-6, guesses=[(0.4, 0.0), (0.0, 0.01)], rng=rng)
    assert shared.epsilon == one_run_epsilon(160, 160, 400, 1e-6, 0.975)
    assert one_run_bound(scores, included, delta=1e-6, rng=rng).tried == len(GUESSES)


def test_the_gaussian_variant_meets_the_published_vectors_and_the_mechanism():
    for epsilon, delta in ((0.5, 1e-5), (4.37718, 1e-5), (30.0, 1e-6)):
        mu = gaussian_mu(epsilon, delta)
        exact = stats.norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * stats.norm.cdf(
            -mu / 2 - epsilon / mu
        )
        assert exact == pytest.approx(delta, rel=1e-5)
    assert gaussian_mu(4.37718, 1e-5) == pytest.approx(1.0, abs=1e-5)
    # A Gaussian mechanism of mu = 1 with a canary in a dimension of its own: below the truth, and above the other.
    rng = np.random.default_rng(11)
    canaries, truth = 2000, 4.377
    included = rng.random(canaries) < 0.5
    order = np.argsort(-(included + rng.normal(size=canaries)))
    guesses = 100
    right = int(included[order[:guesses]].sum())
    plain = one_run_epsilon(right, guesses, canaries, 1e-5)
    gaussian = gaussian_one_run_epsilon(right, guesses, canaries, 1e-5)
    assert 1.3 * plain < gaussian < truth


def test_what_cannot_be_is_refused_in_one_line():
    rng = np.random.default_rng(0)
    for bad in (
        lambda: one_run_p_value(11, 10, 100, 1.0, 0.0),
        lambda: one_run_p_value(5, 10, 9, 1.0, 0.0),
        lambda: one_run_p_value(5, 10, 100, 1.0, 1.0),
        lambda: one_run_epsilon(5, 10, 100, 0.0, 1.0),
        lambda: one_run_bound(np.zeros(3), np.ones(4, bool), delta=0.0, rng=rng),
        lambda: one_run_bound(np.full(3, np.nan), np.ones(3, bool), delta=0.0, rng=rng),
    ):
        with pytest.raises(ConfigError) as error:
            bad()
        assert "\n" not in str(error.value)
