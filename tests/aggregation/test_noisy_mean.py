"""The noisy mean: one client moves the sum by at most the clip, and the noise has the claimed scale."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from test_rng import scale_is

from fedsafe.aggregation import Fold, NoisyMean, Updates
from fedsafe.privacy.clipping import MARGIN
from fedsafe.privacy.mechanisms import from_grid, grid_bits
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(8)
CLIP = 1.5
BITS = grid_bits(CLIP, 100, 2.0)


def mean_of(noise: float = 2.0, clip: float = CLIP, divisor: float = 4.0) -> NoisyMean:
    return NoisyMean(clip=clip, noise=noise, bits=grid_bits(clip, 100, noise), divisor=divisor)


def stream(round: int = 1, digest: bytes = b"d") -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=round, digest=digest))


def fold_of(rule: NoisyMean, rows: NDArray[np.float64], examples: NDArray[np.float64] | None = None) -> Fold:
    n = len(rows)
    weights = np.ones(n) if examples is None else examples
    updates = Updates(clients=np.arange(n), rows=np.asarray(rows, np.float64), examples=weights)
    return rule.add(rule.zero(rows.shape[1]), updates)


def distance(rule: NoisyMean, first: Fold, second: Fold) -> Fraction:
    """Squared distance of two sums before noise, exactly."""
    moved = first.arrays["total"].astype(object) - second.arrays["total"].astype(object)
    return sum((Fraction(int(v), 2**rule.bits) ** 2 for v in moved), Fraction(0))


any_row = hnp.arrays(np.float64, (1, 5), elements=st.floats(width=64))
some_rows = hnp.arrays(np.float64, st.tuples(st.integers(0, 6), st.just(5)), elements=st.floats(-1e9, 1e9))


class TestSensitivity:
    @given(any_row, some_rows, st.sampled_from([1e-3, 1.0, 1.5, 77.0, 1e9]))
    def test_any_client_moves_the_sum_by_at_most_the_clip(self, row, others, clip):
        """Zero-out neighbours: one client with any update, or with none."""
        rule = mean_of(clip=clip)
        without = fold_of(rule, others)
        with_it = rule.merge(without, fold_of(rule, row))
        assert distance(rule, with_it, without) <= Fraction(clip) ** 2

    @given(any_row, any_row, some_rows)
    def test_a_client_with_other_records_moves_it_by_at_most_twice_the_clip(self, row, other_row, others):
        """Replace-one neighbours, which a record-level figure from this mechanism would need."""
        rule = mean_of()
        first, second = (rule.merge(fold_of(rule, others), fold_of(rule, r)) for r in (row, other_row))
        assert distance(rule, first, second) <= (2 * Fraction(CLIP)) ** 2

    def test_the_bound_is_reached_but_for_the_margin(self):
        """A test of an upper bound alone would pass for a sum of zeros."""
        rule = mean_of()
        moved = distance(rule, fold_of(rule, np.full((1, 5), 1e200)), rule.zero(5))
        assert float(moved) ** 0.5 == pytest.approx(CLIP * MARGIN, rel=1e-6)

    def test_a_client_with_half_the_data_has_no_more_influence_than_another(self):
        """Example weights would give one of ten clients half the sum: z = 1 becomes 0.2, 4.4 becomes 33."""
        rule = mean_of()
        rows = np.random.default_rng(0).normal(size=(10, 5))
        examples = np.array([900.0] + [100.0] * 9)
        weighted, equal = fold_of(rule, rows, examples), fold_of(rule, rows)
        np.testing.assert_array_equal(weighted.arrays["total"], equal.arrays["total"])
        alone = fold_of(rule, 1e6 * rows[:1], examples[:1])
        assert distance(rule, alone, rule.zero(5)) <= Fraction(CLIP) ** 2

    def test_many_tensors_share_one_clip(self):
        """A clip for each of 16 tensors would let through four times the norm."""
        rule = mean_of()
        row = np.full((1, 16), 100.0)
        assert distance(rule, fold_of(rule, row), rule.zero(16)) <= Fraction(CLIP) ** 2

    def test_the_workers_clip_cannot_be_bypassed_by_the_number_of_calls(self):
        rule = mean_of()
        fold = rule.zero(5)
        for _ in range(3):
            fold = rule.add(
                fold, Updates(clients=np.array([0]), rows=np.full((1, 5), 9e9), examples=np.ones(1))
            )
        assert distance(rule, fold, rule.zero(5)) <= (3 * Fraction(CLIP)) ** 2


class TestNoise:
    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
    @pytest.mark.parametrize("clip", [0.1, 1.0, 1000.0])
    def test_its_scale_is_noise_times_clip_over_the_divisor(self, factor, clip):
        rule = mean_of(noise=2.0 * factor, clip=clip, divisor=30.0)
        released = rule.finish(rule.zero(3000), stream())
        assert scale_is(released, 2.0 * clip / 30.0) is (factor == 1.0)

    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
    def test_its_scale_is_the_same_around_a_sum_of_clients(self, factor):
        rule = mean_of(noise=2.0 * factor)
        fold = fold_of(rule, np.random.default_rng(1).normal(size=(20, 3000)))
        exact = from_grid(fold.arrays["total"], rule.bits) / rule.divisor
        assert scale_is(rule.finish(fold, stream()) - exact, 2.0 * CLIP / rule.divisor) is (factor == 1.0)

    def test_it_does_not_depend_on_who_replied(self):
        rule = mean_of()
        draws = []
        for count in (0, 1, 30):
            fold = fold_of(rule, np.random.default_rng(count).normal(size=(count, 64)))
            released = np.rint(np.ldexp(rule.finish(fold, stream()) * rule.divisor, rule.bits))
            draws.append(released.astype(np.int64) - fold.arrays["total"])
        np.testing.assert_array_equal(draws[0], draws[1])
        np.testing.assert_array_equal(draws[0], draws[2])

    def test_a_nan_update_leaves_the_noise_as_it_was(self):
        """Elsewhere NaN passes the clip and takes the noise with it."""
        rule = mean_of()
        released = rule.finish(fold_of(rule, np.full((1, 500), np.nan)), stream())
        np.testing.assert_array_equal(released, rule.finish(rule.zero(500), stream()))
        assert scale_is(released, 2.0 * CLIP / rule.divisor)

    def test_an_empty_cohort_still_releases_noise(self):
        """Elsewhere an empty cohort is skipped: that nobody was there is then in the clear."""
        rule = mean_of()
        released = rule.finish(rule.zero(500), stream())
        assert (released != 0.0).all()
        assert scale_is(released, 2.0 * CLIP / rule.divisor)

    def test_a_resumed_round_draws_the_same_noise_for_the_same_input_only(self):
        rule = mean_of()
        fold = fold_of(rule, np.ones((2, 50)))
        first = rule.finish(fold, stream(3, b"parameters and plan"))
        np.testing.assert_array_equal(first, rule.finish(fold, stream(3, b"parameters and plan")))
        for other in (stream(4, b"parameters and plan"), stream(3, b"other parameters")):
            assert not (first == rule.finish(fold, other)).any()


class TestDivisor:
    @pytest.mark.parametrize("replies", [0, 1, 4, 12])
    def test_it_is_the_public_constant_and_never_the_number_of_replies(self, replies):
        """Dividing by the realised cohort releases its size, and doubles the sensitivity."""
        rule = mean_of(noise=1e-9, divisor=4.0)
        rows = np.full((replies, 2), 0.5)
        released = rule.finish(fold_of(rule, rows), stream())
        np.testing.assert_allclose(released, replies * 0.5 / 4.0, atol=1e-8)

    def test_the_sum_of_clients_is_exact_on_the_grid(self):
        rule = mean_of()
        rows = np.random.default_rng(2).normal(size=(40, 5)) * 0.1
        expected = [sum(int(np.trunc(np.ldexp(v, rule.bits))) for v in column) for column in rows.T]
        assert fold_of(rule, rows).arrays["total"].tolist() == expected
