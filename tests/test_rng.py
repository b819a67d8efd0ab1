import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedsafe.rng import (
    KEY_BYTES,
    Stream,
    StreamId,
    key_from_seed,
    new_key,
    normal_rows,
    public_generator,
)

KEY = key_from_seed(20260101)
BASE = StreamId(purpose="record noise", client=3, round=7, digest=b"digest")
# Every p value below is compared with this: the whole file raises one false alarm in 10^5 changes of the key.
ALARM = 1e-7

identities = st.builds(
    StreamId,
    purpose=st.text(max_size=8),
    client=st.integers(-1, 2**62),
    round=st.integers(0, 2**62),
    digest=st.binary(max_size=40),
)


def scale_is(samples: Any, sigma: float) -> bool:
    """Whether ``samples`` can be N(0, sigma^2): two-sided chi-square of their energy, false alarm 1e-7.

    From 400 samples on, two thirds and three halves of the scale are told apart with near certainty. Every suite
    that tests noise uses this function, so that "the right scale" means the same everywhere.
    """
    scaled = np.asarray(samples, np.float64).ravel() / sigma
    energy, n = float(scaled @ scaled), scaled.size
    return bool(2.0 * min(stats.chi2.cdf(energy, n), stats.chi2.sf(energy, n)) > 1e-7)


def stream(client: int = 0, *, key: bytes = KEY, **changes: object) -> Stream:
    return Stream(key, dataclasses.replace(BASE, client=client, **changes))


@pytest.fixture(scope="module")
def normals() -> np.ndarray:
    return normal_rows([stream(0)], 2_000_001)[0].astype(np.float64)


class TestStreams:
    @pytest.mark.parametrize(
        "changed",
        [
            {"purpose": "batches"},
            {"client": 4},
            {"client": -1},
            {"round": 8},
            {"digest": b"digesu"},
            {"digest": b"diges"},
            {"digest": b""},
        ],
    )
    def test_another_purpose_client_round_or_digest_is_another_stream(self, changed):
        first = Stream(KEY, BASE).words(64)
        second = Stream(KEY, dataclasses.replace(BASE, **changed)).words(64)
        assert not np.any(first == second)

    def test_another_key_is_another_stream(self):
        one_bit = bytes([KEY[0] ^ 1]) + KEY[1:]
        assert not np.any(Stream(KEY, BASE).words(64) == Stream(one_bit, BASE).words(64))

    def test_the_same_identity_replays_the_same_draws(self):
        def draw() -> list[bytes]:
            replayed = Stream(KEY, dataclasses.replace(BASE))
            return [replayed.words(5).tobytes(), replayed.normal(7).tobytes(), replayed.words(1).tobytes()]

        assert draw() == draw()

    def test_a_stream_moves_on_and_never_repeats_itself(self):
        words = stream().words(20_000)
        assert len(np.unique(words)) == len(words)
        continued = stream()
        pieces = np.concatenate([continued.words(n) for n in (1, 7, 0, 8, 9_984, 10_000)])
        np.testing.assert_array_equal(pieces, words)

    @settings(max_examples=300)
    @given(identities, identities)
    def test_the_encoding_is_injective(self, first, second):
        assert (first.encode() == second.encode()) == (first == second)

    def test_shifting_bytes_between_purpose_and_digest_makes_another_encoding(self):
        pieces = [("ab", b"c"), ("a", b"bc"), ("abc", b""), ("", b"abc")]
        codes = {StreamId(purpose=p, client=0, round=0, digest=d).encode() for p, d in pieces}
        assert len(codes) == len(pieces)

    def test_shifting_bytes_between_the_numbers_and_their_neighbours_makes_another_encoding(self):
        """Without the length of the purpose both would be 17 zero bytes."""
        first = StreamId(purpose="", client=0, round=0, digest=b"\0")
        second = StreamId(purpose="\0", client=0, round=0, digest=b"")
        assert first.encode() != second.encode()

    @pytest.mark.parametrize("length", [0, 16, KEY_BYTES - 1, KEY_BYTES + 1])
    def test_a_key_of_the_wrong_length_is_refused(self, length):
        with pytest.raises(ValueError, match="32 bytes"):
            Stream(bytes(length), BASE)

    def test_keys_from_the_system_differ_and_keys_from_a_seed_are_a_function_of_it(self):
        assert new_key() != new_key()
        assert len(new_key()) == len(key_from_seed(0)) == KEY_BYTES
        assert key_from_seed(1) == key_from_seed(1) != key_from_seed(11)

    def test_two_clients_with_the_same_seed_never_share_noise(self):
        """Elsewhere two workers seeded alike drew the same noise: their updates' difference was bare."""
        first, second = normal_rows([stream(0), stream(1)], 50_000).astype(np.float64)
        correlation = float(first @ second) / np.sqrt(float(first @ first) * float(second @ second))
        assert abs(correlation) < 5.3 / np.sqrt(len(first))
        assert np.std(first - second) == pytest.approx(np.sqrt(2.0), rel=0.02)

    def test_no_two_of_many_streams_are_correlated(self):
        names = ("cohort", "batches", "record noise", "client noise")
        streams = [
            stream(client, purpose=purpose, round=round)
            for purpose, client, round in itertools.product(names, (-1, 0, 1), (1, 2))
        ]
        rows = normal_rows(streams, 20_000).astype(np.float64)
        correlations = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
        worst = 2.0 * stats.norm.sf(np.abs(correlations).max() * np.sqrt(rows.shape[1])) * len(correlations)
        assert worst > ALARM


