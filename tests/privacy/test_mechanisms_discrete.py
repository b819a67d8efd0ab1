"""Noise on whole numbers: the laws that are drawn are the laws that are accounted for, and no others."""

import dataclasses
import math

import mpmath
import numpy as np
import pytest
from scipy import stats
from test_rng import scale_is

from fedsafe.errors import CalibrationError
from fedsafe.privacy.mechanisms import discrete_gaussian, skellam, skellam_probabilities
from fedsafe.privacy.mechanisms.discrete_gaussian import _exp, _exp_of_square, _ratio
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(15)
BASE = StreamId(purpose="client draws", client=0, round=1, digest=b"x")


def stream(client: int = 0) -> Stream:
    return Stream(KEY, dataclasses.replace(BASE, client=client))


def gaussian_law(deviation: float) -> dict[int, float]:
    reach = math.ceil(12 * deviation)
    weights = {k: math.exp(-(k**2) / (2 * deviation**2)) for k in range(-reach, reach + 1)}
    total = math.fsum(weights.values())
    return {k: weight / total for k, weight in weights.items()}


def skellam_law(deviation: float) -> dict[int, float]:
    variance = deviation**2
    reach = math.ceil(14 * deviation) + 10
    one = {k: float(mpmath.exp(-variance) * mpmath.besseli(k, variance)) for k in range(reach)}
    return {k: one[abs(k)] for k in range(1 - reach, reach)}


def follows(samples: np.ndarray, law: dict[int, float]) -> bool:
    """Chi-square over values that are expected at least ten times, the rest in one class; false alarm 1e-7."""
    usual = [k for k, p in law.items() if p * len(samples) >= 10]
    seen = np.array([np.sum(samples == k) for k in usual])
    expected = np.array([law[k] * len(samples) for k in usual])
    rest = len(samples) - expected.sum()
    seen, expected = np.append(seen, len(samples) - seen.sum()), np.append(expected, max(rest, 1e-3))
    statistic = float(((seen - expected) ** 2 / np.maximum(expected, 5.0)).sum())
    return bool(stats.chi2.sf(statistic, len(usual)) > 1e-7)


LAWS = {"gaussian": (discrete_gaussian, gaussian_law), "skellam": (skellam, skellam_law)}
both_laws = pytest.mark.parametrize("law", LAWS)


class TestLaws:
    @both_laws
    @pytest.mark.parametrize("deviation", [1, 2, 6])
    def test_every_value_has_its_probability(self, law, deviation):
        draw, probabilities = LAWS[law]
        samples = draw(stream(), 60_000, deviation)
        assert samples.dtype == np.int64
        assert follows(samples, probabilities(deviation))

    @both_laws
    @pytest.mark.parametrize("factor", [2 / 3, 3 / 2])
    def test_two_thirds_and_three_halves_of_the_scale_are_told_apart(self, law, factor):
        draw, probabilities = LAWS[law]
        samples = draw(stream(), 60_000, 6)
        assert not follows(samples, probabilities(6 * factor))
        assert not scale_is(draw(stream(), 4000, 900), 900 * factor)

    def test_the_two_laws_are_told_apart(self):
        """Of the same variance: Skellam's tails are heavier."""
        assert not follows(discrete_gaussian(stream(), 60_000, 1), skellam_law(1.0))
        assert not follows(skellam(stream(), 60_000, 1.0), gaussian_law(1.0))

    @both_laws
    @pytest.mark.parametrize("deviation", [900, 30_000])
    def test_wide_noise_has_its_scale_and_reaches_every_parity(self, law, deviation):
        samples = LAWS[law][0](stream(), 20_000, deviation)
        assert scale_is(samples, deviation)
        assert 0.48 < np.mean(samples % 2) < 0.52
        assert abs(samples.mean()) < 5 * deviation / math.sqrt(20_000)
        assert 2.8 < stats.kurtosis(samples, fisher=False) < 3.2

    def test_the_widest_discrete_gaussian_overflows_nowhere(self):
        assert scale_is(discrete_gaussian(stream(), 5000, 2**24), 2**24)

    @both_laws
    def test_no_draws_are_no_draws(self, law):
        assert LAWS[law][0](stream(), 0, 3).shape == (0,)

    @both_laws
    def test_a_stream_decides_the_draws(self, law):
        draw = LAWS[law][0]
        np.testing.assert_array_equal(draw(stream(1), 300, 50), draw(stream(1), 300, 50))
        assert np.mean(draw(stream(1), 300, 50) == draw(stream(2), 300, 50)) < 0.1

    def test_sums_of_skellam_shares_are_skellam(self):
        """The reason for that law: what is accounted for is the sum of the shares."""
        total = sum(skellam(stream(client), 60_000, 1.0) for client in range(4))
        assert follows(total, skellam_law(2.0))
        assert not follows(total, skellam_law(4.0))

    @pytest.mark.parametrize("deviation", [0, -3, 2.5, 2**25, math.nan])
    def test_what_cannot_be_drawn_is_refused(self, deviation):
        with pytest.raises(CalibrationError, match="cannot be drawn"):
            discrete_gaussian(stream(), 3, deviation)

    @pytest.mark.parametrize("deviation", [0.0, -3.0, 2**17, math.nan])
    def test_what_the_table_cannot_hold_is_refused(self, deviation):
        with pytest.raises(CalibrationError, match="cannot be drawn"):
            skellam(stream(), 3, deviation)


