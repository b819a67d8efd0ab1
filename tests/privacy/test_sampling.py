"""Sampling is Poisson as accounted: independent, complete, never cut, empty where it is empty."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedsafe.privacy.sampling import batch_capacity, poisson_batches, poisson_cohort
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(4)
BASE = StreamId(purpose="cohort", client=-1, round=1, digest=b"x")
ALARM = 1e-7


def stream(round: int, purpose: str = "cohort") -> Stream:
    return Stream(KEY, dataclasses.replace(BASE, round=round, purpose=purpose))


@pytest.fixture(scope="module")
def cohorts() -> list[np.ndarray]:
    return [poisson_cohort(stream(round), 50, 0.2) for round in range(4000)]


class TestCohort:
    def test_every_client_has_the_declared_rate(self, cohorts):
        counts = np.bincount(np.concatenate(cohorts), minlength=50)
        n = len(cohorts)
        statistic = ((counts - 0.2 * n) ** 2 / (n * 0.2 * 0.8)).sum()
        assert 2 * min(stats.chi2.sf(statistic, 50), stats.chi2.cdf(statistic, 50)) > ALARM
        # The same test refuses a rate that is five percent off.
        off = ((counts - 0.21 * n) ** 2 / (n * 0.21 * 0.79)).sum()
        assert stats.chi2.sf(off, 50) < ALARM

    def test_sizes_vary_as_a_binomial_and_not_as_a_fixed_size(self, cohorts):
        sizes = np.array([len(cohort) for cohort in cohorts])
        edges = np.arange(4, 18)
        observed = np.bincount(np.clip(sizes, 4, 17) - 4, minlength=14)
        binomial = stats.binom(50, 0.2)
        expected = np.array([binomial.cdf(4), *binomial.pmf(edges[1:-1]), binomial.sf(16)]) * len(sizes)
        assert stats.chisquare(observed, expected).pvalue > ALARM

    def test_two_clients_are_drawn_independently(self, cohorts):
        present = np.zeros((len(cohorts), 50))
        for row, cohort in zip(present, cohorts, strict=True):
            row[cohort] = 1.0
        correlations = np.corrcoef(present.T)[np.triu_indices(50, 1)]
        assert 2 * stats.norm.sf(np.abs(correlations).max() * np.sqrt(len(cohorts))) * 1225 > ALARM

    def test_rounds_are_drawn_independently(self, cohorts):
        present = np.array([0 in cohort for cohort in cohorts], float)
        assert abs(np.corrcoef(present[:-1], present[1:])[0, 1]) * np.sqrt(len(cohorts)) < 5.4

    def test_an_empty_cohort_happens_as_often_as_it_should(self):
        empty = sum(len(poisson_cohort(stream(round), 3, 0.3)) == 0 for round in range(3000))
        assert stats.binomtest(empty, 3000, 0.7**3).pvalue > ALARM
        assert empty > 0

    def test_members_ascend_and_rate_one_takes_everybody(self, cohorts):
        assert all((np.diff(cohort) > 0).all() for cohort in cohorts)
        np.testing.assert_array_equal(poisson_cohort(stream(0), 7, 1.0), np.arange(7))


class TestBatches:
    def test_every_record_and_every_step_has_the_declared_rate(self):
        batches = poisson_batches(stream(1, "batches"), 400, 0.1, 1000)
        assert batches.shape == (1000, 400)
        for axis, trials in ((0, 1000), (1, 400)):
            counts = batches.sum(axis)
            statistic = ((counts - 0.1 * trials) ** 2 / (trials * 0.09)).sum()
            assert stats.chi2.sf(statistic, counts.size) > ALARM
            assert stats.chi2.cdf(statistic, counts.size) > ALARM
            off = ((counts - 0.12 * trials) ** 2 / (trials * 0.12 * 0.88)).sum()
            assert stats.chi2.sf(off, counts.size) < ALARM

    def test_a_batch_is_neither_a_permutation_nor_cut_at_its_mean(self):
        batches = poisson_batches(stream(2, "batches"), 40, 0.1, 500)
        sizes = batches.sum(1)
        assert sizes.min() == 0
        assert sizes.max() > 8
        appearances = batches[:10].sum(0)  # one epoch: a shuffle would show each record once
        assert appearances.min() == 0
        assert appearances.max() > 1

    def test_an_empty_batch_is_a_step_too(self):
        batches = poisson_batches(stream(3, "batches"), 2, 0.05, 50)
        assert batches.shape == (50, 2)
        assert (batches.sum(1) == 0).sum() > 30

    def test_a_client_without_records_has_empty_batches(self):
        assert poisson_batches(stream(4, "batches"), 0, 0.1, 3).shape == (3, 0)


class TestCapacity:
    @given(st.integers(0, 5000), st.floats(1e-4, 1.0), st.data())
    def test_no_batch_is_ever_cut(self, records, rate, data):
        largest = data.draw(st.integers(0, records))
        assert batch_capacity(records, rate, largest) >= largest

    @given(st.integers(1, 5000), st.floats(1e-4, 1.0), st.data())
    def test_it_depends_on_the_public_numbers_alone_unless_a_batch_overflows(self, records, rate, data):
        mean = records * rate
        usual = min(records, math.ceil(mean + 3 * math.sqrt(mean * (1 - rate))))
        largest = data.draw(st.integers(0, usual))
        assert batch_capacity(records, rate, largest) == batch_capacity(records, rate, 0)

    @given(st.integers(1, 5000), st.floats(1e-4, 1.0))
    def test_it_never_falls_as_batches_grow_and_is_bounded_by_the_records(self, records, rate):
        capacities = [batch_capacity(records, rate, largest) for largest in range(0, records + 1, 37)]
        assert capacities == sorted(capacities)
        assert capacities[-1] <= max(16, 1.5 * records + 16)

    def test_overflow_is_rare(self):
        """Three standard deviations: padding costs little, and hardly any round needs more."""
        sizes = poisson_batches(stream(5, "batches"), 300, 0.1, 5000).sum(1)
        overflowing = [batch_capacity(300, 0.1, int(s)) != batch_capacity(300, 0.1, 0) for s in sizes]
        assert np.mean(overflowing) < 0.005

    def test_there_are_few_buckets(self):
        """Clients share a stack only if they share a capacity."""
        capacities = {batch_capacity(records, 0.1, 0) for records in range(1, 5001)}
        assert len(capacities) <= 16
        assert all(capacity % 16 == 0 for capacity in capacities)
