"""Banded factorisations: the sensitivity is that of the worst participation, and the covariance is the one claimed."""

import itertools
import math

import numpy as np
import pytest
from test_rng import scale_is

from fedsafe.errors import CalibrationError
from fedsafe.privacy.accounting.banded import banded_sensitivity
from fedsafe.privacy.mechanisms import (
    correlated,
    inverse_coefficients,
    largest_deviation,
    square_root_coefficients,
)
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(17)


def matrix(coefficients: tuple[float, ...], rounds: int) -> np.ndarray:
    found = np.zeros((rounds, rounds))
    for lag, value in enumerate(coefficients[:rounds]):
        found += value * np.eye(rounds, k=-lag)
    return found


def fresh(round: int, count: int) -> np.ndarray:
    identity = StreamId(purpose="client noise", client=-1, round=round, digest=b"d")
    return Stream(KEY, identity).normal(count)


def participations(rounds: int, separation: int, most: int):
    """Every set of rounds that one client may be in."""
    for size in range(1, most + 1):
        for chosen in itertools.combinations(range(rounds), size):
            if all(b - a >= separation for a, b in itertools.pairwise(chosen)):
                yield chosen


def brute_force(coefficients: tuple[float, ...], rounds: int, separation: int, most: int) -> float:
    """Over all participations, and over all signs of the updates: with them, columns that meet could cancel or add."""
    square = matrix(coefficients, rounds)
    gram = square.T @ square
    worst = 0.0
    for chosen in participations(rounds, separation, most):
        part = gram[np.ix_(chosen, chosen)]
        # Of |sum_i C_i x_i|^2 over |x_i| <= 1 in any dimension, whatever their directions.
        worst = max(worst, float(np.abs(part).sum()))
    return math.sqrt(worst)


class TestSensitivity:
    @pytest.mark.parametrize("rounds", range(1, 13))
    def test_it_is_that_of_the_worst_participation(self, rounds):
        for bands in (1, 2, 3, 5, 12):
            coefficients = square_root_coefficients(bands)
            for separation in {bands, bands + 1, 2 * bands}:
                for most in (1, 2, 3, 12):
                    found = banded_sensitivity(
                        coefficients, rounds=rounds, separation=separation, participations=most
                    )
                    expected = brute_force(coefficients, rounds, separation, min(most, rounds))
                    assert found == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("coefficients", [(1.0, 0.9, 0.8), (2.0, -1.0, 0.5), (0.3, 0.0, 4.0)])
    def test_it_is_for_any_coefficients(self, coefficients):
        for rounds, separation, most in itertools.product((4, 9, 11), (3, 4), (1, 2, 4)):
            found = banded_sensitivity(
                coefficients, rounds=rounds, separation=separation, participations=most
            )
            assert found == pytest.approx(brute_force(coefficients, rounds, separation, most), rel=1e-12)

    def test_random_updates_reach_it_and_never_exceed_it(self):
        coefficients, rng = square_root_coefficients(3), np.random.default_rng(0)
        bound = banded_sensitivity(coefficients, rounds=10, separation=4, participations=3)
        largest = 0.0
        for chosen in participations(10, 4, 3):
            for _ in range(20):
                updates = np.zeros((10, 2))
                directions = rng.normal(size=(len(chosen), 2))
                updates[list(chosen)] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
                largest = max(largest, float(np.linalg.norm(matrix(coefficients, 10) @ updates)))
        assert largest == pytest.approx(bound, rel=1e-9)

    def test_a_client_that_comes_back_within_the_bands_is_refused(self):
        """There the columns meet, and the squares do not add up: the truth is larger."""
        coefficients = square_root_coefficients(4)
        assert brute_force(coefficients, 8, 2, 4) > brute_force(coefficients, 8, 4, 4)
        with pytest.raises(CalibrationError, match="4 bands need clients to stay away for 4 rounds"):
            banded_sensitivity(coefficients, rounds=8, separation=2, participations=4)

    def test_one_band_is_independent_noise(self):
        for times in (1, 5, 50):
            assert banded_sensitivity((1.0,), rounds=50, separation=1, participations=times) == pytest.approx(
                math.sqrt(times)
            )


class TestCoefficients:
    def test_all_of_them_are_the_square_root_of_running_sums(self):
        root = matrix(square_root_coefficients(9), 9)
        np.testing.assert_allclose(root @ root, np.tril(np.ones((9, 9))), atol=1e-12)

    def test_the_inverse_is_the_inverse(self):
        coefficients = square_root_coefficients(4)
        column = inverse_coefficients(coefficients, 10)
        np.testing.assert_allclose(column, np.linalg.inv(matrix(coefficients, 10))[:, 0], atol=1e-12)
        deviation = np.linalg.norm(np.linalg.inv(matrix(coefficients, 10)), axis=1).max()
        assert largest_deviation(coefficients, 10) == pytest.approx(deviation)

    def test_the_sum_of_the_releases_carries_less_noise_for_the_same_privacy(self):
        """The point of it: a client in 4 of 64 rounds, sixteen apart."""
        errors = {}
        for bands in (1, 4, 16):
            coefficients = square_root_coefficients(bands)
            sensitivity = banded_sensitivity(coefficients, rounds=64, separation=16, participations=4)
            sums = np.tril(np.ones((64, 64))) @ np.linalg.inv(matrix(coefficients, 64))
            errors[bands] = sensitivity * np.linalg.norm(sums) / 8.0
        assert errors[16] < 0.75 * errors[4] < 0.75 * 0.85 * errors[1]


def releases(coefficients: tuple[float, ...], rounds: int, count: int) -> np.ndarray:
    """``(rounds, count)``: as many independent releases of the noise of a whole run."""
    earlier: list[np.ndarray] = []
    for round in range(1, rounds + 1):
        noise = correlated(fresh(round, count), earlier[: len(coefficients) - 1], coefficients)
        earlier.insert(0, noise)
    return np.array(earlier[::-1])


class TestNoise:
    @pytest.mark.parametrize("bands", [1, 3, 6])
    def test_the_covariance_of_a_hundred_thousand_releases(self, bands):
        rounds, count = 6, 100_000
        coefficients = square_root_coefficients(bands)
        inverse = np.linalg.inv(matrix(coefficients, rounds))
        expected = inverse @ inverse.T
        drawn = releases(coefficients, rounds, count)
        spread = 5.5 * np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
        assert (np.abs(np.cov(drawn) - expected) < spread).all()
        if bands > 1:
            # The mistakes that are easily made: C for its inverse, independent noise, the bands of another C.
            square = matrix(coefficients, rounds)
            other = np.linalg.inv(matrix(square_root_coefficients(bands - 1), rounds))
            for wrong in (square @ square.T, np.eye(rounds), other @ other.T):
                assert not (np.abs(np.cov(drawn) - wrong) < spread).all()

    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
    def test_what_c_makes_of_it_is_independent_noise_of_scale_one(self, factor):
        coefficients = square_root_coefficients(4)
        drawn = releases(coefficients, 8, 2000)
        assert scale_is(factor * (matrix(coefficients, 8) @ drawn), 1.0) is (factor == 1.0)

    def test_no_more_than_the_bands_is_remembered(self):
        coefficients = square_root_coefficients(3)
        whole, earlier = [], []
        for round in range(1, 9):
            whole.insert(0, correlated(fresh(round, 50), whole, coefficients))
            earlier = [correlated(fresh(round, 50), earlier, coefficients), *earlier][:2]
            np.testing.assert_array_equal(whole[0], earlier[0])
