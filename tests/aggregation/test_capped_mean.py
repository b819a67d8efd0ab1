"""The capped mean: weights that follow the data, up to a cap, and a sensitivity that no client can raise."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from test_contract import plan_of
from test_rng import scale_is

from fedsafe.aggregation import Fold, Updates
from fedsafe.aggregation.capped_mean import CappedMean
from fedsafe.errors import ConfigError
from fedsafe.privacy.clipping import MARGIN
from fedsafe.privacy.mechanisms import from_grid, grid_bits
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(18)
CLIP = 1.5


def mean_of(noise: float = 2.0, divisor: float = 4.0, cap: float = 50.0) -> CappedMean:
    return CappedMean(clip=CLIP, noise=noise, bits=grid_bits(CLIP, 100, noise), divisor=divisor, cap=cap)


def stream() -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=1, digest=b"d"))


def fold_of(rule: CappedMean, rows: NDArray[np.float64], examples: NDArray[np.float64]) -> Fold:
    return rule.add(
        rule.zero(rows.shape[1]), Updates(clients=np.arange(len(rows)), rows=rows, examples=examples)
    )


def distance(rule: CappedMean, first: Fold, second: Fold) -> Fraction:
    moved = first.arrays["total"].astype(object) - second.arrays["total"].astype(object)
    return sum((Fraction(int(v), 2**rule.bits) ** 2 for v in moved), Fraction(0))


any_row = hnp.arrays(np.float64, (1, 4), elements=st.floats(width=64))
any_count = hnp.arrays(np.float64, (1,), elements=st.floats(width=64))
rows_of_others = hnp.arrays(np.float64, (3, 4), elements=st.floats(-1e9, 1e9))


@given(any_row, any_count, rows_of_others)
def test_one_client_moves_the_sum_by_at_most_the_clip_however_many_records_it_claims(row, count, others):
    rule = mean_of()
    without = fold_of(rule, others, np.array([1.0, 60.0, 1e9]))
    assert distance(rule, rule.merge(without, fold_of(rule, row, count)), without) <= Fraction(CLIP) ** 2


def test_the_bound_is_reached_by_a_client_at_the_cap():
    rule = mean_of()
    moved = distance(rule, fold_of(rule, np.full((1, 4), 1e9), np.array([50.0])), rule.zero(4))
    assert float(moved) ** 0.5 == pytest.approx(CLIP * MARGIN, rel=1e-6)


def test_weights_follow_the_records_up_to_the_cap():
    found = mean_of().weights(np.array([0.0, 5.0, 25.0, 50.0, 51.0, 1e300, np.nan, np.inf, -5.0]))
    assert found.tolist() == [0.0, 0.1, 0.5, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def test_the_clip_comes_before_the_weight():
    """The other way round a small client is not cut at all, and a tenth of a huge update is huge."""
    rule = mean_of()
    folds = [fold_of(rule, np.full((1, 4), size), np.array([5.0])) for size in (1e3, 1e9)]
    for fold in folds:
        norm = np.linalg.norm(from_grid(fold.arrays["total"], rule.bits))
        assert norm == pytest.approx(0.1 * CLIP * MARGIN, rel=1e-6)


@pytest.mark.parametrize("replies", [0, 1, 7])
def test_the_denominator_is_fixed_whoever_replies(replies):
    """Dividing by the realised weights would double the sensitivity, and say who was there."""
    rule = mean_of(noise=1e-9)
    rows, counts = np.full((replies, 2), 0.5), np.full(replies, 25.0)
    released = rule.finish(fold_of(rule, rows, counts), stream())
    np.testing.assert_allclose(released, replies * 0.25 / 4.0, atol=1e-8)


@pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
def test_the_noise_is_that_of_the_clip_and_not_of_the_weights(factor):
    rule = mean_of(noise=2.0 * factor)
    for counts in (np.full(9, 1.0), np.full(9, 1e6)):
        fold = fold_of(rule, np.random.default_rng(1).normal(size=(9, 3000)), counts)
        exact = from_grid(fold.arrays["total"], rule.bits) / rule.divisor
        assert scale_is(rule.finish(fold, stream()) - exact, 2.0 * CLIP / rule.divisor) is (factor == 1.0)


def test_the_plan_gives_everything_but_the_cap():
    built = CappedMean.from_plan(plan_of(1.0), cap=40, mean_weight=0.8)
    assert (built.clip, built.noise, built.bits, built.cap) == (1.5, 2.0, 40, 40.0)
    assert built.divisor == pytest.approx(4.5 * 0.8)


@pytest.mark.parametrize("options", [{"cap": 0}, {"cap": -3}, {"cap": "x"}, {"cap": 5, "mean_weight": 0.0},
                                     {"cap": 5, "mean_weight": 1.5}, {"cap": float("nan")}])  # fmt: skip
def test_options_that_are_no_cap_are_refused(options):
    with pytest.raises(ConfigError, match="capped_mean"):
        CappedMean.from_plan(plan_of(1.0), **options)
