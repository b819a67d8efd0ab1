"""Distributed noise, end to end: the sum of what clients send is the noisy mean, unless too few of them are left."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from test_contract import plan_of
from test_rng import scale_is

from fedsafe.aggregation import Fold, Updates
from fedsafe.aggregation.distributed import DistributedMean
from fedsafe.errors import ConfigError, EngineError
from fedsafe.privacy.accounting import SampledGaussian, epsilon
from fedsafe.privacy.accounting.distributed import distributed_epsilon
from fedsafe.privacy.mechanisms import DistributedMechanism
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(22)
UNUSED = Stream(KEY, StreamId(purpose="client noise", client=-1, round=1, digest=b"d"))
both_laws = pytest.mark.parametrize("law", ["discrete gaussian", "skellam"])


def rule_of(divisor: float = 12.0, clients: int = 20, **changes: object) -> DistributedMean:
    usual = {"clip": 1.5, "noise": 1.3, "bits": 0, "modulus": 28, "minimum": 10, "corrupt": 1}
    mechanism = DistributedMechanism(**{**usual, **changes}).on_finest_grid(clients)
    return DistributedMean(mechanism=mechanism, divisor=divisor)


def updates_of(rows: NDArray[np.float64], first: int = 0) -> Updates:
    clients = np.arange(first, first + len(rows))
    draws = [
        Stream(KEY, StreamId(purpose="client draws", client=int(c), round=1, digest=b"d")) for c in clients
    ]
    return Updates(clients=clients, rows=rows, examples=np.ones(len(rows)), draws=draws)


def fold_of(rule: DistributedMean, rows: NDArray[np.float64], first: int = 0) -> Fold:
    return rule.add(rule.zero(rows.shape[1]), updates_of(rows, first))


class TestDropouts:
    @pytest.mark.parametrize("left", [0, 1, 9])
    def test_below_the_minimum_the_round_is_aborted_before_its_sum_is_looked_at(self, left):
        rule = rule_of()
        fold = fold_of(rule, np.ones((left, 5)))
        fold.arrays["total"] = np.array(["masked"])  # any use of it would fail in another way
        with pytest.raises(EngineError, match=f"{left} clients of the round are left, and .* needs 10"):
            rule.finish(fold, UNUSED)

    def test_at_the_minimum_it_is_released(self):
        assert np.isfinite(rule_of().finish(fold_of(rule_of(), np.ones((10, 5))), UNUSED)).all()

    def test_a_client_with_a_broken_update_still_adds_its_share(self):
        rule = rule_of()
        bad = np.zeros((10, 5))
        bad[3, 1] = np.nan
        np.testing.assert_array_equal(
            rule.finish(fold_of(rule, bad), UNUSED), rule.finish(fold_of(rule, np.zeros((10, 5))), UNUSED)
        )


class TestNoise:
    @both_laws
    @pytest.mark.parametrize("clients", [9, 16])
    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
    def test_each_survivor_adds_a_share_and_the_honest_minimum_adds_what_was_planned(
        self, law, clients, factor
    ):
        """Nine of ten are honest: their nine shares are 1.3 clips."""
        rule = rule_of(law=law, noise=1.3 * factor, minimum=9, corrupt=0)
        released = rule.finish(fold_of(rule, np.zeros((clients, 4000))), UNUSED)
        planned = 1.3 * 1.5 * math.sqrt(clients / 9) / 12.0
        assert scale_is(released, planned) is (factor == 1.0)

    def test_the_server_adds_none(self):
        rule, fold = rule_of(), fold_of(rule_of(), np.zeros((10, 50)))
        other = Stream(KEY, StreamId(purpose="client noise", client=-1, round=2, digest=b"d"))
        np.testing.assert_array_equal(rule.finish(fold, UNUSED), rule.finish(fold, other))

    @both_laws
    def test_no_two_clients_share_it(self, law):
        rule = rule_of(law=law)
        first, second = (fold_of(rule, np.zeros((1, 600)), c).arrays["total"] for c in (0, 1))
        assert np.mean(first == second) < 0.01


class TestSum:
    @pytest.mark.parametrize("rotated", [True, False])
    def test_without_noise_it_is_the_mean_of_clipped_updates(self, rotated):
        rule = rule_of(noise=0.0, rotated=rotated, modulus=40)
        rows = np.random.default_rng(0).normal(size=(12, 30)) * 0.2
        np.testing.assert_allclose(
            rule.finish(fold_of(rule, rows), UNUSED), rows.sum(axis=0) / 12.0, atol=1e-6
        )

    @both_laws
    def test_with_noise_it_is_the_noisy_mean_without_bias(self, law):
        rule = rule_of(law=law, noise=0.4, modulus=20)
        row = np.full(4000, 1.4 / math.sqrt(4000))
        released = rule.finish(fold_of(rule, np.tile(row, (12, 1))), UNUSED)
        assert released.mean() == pytest.approx(row[0], abs=5 * released.std() / math.sqrt(4000))

    @given(hnp.arrays(np.float64, (1, 5), elements=st.floats(width=64)), st.integers(18, 40), st.booleans())
    @settings(max_examples=60)
    def test_one_client_moves_the_sum_by_at_most_the_accounted_bound(self, row, modulus, rotated):
        """Zero-out: with the same share of noise, whatever the update."""
        rule = rule_of(modulus=modulus, rotated=rotated, noise=0.0)
        moved = fold_of(rule, row).arrays["total"]
        assert sum(int(v) ** 2 for v in moved) <= Fraction(rule.client.bound(5)) ** 2

    def test_all_clients_at_once_do_not_wrap_around(self):
        rule = rule_of(modulus=16, clients=20)
        rows = np.full((20, 8), 1e9)
        released = rule.finish(fold_of(rule, rows), UNUSED)
        expected = 20 * 1.5 / math.sqrt(8) / 12.0
        assert np.abs(released - expected).max() < 6 * 1.3 * 1.5 * math.sqrt(20 / 9) / 12.0

    def test_a_sum_in_parts_is_the_same_sum_modulo_the_power_of_two(self):
        rule, rows = rule_of(modulus=16), np.random.default_rng(1).normal(size=(12, 7))
        at_once = fold_of(rule, rows)
        parts = [fold_of(rule, rows[[i]], i) for i in (7, 3, 11, 0, 1, 2, 4, 5, 6, 8, 9, 10)]
        joined = rule.zero(7)
        for part in parts:
            joined = rule.merge(part, joined)
        assert {k: v.tolist() for k, v in joined.arrays.items()} == {
            k: v.tolist() for k, v in at_once.arrays.items()
        }

    def test_a_client_without_a_stream_is_an_error(self):
        rule = rule_of()
        with pytest.raises(EngineError, match="needs a stream for each client"):
            rule.add(rule.zero(3), Updates(clients=np.arange(1), rows=np.ones((1, 3)), examples=np.ones(1)))


class TestAccounting:
    @both_laws
    def test_a_fine_grid_costs_what_the_gaussian_of_the_multiplier_does(self, law):
        rule = rule_of(law=law, noise=2.0, modulus=32)
        tight = epsilon(SampledGaussian(rate=1.0, noise=2.0, count=10), 1e-5)
        assert tight < distributed_epsilon(rule.released(5000, 10), 1e-5) < 1.1 * tight

    def test_a_coarse_grid_pays_for_its_rounding_in_noise_and_not_in_epsilon(self):
        coarse, fine = (rule_of(noise=2.0, modulus=modulus) for modulus in (14, 32))
        shares = [rule.client.share(5000) / math.ldexp(1.5, rule.client.bits) for rule in (coarse, fine)]
        assert shares[0] > 1.05 * shares[1]
        bounds = [distributed_epsilon(rule.released(5000, 10), 1e-5) for rule in (coarse, fine)]
        assert bounds[0] == pytest.approx(bounds[1], rel=0.02)

    @both_laws
    def test_broken_secure_aggregation_is_much_dearer(self, law):
        released = rule_of(law=law).released(100, 1)
        assert distributed_epsilon(released.alone(), 1e-5) > 8 * distributed_epsilon(released, 1e-5)


class TestPlan:
    def test_it_gives_clip_noise_divisor_and_half_of_the_cohort_as_the_minimum(self):
        built = DistributedMean.from_plan(plan_of(1.0))
        client = built.client
        assert (client.clip, client.noise, client.minimum, client.honest) == (1.5, 2.0, 3, 3)
        assert built.mechanism == "distributed"

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"minimum": 2.5}, "whole number"),
            ({"minimum": 2, "corrupt": 2}, "no honest one"),
            ({"modulus": 100}, "2 to 62"),
            ({"law": "laplace"}, "discrete gaussian"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, why):
        with pytest.raises(ConfigError, match=why):
            DistributedMean.from_plan(plan_of(1.0), **options)
