"""The banded mean: releases with the planned covariance, which a resumed run continues without a secret on disk."""

import numpy as np
import pytest
from numpy.typing import NDArray
from test_contract import plan_of
from test_rng import scale_is

from fedsafe.aggregation import Fold, Updates
from fedsafe.aggregation.banded import BandedMean
from fedsafe.errors import CalibrationError, ConfigError, EngineError, RecordError
from fedsafe.privacy.accounting.banded import banded_sensitivity
from fedsafe.privacy.mechanisms import from_grid, grid_bits, square_root_coefficients
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(21)
CLIP, DIVISOR, BANDS, ROUNDS = 1.5, 4.0, 3, 6
COEFFICIENTS = square_root_coefficients(BANDS)
SENSITIVITY = banded_sensitivity(COEFFICIENTS, rounds=ROUNDS, separation=3, participations=2)
C = sum(value * np.eye(ROUNDS, k=-lag) for lag, value in enumerate(COEFFICIENTS))


def rule_of(noise: float = 2.0) -> BandedMean:
    return BandedMean(
        clip=CLIP,
        noise=noise,
        bits=grid_bits(CLIP, 100, 3 * noise),
        divisor=DIVISOR,
        coefficients=COEFFICIENTS,
        sensitivity=SENSITIVITY,
    )


def stream(round: int) -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=round, digest=b"d%d" % round))


def fold_of(rule: BandedMean, rows: NDArray[np.float64]) -> Fold:
    return rule.add(
        rule.zero(rows.shape[1]),
        Updates(clients=np.arange(len(rows)), rows=rows, examples=np.ones(len(rows))),
    )


def releases(rule: BandedMean, parameters: int, rounds: int = ROUNDS) -> NDArray[np.float64]:
    """``(rounds, parameters)`` of a run in which nobody took part."""
    found = []
    for round in range(1, rounds + 1):
        found.append(rule.finish(rule.zero(parameters), stream(round)))
        rule.advance(rule.zero(parameters), stream(round))
    return np.array(found)


class TestNoise:
    def test_the_covariance_of_a_hundred_thousand_releases(self):
        count = 100_000
        inverse = np.linalg.inv(C)
        scale = (2.0 * SENSITIVITY * CLIP / DIVISOR) ** 2
        expected = scale * inverse @ inverse.T
        found = np.cov(releases(rule_of(), count))
        spread = 5.5 * np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / count)
        assert (np.abs(found - expected) < spread).all()
        for wrong in (scale * np.eye(ROUNDS), scale * C @ C.T, expected * 1.05, expected / SENSITIVITY**2):
            assert not (np.abs(found - wrong) < spread).all()

    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 3 / 2])
    def test_what_c_makes_of_the_releases_is_one_gaussian_of_the_planned_multiplier(self, factor):
        whitened = C @ releases(rule_of(noise=2.0 * factor), 2000) * DIVISOR / (SENSITIVITY * CLIP)
        assert scale_is(whitened, 2.0) is (factor == 1.0)

    def test_it_is_the_same_around_a_sum_of_clients(self):
        rule, rows = rule_of(), np.random.default_rng(0).normal(size=(5, 800))
        fold = fold_of(rule, rows)
        bits = grid_bits(CLIP, 100, 6.0)
        exact = from_grid(fold.arrays["total"], bits) / DIVISOR
        np.testing.assert_allclose(
            rule.finish(fold, stream(1)) - exact, rule.finish(rule.zero(800), stream(1)), atol=1e-10
        )

    def test_the_running_sum_of_a_run_carries_less_of_it_than_with_independent_noise(self):
        """At one multiplier, for a client in two of six rounds."""
        banded = releases(rule_of(), 4000).sum(axis=0)
        independent = 2.0 * np.sqrt(2.0) * CLIP / DIVISOR * np.sqrt(ROUNDS)
        assert banded.std() < 0.9 * independent


class TestResuming:
    @pytest.mark.parametrize("stopped", [1, 2, 5])
    def test_a_resumed_run_releases_what_one_that_was_not_stopped_does(self, stopped):
        whole = releases(rule_of(), 40)
        first, second = rule_of(), rule_of()
        releases(first, 40, stopped)
        second.restore(first.state())
        second.recall(40, stream)
        for round in range(stopped + 1, ROUNDS + 1):
            np.testing.assert_array_equal(second.finish(second.zero(40), stream(round)), whole[round - 1])
            second.advance(second.zero(40), stream(round))

    def test_nothing_but_the_round_is_kept(self):
        rule = rule_of()
        releases(rule, 40, 4)
        assert {name: array.tolist() for name, array in rule.state().items()} == {"round": [4]}

    def test_noise_that_was_not_recalled_is_never_replaced_by_fresh_noise(self):
        rule = rule_of()
        rule.restore({"round": np.array([3])})
        for call in (rule.finish, rule.advance):
            with pytest.raises(EngineError, match="recall it"):
                call(rule.zero(5), stream(4))

    def test_a_run_that_did_not_begin_needs_no_recall(self):
        rule = rule_of()
        rule.restore(rule_of().state())
        assert np.isfinite(rule.finish(rule.zero(5), stream(1))).all()

    @pytest.mark.parametrize("state", [{}, {"round": np.array([-1])}, {"velocity": np.zeros(3)}])
    def test_another_state_is_refused(self, state):
        with pytest.raises(RecordError, match="not a round"):
            rule_of().restore(state)

    def test_a_round_is_not_forgotten_without_its_noise(self):
        rule = rule_of()
        with pytest.raises(EngineError, match="pass the round's noise"):
            rule.advance(rule.zero(5))


class TestPlan:
    def test_it_gives_everything_but_the_bands(self):
        """Four rounds, at most four participations, two apart: a client is in two of them."""
        built = BandedMean.from_plan(plan_of(1.0), bands=2)
        expected = banded_sensitivity(square_root_coefficients(2), rounds=4, separation=2, participations=4)
        assert built.deviation == pytest.approx(2.0 * expected * 1.5)
        assert expected == pytest.approx(np.sqrt(2 * 1.25))

    def test_bands_that_clients_come_back_within_are_refused(self):
        with pytest.raises(CalibrationError, match="they may be back after 2"):
            BandedMean.from_plan(plan_of(1.0), bands=3, separation=2)

    @pytest.mark.parametrize("options", [{"bands": 0}, {"bands": 1.5}, {"bands": 2, "separation": 2.5}])
    def test_what_is_no_number_of_rounds_is_refused(self, options):
        with pytest.raises(ConfigError, match="banded_mean"):
            BandedMean.from_plan(plan_of(1.0), **options)
