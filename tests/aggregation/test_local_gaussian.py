"""Local differential privacy: noise for twice the clip, from each client's own stream, and none from the server."""

import numpy as np
import pytest
from numpy.typing import NDArray
from test_contract import plan_of
from test_rng import scale_is

from fedsafe.aggregation import Fold, Updates
from fedsafe.aggregation.local_gaussian import LocalGaussian
from fedsafe.errors import EngineError
from fedsafe.privacy.accounting import SampledGaussian, epsilon
from fedsafe.privacy.clipping import MARGIN
from fedsafe.privacy.mechanisms import from_grid, grid_bits
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(20)
CLIP = 1.5


def rule_of(noise: float = 2.0, divisor: float = 4.0) -> LocalGaussian:
    return LocalGaussian(clip=CLIP, noise=noise, bits=grid_bits(40 * noise * CLIP, 100), divisor=divisor)


def stream(client: int, round: int = 1) -> Stream:
    return Stream(KEY, StreamId(purpose="client draws", client=client, round=round, digest=b"d"))


def fold_of(rule: LocalGaussian, rows: NDArray[np.float64], first: int = 0) -> Fold:
    clients = np.arange(first, first + len(rows))
    updates = Updates(
        clients=clients, rows=rows, examples=np.ones(len(rows)), draws=[stream(int(c)) for c in clients]
    )
    return rule.add(rule.zero(rows.shape[1]), updates)


def sent(rule: LocalGaussian, row: NDArray[np.float64]) -> NDArray[np.float64]:
    return from_grid(fold_of(rule, row[None]).arrays["total"], rule.bits)


class TestAccounting:
    @pytest.mark.parametrize(("rounds", "expected"), [(1, 1.99), (10, 7.51), (100, 33.1)])
    def test_noise_of_four_clips_costs_what_twice_the_clip_says(self, rounds, expected):
        """A sensitivity of one clip would say 0.98, 3.34 and 13.2."""
        rule = rule_of(noise=2.0)
        assert rule.deviation == 4.0 * CLIP
        release = SampledGaussian(rate=1.0, noise=rule.deviation / (2.0 * CLIP), count=rounds)
        assert epsilon(release, 1e-5) == pytest.approx(expected, rel=0.005)

    @pytest.mark.parametrize(("rounds", "expected"), [(1, 1.99), (10, 7.51), (100, 33.1)])
    def test_the_same_by_the_analytic_gaussian(self, rounds, expected):
        from dp_accounting import get_epsilon_gaussian

        assert get_epsilon_gaussian(4.0 / (2.0 * rounds**0.5), 1e-5) == pytest.approx(expected, rel=0.002)

    def test_two_updates_can_lie_two_clips_apart(self):
        """The distance that the noise is for: opposite updates reach it."""
        rule = rule_of(noise=1e-9)
        up, down = (sent(rule, np.full(5, size)) for size in (1e9, -1e9))
        assert np.linalg.norm(up - down) == pytest.approx(2.0 * CLIP * MARGIN, rel=1e-6)
        assert np.linalg.norm(up - down) <= 2.0 * CLIP


class TestNoise:
    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e-9])
    def test_every_client_adds_it_whatever_its_update(self, factor, value):
        row = np.zeros(4000)
        row[7] = value
        assert scale_is(sent(rule_of(noise=2.0 * factor), row), 4.0 * CLIP) is (factor == 1.0)

    def test_half_of_it_would_be_that_of_a_single_clip(self):
        assert not scale_is(sent(rule_of(noise=2.0), np.zeros(4000)), 2.0 * CLIP)

    def test_no_two_clients_share_it(self):
        rule = rule_of()
        first, second = (fold_of(rule, np.zeros((1, 500)), client).arrays["total"] for client in (0, 1))
        assert not (first == second).any()

    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
    def test_the_mean_carries_the_sum_of_it_and_nothing_from_the_server(self, factor):
        rule = rule_of(noise=2.0 * factor, divisor=9.0)
        fold = fold_of(rule, np.zeros((9, 3000)))
        unused = stream(-1)
        released = rule.finish(fold, unused)
        assert scale_is(released, 3.0 * 4.0 * CLIP / 9.0) is (factor == 1.0)
        np.testing.assert_array_equal(unused.words(4), stream(-1).words(4))

    def test_the_noise_of_all_clients_overflows_nowhere(self):
        rule = LocalGaussian.from_plan(plan_of(1.0))
        largest = CLIP + 9.5 * rule.deviation
        assert 9 * np.ldexp(largest, rule.bits) < 2**60
        assert np.ldexp(9.5 * rule.deviation, rule.bits) < 2**53

    def test_the_plan_gives_everything(self):
        built = LocalGaussian.from_plan(plan_of(1.0))
        assert (built.clip, built.noise, built.deviation, built.divisor) == (1.5, 2.0, 6.0, 4.5)
        assert built.mechanism == "local"


class TestFold:
    def test_a_client_without_a_stream_is_an_error_and_never_sends_its_update(self):
        rule = rule_of()
        for draws in (None, [], [stream(0)]):
            with pytest.raises(EngineError, match="needs a stream for each client"):
                rule.add(
                    rule.zero(3),
                    Updates(clients=np.arange(2), rows=np.ones((2, 3)), examples=np.ones(2), draws=draws),
                )

    def test_a_retried_client_sends_the_same(self):
        rule, rows = rule_of(), np.ones((1, 20))
        np.testing.assert_array_equal(
            fold_of(rule, rows).arrays["total"], fold_of(rule, rows).arrays["total"]
        )

    def test_an_absent_client_adds_nothing(self):
        rule = rule_of()
        empty = rule.add(
            rule.zero(4),
            Updates(clients=np.arange(0), rows=np.zeros((0, 4)), examples=np.ones(0), draws=None),
        )
        np.testing.assert_array_equal(rule.finish(empty, stream(-1)), np.zeros(4))
