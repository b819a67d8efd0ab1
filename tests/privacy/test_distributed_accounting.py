"""Distributed noise: the published divergences, held to exact ones of small cases, for those who survive."""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest

from fedsafe.errors import CalibrationError
from fedsafe.privacy.accounting import SampledGaussian, epsilon
from fedsafe.privacy.accounting.distributed import (
    DistributedNoise,
    calibrate_distributed,
    discrete_gaussian_rdp,
    distributed_epsilon,
    skellam_rdp,
)

CASES = [(l2, l1, share, shares, dimension) for l2 in (1.0, 37.5) for l1, share, shares, dimension in (
    (1.0, 0.5, 2, 1), (4.0, 0.7, 10, 16), (900.0, 1.0, 50, 1024), (2e4, 25.0, 100, 10**6)
)]  # fmt: skip


def published_gaussian(order, l2, l1, share, shares, dimension) -> mpmath.mpf:
    """Kairouz, Liu and Steinke (2021), theorem 1 and proposition 14, at fifty digits."""
    mpmath.mp.dps = 50
    s, n, d = mpmath.mpf(share), mpmath.mpf(shares), mpmath.mpf(dimension)
    tau = mpmath.mpf(0)
    for k in range(1, shares):
        tau += 10 * mpmath.exp(-2 * mpmath.pi**2 * s**2 * mpmath.mpf(k) / (k + 1))
    e2, e1 = mpmath.mpf(l2) / (mpmath.sqrt(n) * s), mpmath.mpf(l1) / (mpmath.sqrt(n) * s)
    half = mpmath.mpf(order) / 2
    return min(
        half * e2**2 + tau * d,
        half * (e2**2 + 2 * e1 * tau + tau**2 * d),
        half * (e2 + mpmath.sqrt(d) * tau) ** 2,
    )


def published_skellam(order, l2, l1, variance, scale=1) -> mpmath.mpf:
    """Agarwal, Kairouz and Liu (2021), corollary for a query that is scaled by s and a central variance of mu."""
    mpmath.mp.dps = 50
    a, d2, d1, s, mu = (mpmath.mpf(v) for v in (order, l2, l1, scale, variance))
    correction = min(((2 * a - 1) * s * d2**2 + 6 * d1) / (4 * s**3 * mu**2), 3 * d1 / (2 * s * mu))
    return a * d2**2 / (2 * mu) + correction


class TestPublishedFormulas:
    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("order", [2, 7.5, 64, 512])
    def test_discrete_gaussian_shares(self, case, order):
        l2, l1, share, shares, dimension = case
        found = discrete_gaussian_rdp(order, l2=l2, l1=l1, share=share, shares=shares, dimension=dimension)
        expected = published_gaussian(order, l2, l1, share, shares, dimension)
        assert float(abs(found / expected - 1)) < 1e-6

    @pytest.mark.parametrize("case", CASES)
    @pytest.mark.parametrize("order", [2, 7, 64, 512])
    @pytest.mark.parametrize("scale", [1, 16])
    def test_skellam(self, case, order, scale):
        """In units of the grid: a scaled query has scaled norms and a variance scaled twice."""
        l2, l1, share, shares, _ = case
        variance = shares * share**2
        found = skellam_rdp(order, l2=scale * l2, l1=scale * l1, variance=scale**2 * variance)
        expected = published_skellam(order, l2, l1, variance, scale)
        assert float(abs(found / expected - 1)) < 1e-6


def divergence(law: np.ndarray, moved: int, order: int) -> float:
    """Exact Rényi divergence of a law on whole numbers from itself, moved, the larger of both ways."""
    both = []
    for first, second in ((law[moved:], law[:-moved]), (law[:-moved], law[moved:])):
        held = (first > 1e-290) & (second > 1e-290)
        terms = order * np.log(first[held]) + (1 - order) * np.log(second[held])
        top = terms.max()
        both.append((top + math.log(np.exp(terms - top).sum())) / (order - 1))
    return max(both)


def gaussian_sum(share: float, shares: int, reach: int) -> np.ndarray:
    k = np.arange(-reach, reach + 1)
    one = np.exp(-(k**2) / (2 * share**2))
    one /= one.sum()
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    return total


class TestExactDivergences:
    """In one dimension the law of the sum can be written down: the bounds must lie above, and not far."""

    @pytest.mark.parametrize(("share", "shares"), [(1.0, 1), (1.0, 4), (2.0, 3), (5.0, 9)])
    @pytest.mark.parametrize("moved", [1, 3])
    @pytest.mark.parametrize("order", [2, 4])
    def test_gaussian_shares(self, share, shares, moved, order):
        exact = divergence(gaussian_sum(share, shares, reach=int(14 * share)), moved, order)
        numbers = {"l2": moved, "l1": moved, "shares": shares, "dimension": 1}
        bound = discrete_gaussian_rdp(order, share=share, **numbers)
        assert exact <= bound * (1 + 1e-9)
        assert bound < 1.05 * exact or share == 1.0
        # A share of half the width would need more than is claimed.
        assert divergence(gaussian_sum(share / 2, shares, reach=int(14 * share)), moved, order) > bound

    @pytest.mark.parametrize("deviation", [2.0, 6.0])
    @pytest.mark.parametrize("moved", [1, 3])
    @pytest.mark.parametrize("order", [2, 4])
    def test_skellam(self, deviation, moved, order):
        def law(deviation: float) -> np.ndarray:
            variance = deviation**2
            one = [float(mpmath.exp(-variance) * mpmath.besseli(k, variance)) for k in range(160)]
            return np.array(one[:0:-1] + one)

        exact = divergence(law(deviation), moved, order)
        bound = skellam_rdp(order, l2=moved, l1=moved, variance=deviation**2)
        assert exact <= bound
        assert bound < 2.0 * exact
        assert divergence(law(deviation / 2), moved, order) > bound


