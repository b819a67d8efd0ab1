"""The cosine test of canary clients, and the bound from error rates: each is what it is called."""

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from fedsafe.errors import ConfigError
from fedsafe.privacy.audit import (
    cosine_bound,
    cosine_estimate,
    membership_epsilon,
    paired_cosine_estimate,
    two_gaussians_epsilon,
)


def test_two_gaussians_of_one_width_are_the_gaussian_mechanism():
    for noise, delta, epsilon in ((1.0, 1e-5, 4.37718), (10**-0.5 * 2, 1e-5, 7.51128), (3.7306, 1e-5, 1.0)):
        assert two_gaussians_epsilon((1.0, noise), (0.0, noise), delta) == pytest.approx(epsilon, rel=2e-5)
    assert two_gaussians_epsilon((0.0, 1.0), (0.0, 1.0), 1e-5) == 0.0
    assert two_gaussians_epsilon((9.0, 0.1), (0.0, 0.1), 1e-5) == math.inf


@pytest.mark.parametrize(
    ("first", "second"),
    [((0.5, 1.0), (0.0, 1.1)), ((0.0, 2.0), (0.0, 1.0)), ((-1.0, 0.7), (0.5, 0.9)), ((2.0, 0.3), (0.0, 0.2))],
)
def test_two_gaussians_of_unlike_width_agree_with_numerical_integration(first, second):
    delta = 1e-3
    epsilon = two_gaussians_epsilon(first, second, delta)

    def divergence(p, q):
        points = np.linspace(
            min(p[0] - 12 * p[1], q[0] - 12 * q[1]), max(p[0] + 12 * p[1], q[0] + 12 * q[1]), 400_001
        )
        excess = np.exp(stats.norm.logpdf(points, *p)) - np.exp(epsilon + stats.norm.logpdf(points, *q))
        return integrate.trapezoid(np.maximum(excess, 0.0), points)

    assert max(divergence(first, second), divergence(second, first)) == pytest.approx(delta, rel=2e-3)


def released(dimension, canaries, noise, rng, present=True):
    """Cosines of random directions with a sum of them and Gaussian noise: the mechanism of the paper."""
    directions = rng.normal(size=(canaries, dimension)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    total = rng.normal(size=dimension) * noise
    if present:
        total = total + directions.sum(0)
    return (directions @ (total / np.linalg.norm(total))).astype(np.float64)


def test_the_estimate_is_near_the_truth_of_a_gaussian_mechanism():
    # Of one canary; the others only widen the noise, by their number over the dimension.
    rng, dimension, canaries, truth = np.random.default_rng(2), 10_000, 1000, 4.37718
    found = cosine_estimate(released(dimension, canaries, 1.0, rng), dimension, 1e-5)
    assert 0.85 * truth < found.epsilon < 1.35 * truth
    half = cosine_estimate(released(dimension, canaries, 0.5, rng), dimension, 1e-5)
    assert half.epsilon > 1.7 * truth


def test_the_paired_estimate_takes_any_statistic():
    rng = np.random.default_rng(4)
    found = paired_cosine_estimate(rng.normal(3, 1, 4000), rng.normal(2, 1, 4000), 1e-5)
    assert found.epsilon == pytest.approx(4.377, rel=0.15)


def test_the_cosine_bound_has_the_exact_null_and_stays_below_the_truth():
    rng, dimension, canaries = np.random.default_rng(8), 3_000, 100
    for noise, truth in ((1.0, 4.37718), (3.7306, 1.0)):
        bounds = [cosine_bound(released(dimension, canaries, noise, rng), dimension, 1e-5) for _ in range(20)]
        assert max(bounds) <= truth
    assert cosine_bound(released(dimension, canaries, 0.2, rng), dimension, 1e-5) > 5.0
    # Its false positive rate, by simulation: a canary that was not there.
    half = (dimension - 1) / 2
    threshold = 1 - 2 * special.betaincinv(half, half, 0.01)
    absent = np.concatenate([released(dimension, 500, 1.0, rng, present=False) for _ in range(10)])
    assert abs((absent > threshold).mean() - 0.01) < 4 * math.sqrt(0.01 / len(absent))


def test_membership_rates_bound_randomised_response_and_not_more():
    rng, truth, n = np.random.default_rng(6), 1.0, 2000
    share = special.expit(truth)
    bounds = []
    for _ in range(300):
        found, mistaken = rng.binomial(n, share), rng.binomial(n, 1 - share)
        bounds.append(
            membership_epsilon(true_positives=found, members=n, false_positives=mistaken, others=n, delta=0.0)
        )
    assert np.mean(np.array(bounds) > truth) <= 0.05
    assert np.median(bounds) > 0.8 * truth
    assert membership_epsilon(true_positives=0, members=9, false_positives=9, others=9, delta=1e-5) == 0.0
    assert membership_epsilon(true_positives=0, members=0, false_positives=0, others=0, delta=1e-5) == 0.0


def test_what_cannot_be_is_refused():
    few = np.zeros(1)
    with pytest.raises(ConfigError, match="two or more"):
        cosine_estimate(few, 100, 1e-5)
    with pytest.raises(ConfigError, match="two dimensions"):
        cosine_estimate(np.zeros(5), 1, 1e-5)
    with pytest.raises(ConfigError, match="delta"):
        two_gaussians_epsilon((0.0, 1.0), (1.0, 1.0), 0.0)
    with pytest.raises(ConfigError, match="delta"):
        membership_epsilon(true_positives=1, members=2, false_positives=1, others=2, delta=1.0)
