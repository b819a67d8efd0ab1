"""Rényi accounting: where a loss distribution fails or does not exist, and when a run adapts."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from fedsafe.errors import CalibrationError, ConfigError, LedgerError, PlanViolation
from fedsafe.privacy.accounting import (
    COARSE,
    FixedSizeGaussian,
    RdpFilter,
    SampledGaussian,
    Search,
    account,
    curves,
    epsilon,
    group_epsilon,
    legacy_rdp_epsilon,
    rdp_epsilon,
    search_cost,
    searches_cost,
)
from fedsafe.privacy.accounting.renyi import RenyiCurve, renyi

DELTA = 1e-5


class TestKnownValues:
    def test_divergences_of_the_sampled_gaussian(self):
        """dp-accounting, rdp_privacy_accountant_test, test_compute_rdp_poisson_sampled_gaussian."""
        release = SampledGaussian(rate=0.01, noise=2.5, count=50)
        found = 50 * renyi(release, (1.5, 2.5, 5.0, 50.0, 100.0))
        published = [0.000670579741, 0.0010854871, 0.00218075656, 0.0238460375, 167.416308]
        assert found == pytest.approx(np.array(published), rel=1e-4)

    @pytest.mark.parametrize(
        ("rate", "noise", "count", "delta", "published"),
        [
            (0.0025, 1.3, 6000, 1e-5, 0.7242234026109595),  # TensorFlow Privacy, compute_dp_sgd_privacy_test
            (0.001, 1.0, 30000, 1e-7, 1.4154988495444842),  # the same
            (0.01, 0.7, 120, 1e-5, 3.2392676),  # the same, its example
            (0.01, 0.35, 120, 1e-5, 22.6248601),  # the same, with microbatches
            (0.04, 1.5, 2250, 1e-5, 7.32911117143),  # Opacus, accountants_test
            (0.04, 1.416, 2250, 1e-5, 8.0),  # the same, get_noise_multiplier
            (0.04, 1.3562, 2000, 1e-5, 8.0),  # the same
            (1.0, 4.530877117, 1, 1e-6, 1.0),  # dp-accounting, rdp_privacy_accountant_test
        ],
    )
    def test_others_rdp_figures_are_labelled_contrasts_that_ours_reproduces(
        self, rate, noise, count, delta, published
    ):
        release = SampledGaussian(rate=rate, noise=noise, count=count)
        assert rdp_epsilon(release, delta) == pytest.approx(published, rel=2e-4)
        assert epsilon(release, delta, COARSE) < published

    @pytest.mark.parametrize(
        ("rate", "count", "pld", "rdp"), [(0.0064, 782, 1.199, 1.616), (1.0, 5, 12.595, 13.376)]
    )
    def test_a_published_statement(self, rate, count, pld, rdp):
        """TensorFlow Privacy, compute_dp_sgd_privacy_statement: 10,000 records, batch 64, noise 2, microbatches."""
        release = SampledGaussian(rate=rate, noise=1.0, count=count)
        assert epsilon(release, 1e-6) == pytest.approx(pld, abs=6e-4)
        assert rdp_epsilon(release, 1e-6) == pytest.approx(rdp, abs=6e-4)

    def test_the_conversion_of_a_pure_bound(self):
        """dp-accounting, rdp_privacy_accountant_test, test_compute_epsilon_delta_pure_dp."""
        curve = RenyiCurve(orders=tuple(map(float, range(2, 33))), values=(1.1,) * 31)
        assert curve.epsilon(1e-5) == pytest.approx(1.32783806176)
        assert curve.order(1e-5) == 32

    @pytest.mark.parametrize(
        ("noise", "steps", "printed"), [(1.3, 3750, 1.16), (1.1, 15000, 2.91), (0.7, 11250, 6.86)]
    )
    def test_the_figures_that_the_opacus_mnist_table_prints_are_the_legacy_conversion(
        self, noise, steps, printed
    ):
        """pytorch/opacus, examples/mnist_README."""
        release = SampledGaussian(rate=0.004, noise=noise, count=steps)
        assert legacy_rdp_epsilon(release, DELTA) == pytest.approx(printed, abs=0.006)

    @pytest.mark.parametrize(
        ("population", "size", "noise", "count", "delta", "bound"),
        [(1000, 50, 4.0, 100, 1e-5, 2.49254), (100, 10, 2.0, 20, 1e-4, 5.31715)],
    )
    def test_cohorts_of_fixed_size(self, population, size, noise, count, delta, bound):
        """Computed with dp-accounting 0.6.0: SampledWithoutReplacementDpEvent under REPLACE_ONE, half the noise."""
        release = FixedSizeGaussian(population=population, size=size, noise=noise, count=count)
        assert epsilon(release, delta) == pytest.approx(bound, abs=2e-5)

    @pytest.mark.parametrize(("noise", "bound"), [(1.0, 83.9), (2.0, 14.05), (4.0, 5.38)])
    def test_the_fixed_column_of_the_federated_table(self, noise, bound):
        """N = 1000, m = 100, R = 100: half the noise, since replacing moves the sum twice as far."""
        release = FixedSizeGaussian(population=1000, size=100, noise=noise, count=100)
        assert epsilon(release, DELTA) == pytest.approx(bound, rel=2e-3)


class TestReplacedElements:
    def test_without_sampling_the_integral_meets_the_closed_form(self):
        nearly = SampledGaussian(rate=1.0 - 1e-12, noise=2.0, count=1, adjacency="replace-one")
        whole = SampledGaussian(rate=1.0, noise=2.0, count=1, adjacency="replace-one")
        assert renyi(nearly, (2.0, 8.0, 32.0)) == pytest.approx(renyi(whole, (2.0, 8.0, 32.0)), rel=1e-6)
        assert renyi(whole, (3.0,)) == pytest.approx([3.0 * 4.0 / (2.0 * 4.0)])

    @pytest.mark.parametrize(("rate", "noise", "alpha"), [(0.1, 1.0, 4.0), (0.4, 0.6, 2.5)])
    def test_the_integral_is_that_of_adaptive_quadrature(self, rate, noise, alpha):
        def log_mixture(x, shift):
            first = math.log1p(-rate) + stats.norm.logpdf(x, 0.0, noise)
            return np.logaddexp(first, math.log(rate) + stats.norm.logpdf(x, shift, noise))

        moment, _ = integrate.quad(
            lambda x: math.exp(alpha * log_mixture(x, -1.0) + (1 - alpha) * log_mixture(x, 1.0)),
            -25,
            25,
            limit=500,
        )
        release = SampledGaussian(rate=rate, noise=noise, count=1, adjacency="replace-one")
        assert renyi(release, (alpha,))[0] == pytest.approx(math.log(moment) / (alpha - 1.0), rel=1e-7)

    def test_it_lies_above_the_loss_distribution(self):
        release = SampledGaussian(rate=0.1, noise=2.0, count=100, adjacency="replace-one")
        assert (
            epsilon(release, DELTA, COARSE)
            < rdp_epsilon(release, DELTA)
            < 1.3 * epsilon(release, DELTA, COARSE)
        )


class TestFallback:
    def test_an_epsilon_of_pld_says_so(self):
        found = account([SampledGaussian(rate=0.1, noise=3.0, count=50)], DELTA)
        assert not found.fallback
        assert found.reason is None
        assert found.accountant.startswith("PLD, dp-accounting")
        assert "interval 0.0001" in found.accountant

    def test_a_wide_distribution_gets_a_wider_interval_first_and_says_so(self, monkeypatch):
        monkeypatch.setattr(curves, "_MOST_POINTS", 100_000)
        curves.count.cache_clear()
        release = SampledGaussian(rate=0.103, noise=0.51, count=3)
        found = account([release], DELTA)
        assert "interval 0.001" in found.accountant
        assert "points" in found.reason
        assert not found.fallback

    def test_when_the_distribution_fails_it_is_rdp_and_says_so(self, monkeypatch):
        monkeypatch.setattr(curves, "_MOST_POINTS", 10)
        curves.count.cache_clear()
        release = SampledGaussian(rate=0.102, noise=3.1, count=50)
        found = account([release], DELTA)
        assert found.fallback
        assert found.accountant.startswith("RDP, dp-accounting")
        assert "order" in found.accountant
        assert "PLD failed" in found.reason
        assert found.epsilon == rdp_epsilon(release, DELTA)

    @pytest.mark.parametrize(
        "error", [MemoryError("no room"), OverflowError("range"), ValueError("not increasing")]
    )
    def test_any_failure_of_the_arithmetic_ends_in_a_bound(self, monkeypatch, error):
        def fail(*arguments):
            raise error

        monkeypatch.setattr(curves, "composed", fail)
        curves.count.cache_clear()
        # Other numbers in each case: figures are remembered.
        release = SampledGaussian(rate=0.1, noise=3.0 + len(str(error)) / 100.0, count=51)
        found = account([release], DELTA)
        assert found.fallback
        assert type(error).__name__ in found.reason
        assert math.isfinite(found.epsilon)

    def test_tiny_noise_has_a_bound(self):
        """TensorFlow Privacy, compute_dp_sgd_privacy_test: 5,907,982 where its accountant has one at all."""
        release = SampledGaussian(rate=1.024e-5, noise=0.1, count=976_562)
        assert 1.0 < rdp_epsilon(release, 1e-7) < 5_907_982.4

    def test_a_delta_beyond_the_arithmetic_falls_back(self):
        found = account([SampledGaussian(rate=0.5, noise=5.0, count=100)], 1e-17, interval=COARSE)
        assert found.fallback
        assert "does not resolve" in found.reason
        assert math.isfinite(found.epsilon)

    def test_fixed_sizes_are_rdp_by_nature_and_not_by_failure(self):
        found = account([FixedSizeGaussian(population=100, size=10, noise=2.0, count=5)], DELTA)
        assert not found.fallback
        assert found.accountant.startswith("RDP")
        assert found.adjacency == "replace-one"

    def test_without_sampling_it_is_exact_and_says_so(self):
        found = account([SampledGaussian(rate=1.0, noise=1.0, count=1)], DELTA)
        assert "exact" in found.accountant
        assert found.epsilon == pytest.approx(4.37718, abs=5e-6)


class TestAdjacency:
    def test_it_can_be_chosen_for_all(self):
        release = SampledGaussian(rate=0.1, noise=2.0, count=100)
        assert account([release], DELTA).epsilon == pytest.approx(2.34, abs=5e-3)
        assert account([release], DELTA, "replace-one").epsilon == pytest.approx(4.37, abs=5e-3)

    def test_fixed_sizes_have_one_alone(self):
        release = FixedSizeGaussian(population=100, size=10, noise=2.0, count=5)
        with pytest.raises(ConfigError, match="no zero-out bound"):
            account([release], DELTA, "zero-out")

    def test_different_ones_do_not_compose(self):
        parts = [
            SampledGaussian(rate=0.1, noise=2.0, count=1, adjacency=a) for a in ("zero-out", "replace-one")
        ]
        with pytest.raises(ConfigError, match="do not compose"):
            account(parts, DELTA)

    def test_fixed_and_poisson_cohorts_compose_under_replace_one(self):
        fixed = FixedSizeGaussian(population=100, size=10, noise=4.0, count=5)
        sampled = SampledGaussian(rate=0.1, noise=4.0, count=5, adjacency="replace-one")
        together = epsilon(fixed, DELTA, also=(sampled,))
        assert max(epsilon(fixed, DELTA), epsilon(sampled, DELTA)) < together
        assert together < epsilon(fixed, DELTA) + epsilon(sampled, DELTA)

    def test_everyone_in_the_cohort_is_no_sampling(self):
        everyone = FixedSizeGaussian(population=10, size=10, noise=2.0, count=10)
        whole = SampledGaussian(rate=1.0, noise=2.0, count=10, adjacency="replace-one")
        assert epsilon(everyone, DELTA) == epsilon(whole, DELTA) == pytest.approx(17.857, abs=0.02)

    @pytest.mark.parametrize(
        ("numbers", "message"),
        [
            ({"population": 10, "size": 11, "noise": 1.0, "count": 1}, "without replacement"),
            ({"population": 10, "size": 0, "noise": 1.0, "count": 1}, "without replacement"),
            ({"population": 10, "size": 1, "noise": -1.0, "count": 1}, "noise multiplier"),
            ({"population": 10, "size": 1, "noise": 1.0, "count": -1}, "count"),
        ],
    )
    def test_numbers_out_of_range_are_refused(self, numbers, message):
        with pytest.raises(ConfigError, match=message):
            FixedSizeGaussian(**numbers)

    @pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
    def test_a_delta_that_is_none_is_refused(self, delta):
        with pytest.raises(ConfigError, match="delta"):
            account([SampledGaussian(rate=0.1, noise=1.0, count=1)], delta)
        with pytest.raises(ConfigError, match="delta"):
            group_epsilon(SampledGaussian(rate=0.1, noise=1.0, count=1), delta, 2)


class TestSearch:
    # The middle row of the Opacus MNIST table.
    RUN = SampledGaussian(rate=0.004, noise=1.1, count=15000)

    @pytest.mark.parametrize(
        ("runs", "bound"), [("logarithmic", 4.15), ("geometric", 4.89), ("poisson", 5.55)]
    )
    def test_ten_runs_on_average(self, runs, bound):
        """Computed with dp-accounting 0.6.0, RepeatAndSelectDpEvent (Papernot and Steinke 2022)."""
        assert rdp_epsilon(self.RUN, DELTA) == pytest.approx(2.503, abs=5e-4)
        found = search_cost([self.RUN], DELTA, mean=10.0, runs=runs)
        assert found.epsilon == pytest.approx(bound, abs=6e-3)
        assert f"a {runs} number of runs, 10 on average" in found.accountant

    def test_more_runs_cost_more_and_one_is_not_free(self):
        costs = [search_cost([self.RUN], DELTA, mean=mean).epsilon for mean in (1.0, 3.0, 10.0, 100.0)]
        assert all(less < more for less, more in pairwise(costs))
        assert costs[0] >= rdp_epsilon(self.RUN, DELTA) - 1e-6
        assert costs[-1] == pytest.approx(4.94, abs=6e-3)

    def test_nonsense_is_refused(self):
        with pytest.raises(ConfigError, match="1 or more"):
            search_cost([self.RUN], DELTA, mean=0.5)
        with pytest.raises(ConfigError, match="choose one of"):
            search_cost([self.RUN], DELTA, mean=2.0, runs="uniform")

    def test_the_run_that_follows_a_search_is_paid_for_too(self):
        alone = searches_cost([Search(releases=(self.RUN,), mean=10.0, runs="poisson")], DELTA).epsilon
        assert alone == search_cost([self.RUN], DELTA, mean=10.0, runs="poisson").epsilon
        costs = [
            searches_cost(
                [Search(releases=(self.RUN,), mean=10.0, runs="poisson", again=again)], DELTA
            ).epsilon
            for again in (1, 2, 5)
        ]
        assert alone < costs[0] < costs[1] < costs[2] < alone + 5 * rdp_epsilon(self.RUN, DELTA)

    def test_runs_without_a_search_compose(self):
        both = searches_cost(
            [Search(releases=(self.RUN,), mean=None), Search(releases=(self.RUN,), mean=None)], DELTA
        )
        twice = SampledGaussian(rate=self.RUN.rate, noise=self.RUN.noise, count=2 * self.RUN.count)
        assert both.epsilon == pytest.approx(rdp_epsilon(twice, DELTA), abs=5e-3)

    def test_searches_compose(self):
        other = SampledGaussian(rate=0.004, noise=2.0, count=15000)
        one, two = (Search(releases=(run,), mean=5.0, runs="poisson", again=1) for run in (self.RUN, other))
        costs = [searches_cost(searches, DELTA).epsilon for searches in ([one], [two], [one, two])]
        assert max(costs[:2]) < costs[2] < sum(costs[:2])


class TestFilter:
    ROUND = SampledGaussian(rate=0.05, noise=2.0, count=10)

    def test_it_lets_through_what_fits_and_refuses_the_next(self):
        filter_ = RdpFilter.for_target(3.0, DELTA, expected=[self.ROUND])
        assert filter_.epsilon == pytest.approx(3.0)
        rounds = 0
        while filter_.allows([self.ROUND]):
            filter_.spend([self.ROUND])
            rounds += 1
        cost = filter_.cost([self.ROUND])
        assert rounds == math.floor(filter_.budget / cost)
        spent = filter_.spent
        with pytest.raises(PlanViolation, match="is left"):
            filter_.spend([self.ROUND])
        assert filter_.spent == spent, "a refusal charges nothing"
        assert filter_.epsilon == pytest.approx(3.0), "the epsilon shown is the budget's, whatever is spent"

    def test_its_epsilon_bounds_what_went_through_by_any_order_of_adaptive_choices(self):
        filter_ = RdpFilter.for_target(2.0, DELTA, expected=[self.ROUND])
        went = []
        for noise in (4.0, 1.5, 2.5) * 40:
            release = SampledGaussian(rate=0.05, noise=noise, count=3)
            if filter_.allows([release]):
                filter_.spend([release])
                went.append(release)
        assert len({release.noise for release in went}) > 2
        assert account(went, DELTA, interval=COARSE).epsilon < filter_.epsilon

    def test_a_planned_run_would_be_refused_half_way(self):
        """Rate 0.05, noise 2, 600 steps: PLD gives 3.0 or so for all; the filter at 3.0 stops before the end."""
        planned = epsilon(SampledGaussian(rate=0.05, noise=2.0, count=600), DELTA, COARSE)
        filter_ = RdpFilter.for_target(planned, DELTA, expected=[self.ROUND])
        steps = 0
        while filter_.allows([self.ROUND]):
            filter_.spend([self.ROUND])
            steps += 10
        assert 300 < steps < 600

    def test_a_resumed_run_has_no_more_than_it_had(self):
        filter_ = RdpFilter.for_target(3.0, DELTA, order=8.0)
        filter_.spend([self.ROUND])
        again = RdpFilter.from_json(filter_.to_json())
        assert again.remaining == filter_.remaining
        assert again.accounted() == filter_.accounted()
        assert "order 8" in again.accounted().accountant
        with pytest.raises(LedgerError, match="restore"):
            RdpFilter.from_json({**filter_.to_json(), "spent": 1e9})
        with pytest.raises(LedgerError, match="restore"):
            RdpFilter.from_json({"order": 8.0})

    def test_no_noise_never_fits(self):
        filter_ = RdpFilter.for_target(3.0, DELTA, order=8.0)
        assert not filter_.allows([SampledGaussian(rate=0.1, noise=0.0, count=1)])
        assert filter_.allows([SampledGaussian(rate=0.1, noise=0.0, count=0)])

    def test_what_bounds_nothing_is_refused(self):
        with pytest.raises(CalibrationError, match="raise epsilon"):
            RdpFilter.for_target(0.1, DELTA, order=4.0)
        with pytest.raises(ConfigError, match=r"above 1\.01"):
            RdpFilter(order=1.0, budget=1.0, delta=DELTA)
        with pytest.raises(ConfigError, match="fixed before the run"):
            RdpFilter.for_target(1.0, DELTA)
        with pytest.raises(ConfigError, match="bounds nothing"):
            RdpFilter(order=2.0, budget=-1.0, delta=DELTA)
        with pytest.raises(ConfigError, match="zero-out"):
            RdpFilter(order=2.0, budget=1.0, delta=DELTA).cost(
                [SampledGaussian(rate=0.1, noise=1.0, count=1, adjacency="replace-one")]
            )