class TestPublicGenerator:
    def test_purposes_and_seeds_give_different_sequences(self):
        draws = {
            public_generator(seed, purpose).integers(2**62)
            for seed, purpose in itertools.product((0, 1, 10), ("partition", "model", "0 model"))
        }
        assert len(draws) == 9

    def test_it_replays(self):
        assert public_generator(5, "a").random() == public_generator(5, "a").random()


class TestBernoulli:
    @pytest.mark.parametrize("rate", [0.5, 0.3, 0.1, 0.01, 1e-3, 0.999])
    def test_hits_follow_the_rate_and_a_rate_a_little_off_does_not_pass(self, rate):
        trials = 400_000
        hits = int(stream().bernoulli(rate, (trials,)).sum())
        assert stats.binomtest(hits, trials, rate).pvalue > ALARM
        assert stats.binomtest(hits, trials, min(0.9999, rate * 1.5)).pvalue < ALARM
        assert stats.binomtest(hits, trials, rate / 1.5).pvalue < ALARM

    def test_hits_are_independent_of_the_previous_one(self):
        hits = stream().bernoulli(0.3, (200_000,))
        pairs = 2 * hits[:-1].astype(int) + hits[1:]
        expected = np.array([0.49, 0.21, 0.21, 0.09]) * len(pairs)
        # Overlapping pairs: three degrees of freedom less one for each margin, so two are generous.
        assert stats.chi2.sf(((np.bincount(pairs) - expected) ** 2 / expected).sum(), 2) > ALARM

    def test_rate_one_always_happens_and_rate_zero_never(self):
        assert stream().bernoulli(1.0, (1000,)).all()
        assert not stream().bernoulli(0.0, (1000,)).any()

    def test_a_tiny_rate_does_not_round_up(self):
        assert not stream().bernoulli(1e-12, (100_000,)).any()

    def test_the_threshold_is_exact_to_the_last_bit_of_the_rate(self):
        """A rate a hair above a draw is hit by it, one a hair below is not."""
        for client, word in enumerate(int(stream(client).words(1)[0]) for client in range(50)):
            drawn = word * 2.0**-64
            assert stream(client).bernoulli(float(np.nextafter(drawn, 1.0)), (1,))[0]
            assert not stream(client).bernoulli(float(np.nextafter(drawn, 0.0)), (1,))[0]

    def test_the_largest_rate_below_one_is_not_one(self):
        rate = float(np.nextafter(1.0, 0.0))
        assert int(rate * 2.0**64) == 2**64 - 2**11

    def test_shapes_are_filled_in_order(self):
        flat = stream().bernoulli(0.4, (30,))
        np.testing.assert_array_equal(stream().bernoulli(0.4, (5, 6)).ravel(), flat)
        assert stream().bernoulli(0.4, (0,)).shape == (0,)
        assert stream().bernoulli(0.4, (3, 0)).shape == (3, 0)