class Words:
    """A stream of words that a test chooses."""

    def __init__(self, *words: int) -> None:
        self._words = np.array(words, np.uint64)

    def words(self, count: int) -> np.ndarray:
        taken, self._words = self._words[:count], self._words[count:]
        return taken.copy()


class TestExactEvents:
    """What the discrete Gaussian is made of."""

    @pytest.mark.parametrize(("over", "under"), [(1, 3), (2, 7), (2**40 - 1, 2**40), (2**61, 3 * 2**60)])
    def test_a_ratio_is_exact_at_the_word(self, over, under):
        share = (2**64 - 1) // under
        edge = over * share
        found = _ratio(Words(edge - 1, edge), np.array([over, over]), np.array([under, under]))
        assert found.tolist() == [True, False]

    def test_words_that_would_favour_small_values_are_drawn_again(self):
        under = 3 * 2**60
        beyond = ((2**64 - 1) // under) * under
        found = _ratio(Words(beyond, 0), np.array([1]), np.array([under]))
        assert found.tolist() == [True]

    @pytest.mark.parametrize(("over", "under"), [(0, 5), (1, 5), (5, 5)])
    def test_exponentials(self, over, under):
        n = 40_000
        hits = int(_exp(stream(), np.full(n, over), under).sum())
        assert stats.binomtest(hits, n, math.exp(-over / under)).pvalue > 1e-7
        assert over == 0 or stats.binomtest(hits, n, math.exp(-1.2 * over / under)).pvalue < 1e-7

    @pytest.mark.parametrize("size", [0, 3, 10, 14, 15, 25, 41])
    def test_exponentials_of_squares_on_both_sides_of_each_doubling(self, size):
        n, scale = 60_000, 10
        hits = int(_exp_of_square(stream(), np.full(n, size), scale).sum())
        assert stats.binomtest(hits, n, math.exp(-(size**2) / (2 * scale**2))).pvalue > 1e-7


class TestSkellamTable:
    @pytest.mark.parametrize("deviation", [0.5, 1.0, 7.3, 60.0])
    def test_probabilities_are_those_of_the_bessel_function_out_to_the_tail(self, deviation):
        found = skellam_probabilities(deviation)
        variance = mpmath.mpf(deviation) ** 2
        mpmath.mp.dps = 40
        for k in {0, 1, 2, len(found) // 3, len(found) // 2, len(found) - 1}:
            expected = mpmath.exp(-variance) * mpmath.besseli(k, variance)
            assert float(abs(found[k] / expected - 1)) < 1e-13
        assert found[0] + 2 * found[1:].sum() == pytest.approx(1.0, abs=1e-12)

    @pytest.mark.parametrize(
        ("high", "low"), [(0, 0), (0, 2**40), (5, 0), (2**30, 7), (2**63, 0), (2**64 - 1, 0)]
    )
    def test_the_far_tail_is_reached_with_its_probability(self, high, low):
        """The size drawn is the smallest whose tail is below the uniform variable, to 2^-128."""
        deviation = 2.0
        uniform = mpmath.mpf(high) / 2**64 + mpmath.mpf(low + 1) / 2**128
        (found,) = skellam(Words(high, low, 0), 1, deviation)

        def tail(size: int) -> mpmath.mpf:
            terms = (mpmath.besseli(k, deviation**2) for k in range(size + 1, size + 80))
            return 2 * mpmath.exp(-(deviation**2)) * mpmath.fsum(terms)

        assert tail(int(found)) < uniform
        assert found == 0 or tail(int(found) - 1) >= uniform

    def test_what_lies_beyond_the_table_is_rarer_than_a_word_pair(self):
        for deviation in (0.3, 1.0, 3.0, 10.0, 100.0, 3000.0):
            assert skellam_probabilities(deviation)[-1] < 2.0**-134
