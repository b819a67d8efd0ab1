"""The tests of the suite pass what is right, and fail what is wrong by what they must see."""

import numpy as np
import pytest

from fedsafe.verify.statistics import (
    correlation_bound,
    dispersion_fits,
    largest_correlation,
    normal_fits,
    scale_fits,
    share_fits,
)

RNG = np.random.default_rng(20)


@pytest.mark.parametrize(("scale", "fits"), [(1.0, True), (2 / 3, False), (3 / 2, False), (0.95, False)])
def test_the_scale_of_noise(scale, fits):
    assert scale_fits(RNG.normal(0.0, 2.0 * scale, 20_000), 2.0) == fits


@pytest.mark.parametrize(("draw", "fits"), [("normal", True), ("laplace", False), ("uniform", False)])
def test_the_distribution_of_noise(draw, fits):
    assert (
        normal_fits(
            getattr(RNG, draw)(-1.0, 1.0, 4000) if draw == "uniform" else getattr(RNG, draw)(size=4000)
        )[0]
        == fits
    )


@pytest.mark.parametrize("shift", [0, 1, 37])
def test_noise_that_comes_again_is_seen_at_any_shift(shift):
    first, other = RNG.normal(size=600), RNG.normal(size=600)
    bound = correlation_bound(600, 20)
    assert largest_correlation(first, np.roll(first, shift)) > bound
    assert largest_correlation(first, other) < bound


def test_poisson_sizes_pass_and_even_ones_fail():
    poisson = RNG.binomial(100, 0.2, 200)
    assert dispersion_fits(poisson, 100, 0.2, degrees=200)
    assert not dispersion_fits(np.full(200, 20), 100, 0.2, degrees=200)
    assert not dispersion_fits(20 + 3 * (poisson - 20), 100, 0.2, degrees=200)


def test_a_wrong_rate_fails():
    assert share_fits(2000, 10_000, 0.2)
    assert not share_fits(2300, 10_000, 0.2)