class TestNormalRows:
    @pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 4095, 4097, 8191, 8192, 8193, 16_385])
    def test_a_row_depends_on_its_own_stream_alone_whatever_the_packing(self, count):
        together = normal_rows([stream(client) for client in range(9)], count)
        assert together.shape == (9, count)
        assert together.dtype == np.float32
        for start, stop in [(0, 1), (4, 5), (8, 9), (2, 7), (0, 9)]:
            part = normal_rows([stream(client) for client in range(start, stop)], count)
            assert part.tobytes() == together[start:stop].tobytes()

    def test_successive_calls_continue_each_stream_whatever_the_packing(self):
        streams = [stream(client) for client in range(3)]
        together = [normal_rows(streams, 9_000) for _ in range(2)]
        alone = stream(1)
        for step in together:
            np.testing.assert_array_equal(normal_rows([alone], 9_000)[0], step[1])
        assert not np.array_equal(together[0], together[1])

    def test_no_stream_and_no_parameter_give_empty_arrays(self):
        assert normal_rows([], 5).shape == (0, 5)
        assert normal_rows([stream()], 0).shape == (1, 0)

    def test_moments_are_those_of_a_standard_normal(self, normals):
        n = len(normals)
        limit = 5.4  # two-sided 7e-8
        # Variances of the sample moments of N(0, 1): 1, 2, 15, 96.
        for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
            assert abs((normals**power).mean() - mean) < limit * np.sqrt(variance / n), power

    def test_kolmogorov_smirnov_accepts_it_and_rejects_a_small_shift(self, normals):
        assert stats.kstest(normals[:400_000], "norm").pvalue > ALARM
        assert stats.kstest(normals[:400_000] + 0.015, "norm").pvalue < ALARM

    def test_chi_square_over_equal_bins_accepts_it_and_rejects_two_percent_more_scale(self, normals):
        edges = stats.norm.ppf(np.linspace(0, 1, 201))

        def p_value(x: np.ndarray) -> float:
            return float(stats.chisquare(np.histogram(x, edges)[0]).pvalue)

        assert p_value(normals) > ALARM
        assert p_value(normals * 1.02) < ALARM

    @pytest.mark.parametrize("limit", [2.0, 3.0, 4.0, 4.5])
    def test_both_tails_have_their_probability(self, normals, limit):
        for tail in (normals > limit, normals < -limit):
            assert stats.binomtest(int(tail.sum()), len(normals), stats.norm.sf(limit)).pvalue > ALARM

    def test_the_tail_reaches_beyond_five_and_every_draw_is_finite(self, normals):
        assert np.isfinite(normals).all()
        assert 4.9 < np.abs(normals).max() < 9.5

    def test_neighbours_and_halves_of_a_pair_are_uncorrelated(self, normals):
        block = normals[:8192]
        half = len(block) // 2
        for first, second in [(normals[:-1], normals[1:]), (block[:half], block[half:])]:
            for f in (np.asarray, np.square):
                r = np.corrcoef(f(first), f(second))[0, 1]
                assert abs(r) * np.sqrt(len(first)) < 5.4

    def test_scale_is_told_both_ways(self, normals):
        sample = normals[:2000]
        assert scale_is(sample, 1.0)
        assert not scale_is(sample * (2 / 3), 1.0)
        assert not scale_is(sample * 1.5, 1.0)


class TestNormal:
    def test_it_is_double_precision_and_an_odd_count_is_the_start_of_the_next_even_pairing(self):
        values = stream().normal(1001)
        assert values.dtype == np.float64
        assert values.shape == (1001,)
        assert stream().normal(0).shape == (0,)
        # Not single precision in disguise: low mantissa bits are in use.
        assert np.mean(values == values.astype(np.float32)) < 0.01

    def test_it_is_standard_normal(self):
        values = stream(1).normal(300_000)
        assert stats.kstest(values, "norm").pvalue > ALARM
        for power, mean, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
            limit = 5.4 * np.sqrt(variance / len(values))
            assert abs((values**power).mean() - mean) < limit, power
            # An error of two percent in the scale would show.
            assert power != 2 or abs((1.02 * values**power).mean() - mean) > limit
        for limit in (3.0, 4.0):
            tail = int((np.abs(values) > limit).sum())
            assert stats.binomtest(tail, len(values), 2 * stats.norm.sf(limit)).pvalue > ALARM
        for factor, verdict in [(1.0, True), (2 / 3, False), (1.5, False)]:
            assert scale_is(values[:2000] * factor, 1.0) is verdict

    def test_no_draw_is_longer_than_the_grid_allows_for(self):
        """The grid leaves room for 9.5 standard deviations: the smallest uniform is 2^-65."""
        assert np.sqrt(-2.0 * np.log(0.5 * 2.0**-64)) < 9.5


class TestTheStatisticalTestItself:
    def test_it_raises_no_false_alarm(self):
        rng = np.random.default_rng(0)
        assert all(scale_is(rng.normal(0, 2.5, 400), 2.5) for _ in range(3000))

    @pytest.mark.parametrize("factor", [0.0, 2 / 3, 1.5])
    def test_it_never_misses_two_thirds_or_three_halves(self, factor):
        rng = np.random.default_rng(1)
        assert not any(scale_is(rng.normal(0, factor, 400), 1.0) for _ in range(3000))

    def test_its_false_alarm_rate_is_the_stated_one(self):
        """The verdict turns exactly where the chi-square quantile of 5e-8 lies."""
        n = 400
        edge = np.sqrt(stats.chi2.isf(0.5e-7, n) / n)
        assert scale_is(np.full(n, edge * 0.9999), 1.0)
        assert not scale_is(np.full(n, edge * 1.0001), 1.0)
