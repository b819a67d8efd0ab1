"""Noise that is chosen for each round: from what was released alone, before the round, and used as it was chosen."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from test_contract import plan_of
from test_rng import scale_is

from fedsafe.aggregation import NoisyMean, SoFar, Updates, build_aggregator
from fedsafe.aggregation.chosen_noise import ChosenNoise
from fedsafe.aggregation.noise_choices import even, signal
from fedsafe.errors import ConfigError, EngineError, RecordError
from fedsafe.privacy.accounting import noise_that_costs
from fedsafe.privacy.levels import FILTERED
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(31)
ROUNDS = 4
_BASE = plan_of(4.0)
_LEVEL = replace(_BASE.client, mechanism=FILTERED, order=8.0, grid_bits=36)
EVEN = noise_that_costs(_LEVEL.filter().budget, order=8.0, rate=0.5, count=ROUNDS)
PLAN = replace(_BASE, client=replace(_LEVEL, noise=EVEN))


def rule_of(choose=even) -> ChosenNoise:
    return ChosenNoise(plan=PLAN, choose=choose, label="mine")


def stream(round: int = 1) -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=round, digest=b"d%d" % round))


def fold_of(rule, rows):
    return rule.add(
        rule.zero(rows.shape[1]),
        Updates(clients=np.arange(len(rows)), rows=rows, examples=np.ones(len(rows))),
    )


def played(rule, rows, rounds: int) -> list[float]:
    """The multipliers of so many rounds with the same updates."""
    for round in range(1, rounds + 1):
        rule.choose_noise()
        rule.advance(fold_of(rule, rows), stream(round))
    return rule.state()["noises"].tolist()


QUIET = np.zeros((5, 40))
LOUD = np.full((5, 40), 10.0)


class TestTheRound:
    def test_it_is_the_noisy_mean_with_the_multiplier_that_was_chosen(self):
        rule = rule_of(lambda so_far: 3.7)
        assert rule.choose_noise() == 3.7
        level = PLAN.client
        oracle = NoisyMean(clip=level.clip, noise=3.7, bits=level.grid_bits, divisor=PLAN.divisor)
        rows = np.random.default_rng(0).normal(size=(5, 40))
        fold = fold_of(rule, rows)
        assert rule.finish(fold, stream()).tobytes() == oracle.finish(fold, stream()).tobytes()

    @pytest.mark.parametrize(("claimed", "right"), [(3.0, True), (2.0, False), (4.5, False)])
    def test_the_noise_has_the_scale_that_was_chosen_and_no_other(self, claimed, right):
        rule = rule_of(lambda so_far: 3.0)
        rule.choose_noise()
        released = rule.finish(rule.zero(20_000), stream()) * PLAN.divisor / PLAN.client.clip
        assert scale_is(released, claimed) is right

    def test_a_choice_after_the_fact_is_refused(self):
        """Neither before the first round, nor once a round is over, may the sum meet a noise nobody wrote down."""
        rule = rule_of()
        with pytest.raises(
            EngineError, match="chosen no noise for round 1: it is chosen, and written down, before"
        ):
            rule.finish(fold_of(rule, LOUD), stream())
        played(rule, LOUD, 1)
        with pytest.raises(EngineError, match="chosen no noise for round 2"):
            rule.finish(fold_of(rule, LOUD), stream())

    def test_the_function_is_asked_once_for_each_round(self):
        asked = []
        rule = rule_of(lambda so_far: asked.append(so_far.round) or 5.0 - so_far.round)
        assert [rule.choose_noise() for _ in range(3)] == [4.0] * 3
        rule.finish(fold_of(rule, LOUD), stream())
        rule.advance(fold_of(rule, LOUD), stream())
        assert rule.choose_noise() == 3.0
        assert asked == [1, 2]

    def test_it_never_looks_at_the_exact_sum(self):
        rule = rule_of()
        rule.choose_noise()
        with pytest.raises(EngineError, match="looks at what was released alone"):
            rule.advance(fold_of(rule, LOUD))


class TestSoFar:
    def test_everything_in_it_follows_from_releases_and_the_plan(self):
        seen, released, norms = [], [], []
        rule = rule_of(lambda so_far: seen.append(so_far) or 6.0)
        for round in (1, 2):
            rule.choose_noise()
            fold = fold_of(rule, LOUD / round)
            released.append(rule.finish(fold, stream(round)))
            rule.advance(fold, stream(round))
        rule.choose_noise()
        norms = tuple(float(np.linalg.norm(update)) for update in released)
        first, last, passed = seen[0], seen[2], PLAN.client.filter()
        assert (first.round, first.rounds_left, first.spent, first.norms) == (1, 4, 0.0, ())
        assert first.even == pytest.approx(EVEN)
        assert math.isinf(first.surprise)
        passed.spend([PLAN.client.chosen(6.0)] * 2)
        assert (last.round, last.rounds_left, last.noises, last.norms) == (3, 2, (6.0, 6.0), norms)
        assert (last.spent, last.left, last.order) == (passed.spent, passed.remaining, 8.0)
        assert last.even < last.planned == EVEN
        assert last.parameters == 40
        assert last.floors == (pytest.approx(6.0 * 1.5 * math.sqrt(40) / 4.5),) * 2

    def test_the_floor_is_the_norm_of_noise_alone(self):
        rule = rule_of(lambda so_far: 6.0)
        played(rule, np.zeros((5, 4000)), 2)
        so_far = rule._so_far()
        assert np.divide(so_far.norms, so_far.floors) == pytest.approx([1.0, 1.0], abs=0.06)
        assert abs(so_far.surprise) < 5.0

    def test_a_signal_is_a_surprise(self):
        rule = rule_of(lambda so_far: 2.0)
        played(rule, np.full((200, 40), 10.0), 1)
        assert rule._so_far().surprise > 100.0
        by_hand = replace(rule._so_far(), norms=(2.0,), floors=(1.0,), parameters=8)
        assert by_hand.surprise == pytest.approx(6.0)


class TestChoices:
    def test_even_spends_everything_in_equal_parts(self):
        rule = rule_of(even)
        noises = played(rule, LOUD, ROUNDS)
        assert noises == pytest.approx([EVEN] * ROUNDS, rel=1e-6)
        passed = PLAN.client.filter()
        passed.spend([PLAN.client.chosen(noise) for noise in noises])
        assert passed.remaining < 1e-6 * passed.budget

    def test_signal_keeps_cheap_noise_while_the_updates_stand_out(self):
        assert played(rule_of(signal), np.full((200, 40), 10.0), 3) == pytest.approx([2 * EVEN] * 3)
        so_far = SoFar(
            round=2, rounds_left=9, order=8.0, spent=0.1, left=0.9, even=3.0, planned=3.1,
            noises=(6.0,), norms=(9.0,), floors=(1.0,), parameters=10,
        )  # fmt: skip
        assert signal(so_far) == 6.0
        assert signal(replace(so_far, norms=(1.01,))) == pytest.approx(math.sqrt(6.0 * 3.0))
        assert signal(replace(so_far, noises=(2.0,))) == 3.0

    def test_signal_pays_more_once_they_are_lost_and_lasts_to_the_end(self):
        noises = played(rule_of(signal), QUIET, ROUNDS)
        assert all(later < earlier for earlier, later in itertools.pairwise(noises))
        passed = PLAN.client.filter()
        passed.spend([PLAN.client.chosen(noise) for noise in noises])  # does not overspend
        assert noises[-1] < EVEN

    def test_where_nothing_is_left_the_choice_is_a_number_that_the_filter_refuses(self):
        so_far = SoFar(
            round=2, rounds_left=9, order=8.0, spent=1.0, left=0.0, even=math.inf, planned=3.0,
            noises=(6.0,), norms=(9.0,), floors=(1.0,), parameters=10,
        )  # fmt: skip
        assert even(so_far) == signal(so_far) == so_far.most == 3072.0
        assert so_far.least == 0.1


class TestWrongChoices:
    @pytest.mark.parametrize(
        "wrong", [math.nan, math.inf, -1.0, 0.0, 1e9, "2", None, True, np.float64("nan")]
    )
    def test_what_is_no_multiplier_is_one_line_with_the_name_and_the_round(self, wrong):
        with pytest.raises(
            EngineError, match="choose = 'mine', before round 1: a noise multiplier of"
        ) as caught:
            rule_of(lambda so_far: wrong).choose_noise()
        assert "\n" not in str(caught.value)

    def test_a_function_that_fails_is_named(self):
        def failing(so_far):
            raise ZeroDivisionError("line\nbreak")

        with pytest.raises(
            EngineError, match="'mine' failed before round 1: ZeroDivisionError: line break; mend"
        ):
            rule_of(failing).choose_noise()

    def test_numpy_numbers_are_numbers(self):
        chosen = rule_of(lambda so_far: np.float32(2.5)).choose_noise()
        assert (chosen, type(chosen)) == (2.5, float)

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"choose": "sginal"}, "noise choice 'sginal' is not known: did you mean 'signal'"),
            ({"choose": "nowhere:here"}, "noise choice 'nowhere:here' cannot be imported"),
            ({"choose": 3}, "choose = 3; it is one of even, signal"),
            ({"order": 2.5}, "order of a Rényi filter is 2.5"),
            ({"chose": "even"}, "'chose' is not known: did you mean 'choose'"),
        ],
    )
    def test_wrong_options_say_what_to_set(self, options, why):
        with pytest.raises(ConfigError, match=why):
            build_aggregator({"name": "chosen_noise", **options}, PLAN, learning_rate=0.5)


@pytest.mark.parametrize(
    "broken", [{}, {"noises": np.zeros(2), "norms": np.zeros(3), "parameters": np.ones(1)}]
)
def test_a_state_of_something_else_is_refused(broken):
    with pytest.raises(RecordError, match="not one of chosen_noise"):
        rule_of().restore(broken)


def test_a_restored_rule_chooses_the_same():
    rule, other = rule_of(signal), rule_of(signal)
    played(rule, QUIET, 2)
    other.restore(rule.state())
    assert other.choose_noise() == rule.choose_noise()
    fold = fold_of(rule, LOUD)
    assert other.finish(fold, stream(3)).tobytes() == rule.finish(fold, stream(3)).tobytes()