def noise(**changes: object) -> DistributedNoise:
    usual = {
        "law": "discrete gaussian", "share": 200.0, "honest": 100, "l2": 1000.0, "l1": 3.2e4, "dimension": 1024,
        "rounds": 10,
    }  # fmt: skip
    return DistributedNoise(**{**usual, **changes})


class TestEpsilon:
    @pytest.mark.parametrize("law", ["discrete gaussian", "skellam"])
    def test_wide_shares_cost_what_a_gaussian_of_their_sum_does(self, law):
        """100 shares of 200 over a norm of 1000 are a multiplier of 2; RDP is at most a tenth above the tight value."""
        tight = epsilon(SampledGaussian(rate=1.0, noise=2.0, count=10), 1e-5)
        assert tight == pytest.approx(7.51, abs=0.01)
        assert tight < distributed_epsilon(noise(law=law), 1e-5) < 1.1 * tight

    @pytest.mark.parametrize("law", ["discrete gaussian", "skellam"])
    def test_it_is_for_the_honest_who_survive(self, law):
        planned = distributed_epsilon(noise(law=law, honest=100), 1e-5)
        fewer = distributed_epsilon(noise(law=law, honest=50), 1e-5)
        assert fewer > 1.3 * planned
        # Twice the variance in each share makes up for it.
        kept = distributed_epsilon(noise(law=law, honest=50, share=200.0 * math.sqrt(2.0)), 1e-5)
        assert kept == pytest.approx(planned, rel=1e-3)

    @pytest.mark.parametrize("law", ["discrete gaussian", "skellam"])
    def test_without_secure_aggregation_each_share_stands_alone(self, law):
        """A tenth of the noise, and any two updates: local privacy with a multiplier of 0.1."""
        broken = distributed_epsilon(noise(law=law, rounds=1).alone(), 1e-5)
        local = epsilon(SampledGaussian(rate=1.0, noise=0.1, count=1), 1e-5)
        assert local < broken < 1.3 * local
        assert broken > 20 * distributed_epsilon(noise(law=law, rounds=1), 1e-5)

    def test_rounds_add_up_and_none_cost_nothing(self):
        assert noise(rounds=10).rdp(8) == pytest.approx(10 * noise(rounds=1).rdp(8))
        assert distributed_epsilon(noise(rounds=0), 1e-5) == 0.0

    def test_a_replaced_update_moves_the_sum_twice_as_far(self):
        replaced = noise().replaced()
        assert (replaced.l2, replaced.l1, replaced.honest) == (2000.0, 6.4e4, 100)
        assert replaced.rdp(4) == pytest.approx(4 * noise().rdp(4), rel=1e-6)

    def test_narrow_shares_cost_more_than_their_variance_says(self):
        narrow = noise(share=0.5, l2=2.0, l1=4.0)
        wide = noise(share=50.0, l2=200.0, l1=40000.0)
        assert distributed_epsilon(narrow, 1e-5) > 1.1 * distributed_epsilon(wide, 1e-5)


class TestCalibration:
    @pytest.mark.parametrize("law", ["discrete gaussian", "skellam"])
    @pytest.mark.parametrize("target", [0.3, 2.0, 20.0])
    def test_it_inverts_epsilon(self, law, target):
        def make(multiplier: float) -> DistributedNoise:
            return replace(noise(law=law), share=multiplier * 1000.0 / 10.0)

        found = calibrate_distributed(target, 1e-5, make)
        assert distributed_epsilon(make(found), 1e-5) <= target
        assert distributed_epsilon(make(0.99 * found), 1e-5) > target

    def test_what_no_noise_meets_is_said(self):
        with pytest.raises(CalibrationError, match="no noise multiplier up to"):
            calibrate_distributed(1e-9, 1e-5, lambda multiplier: noise(share=multiplier), most=100.0)

    def test_noise_that_the_grid_is_too_coarse_for_is_passed_over(self):
        """On a coarse grid, what meets the target may be less than can be drawn: then more is added."""

        def make(multiplier: float) -> DistributedNoise:
            if multiplier < 5.0:
                raise CalibrationError("raise modulus = 8")
            return noise(share=multiplier * 100.0)

        assert calibrate_distributed(1e3, 1e-5, make) == pytest.approx(5.0, rel=1e-3)
        with pytest.raises(CalibrationError, match="raise modulus"):
            calibrate_distributed(1e3, 1e-5, make, most=3.0)
