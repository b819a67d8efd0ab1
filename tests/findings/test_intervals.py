"""Intervals against published tables, scipy, and their own coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsafe.errors import ConfigError
from fedsafe.findings import (
    bootstrap,
    bounded_mean,
    clopper_pearson,
    combine_shares,
    newcombe,
    percentile,
    t_interval,
    wilson,
)


@pytest.mark.parametrize(
    ("k", "n", "score", "exact"),
    [
        (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)),
        (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
        (0, 20, (0.0, 0.1611), (0.0, 0.1684)),
        (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)),
    ],
)
def test_single_proportions_equal_the_table_of_newcombe_1998(k, n, score, exact):
    assert wilson(k, n) == pytest.approx(score, abs=5e-5)
    assert clopper_pearson(k, n) == pytest.approx(exact, abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_differences_equal_the_table_of_newcombe_1998(counts, expected):
    assert newcombe(*counts) == pytest.approx(expected, abs=5e-5)


@given(
    st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999)
)
def test_proportions_equal_scipy_and_hold_the_share(counts, confidence):
    k, n = counts
    for ours, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        low, high = ours(k, n, confidence)
        theirs = stats.binomtest(k, n).proportion_ci(confidence, method=method)
        assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert 0.0 <= low <= k / n <= high <= 1.0


def test_an_empty_sample_says_nothing_about_its_proportion():
    assert wilson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
@pytest.mark.parametrize(("k", "n", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0), (1, 2, 0.0)])
def test_impossible_counts_and_confidences_are_refused(interval, k, n, confidence):
    with pytest.raises(ConfigError, match="not"):
        interval(k, n, confidence)


def test_small_samples_are_refused_by_name():
    for call, word in (
        (lambda: t_interval([1.0]), "t interval"),
        (lambda: percentile([]), "percentile"),
        (lambda: newcombe(0, 0, 1, 2), "empty"),
        (lambda: bootstrap([1.0], lambda x: x.mean(axis=1), np.random.default_rng(0)), "bootstrap"),
    ):
        with pytest.raises(ConfigError, match=word):
            call()


def test_a_bounded_mean_of_alike_values_is_not_a_point():
    (low, high), method = bounded_mean([0.25] * 4, 0.0, 0.25)
    rare = 1 - 0.025 ** (1 / 4)
    assert (low, high) == pytest.approx((0.25 - rare * 0.25, 0.25))
    assert method == "alike, clopper-pearson"
    assert bounded_mean([0.0, 0.0], 0.0, 1.0)[0] == pytest.approx((0.0, 1 - 0.025**0.5))
    values = np.random.default_rng(0).random(30)
    assert bounded_mean(values, 0.0, 1.0) == (pytest.approx(t_interval(values)), "t")
    assert bounded_mean([0.0, 1.0], 0.0, 1.0)[0] == (0.0, 1.0)


def test_alike_values_are_covered_however_rare_others_are():
    rng, n, missed = np.random.default_rng(1), 20, 0
    for share in (0.02, 0.1, 0.15):
        draws = (rng.random((400, n)) < share).astype(float)
        for row in draws[np.ptp(draws, axis=1) == 0]:
            low, high = bounded_mean(row, 0.0, 1.0)[0]
            missed += not low <= share <= high
    assert missed == 0


def test_t_interval_equals_scipy():
    sample = np.random.default_rng(1).exponential(size=37)
    expected = stats.ttest_1samp(sample, 0.0).confidence_interval(0.9)
    assert t_interval(sample, 0.9) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize(("method", "theirs"), [("percentile", "percentile"), ("bca", "BCa")])
def test_bootstrap_agrees_with_scipy_on_a_skewed_sample(method, theirs):
    sample = np.random.default_rng(2).lognormal(size=60)
    ours = bootstrap(
        sample, lambda x: x.mean(axis=1), np.random.default_rng(3), resamples=20_000, method=method
    )
    oracle = stats.bootstrap(
        (sample,), np.mean, n_resamples=20_000, method=theirs, rng=np.random.default_rng(4)
    ).confidence_interval
    width = oracle.high - oracle.low
    assert ours == pytest.approx((oracle.low, oracle.high), abs=0.03 * width)


def test_bca_differs_from_percentile_where_the_sample_is_skewed():
    sample = np.random.default_rng(2).lognormal(size=60)
    ends = [
        bootstrap(sample, lambda x: x.mean(axis=1), np.random.default_rng(3), resamples=20_000, method=method)
        for method in ("percentile", "bca")
    ]
    assert ends[1][1] > ends[0][1] + 0.02


def test_bootstrap_resamples_whole_rows_and_repeats_from_its_generator():
    pairs = np.random.default_rng(5).normal(size=(50, 2))
    pairs[:, 1] = pairs[:, 0] + 3.0

    def gap(x):
        return (x[:, :, 1] - x[:, :, 0]).mean(axis=1)

    low, high = bootstrap(pairs, gap, np.random.default_rng(6), resamples=500)
    assert (low, high) == pytest.approx((3.0, 3.0))
    spread = [
        bootstrap(pairs[:, 0], lambda x: x.mean(axis=1), np.random.default_rng(7), resamples=300)
        for _ in "ab"
    ]
    assert spread[0] == spread[1]


def test_bootstrap_of_a_constant_is_a_point():
    assert bootstrap(np.full(9, 2.5), lambda x: x.mean(axis=1), np.random.default_rng(0)) == (2.5, 2.5)


def test_combined_shares_cover_a_mean_of_recalls():
    rng = np.random.default_rng(8)
    trials, shares = np.array([40, 200, 15]), np.array([0.95, 0.6, 0.3])
    hits = 0
    for _ in range(1000):
        low, high = combine_shares(rng.binomial(trials, shares), trials, np.full(3, 1 / 3))
        hits += low <= shares.mean() <= high
    assert 930 <= hits <= 985
