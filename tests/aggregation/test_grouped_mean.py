"""Weights of groups: one client moves a release by at most the clip, the noise fits, weights follow noised losses."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from test_contract import plan_of
from test_rng import scale_is

from fedsafe.aggregation import (
    Fold,
    GroupedMean,
    Membership,
    NoisyMean,
    Updates,
    build_aggregator,
    check_aggregator,
)
from fedsafe.aggregation.grouped_weights import WEIGHTS, GroupWeights
from fedsafe.errors import ConfigError, EngineError, RecordError
from fedsafe.privacy.calibration import make_plan
from fedsafe.privacy.clipping import MARGIN
from fedsafe.privacy.levels import CENTRAL, GROUPED, Mechanics
from fedsafe.privacy.mechanisms import grid_bits
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(31)
CLIP, NOISE, DIVISOR, COORDINATES = 1.5, 2.0, 30.0, 5
GROUPS = Membership.from_values(["few"] * 10 + ["many"] * 90)
CLIENTS = len(GROUPS.of)
BITS = grid_bits(CLIP, CLIENTS, NOISE)
# Of a step on the grid of clients, which is 2^12 times as coarse as the one of the noise.
STEP = Fraction(2) ** (12 - BITS)


def rule_of(weights: str = "adaptive", noise: float = NOISE, **options: float) -> GroupedMean:
    of_groups = GroupWeights("grouped_mean", GROUPS, weights=weights, **options)
    return GroupedMean(clip=CLIP, noise=noise, bits=BITS, divisor=DIVISOR, groups=GROUPS, weights=of_groups)


def nine() -> Membership:
    return Membership.from_values(["few"] * 3 + ["many"] * 6)


def stream(round: int = 1) -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=round, digest=b"d"))


def fold_of(
    rule: GroupedMean,
    rows: NDArray[np.float64],
    losses: NDArray[np.float64],
    clients: list[int] | None = None,
) -> Fold:
    updates = Updates(
        clients=np.arange(len(rows)) if clients is None else np.array(clients, np.int64),
        rows=np.asarray(rows, np.float64),
        examples=np.ones(len(rows)),
        losses=losses,
    )
    return rule.add(rule.zero(rows.shape[1]), updates)


def released(rule: GroupedMean, fold: Fold) -> list[Fraction]:
    """What gets noise of ``noise * clip``, before it: the weighted sum and the groups' losses, exactly.

    The oracle knows the multiples of 2^-12 from the weights alone.
    """
    totals = fold.arrays["totals"].astype(object)
    each = rule.weights / (DIVISOR * GROUPS.shares)
    share = [Fraction(round(x * 2**12), 2**12) for x in each / each.max()]
    assert max(share) == 1
    own, losses = (totals[:, :-1], list(totals[:, -1])) if rule.needs_losses else (totals, [])
    weighted = [sum(share[g] * int(own[g, j]) * STEP for g in range(len(share))) for j in range(own.shape[1])]
    return [*weighted, *(int(loss) * STEP for loss in losses)]


def distance(rule: GroupedMean, first: Fold, second: Fold) -> Fraction:
    """Squared."""
    pairs = zip(released(rule, first), released(rule, second), strict=True)
    return sum(((a - b) ** 2 for a, b in pairs), Fraction(0))


any_row = hnp.arrays(np.float64, (1, COORDINATES), elements=st.floats(width=64))
some_rows = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 6), st.just(COORDINATES)), elements=st.floats(-1e9, 1e9)
)
any_loss = st.floats(width=64)
any_client = st.integers(0, CLIENTS - 1)
weighed = st.sampled_from(WEIGHTS)
# The scores of a rule that has seen anything, the larger one in either group.
lessons = st.tuples(st.floats(0.0, 1.5), st.floats(0.0, 1.5))


def taught(weights: str, lesson: tuple[float, float]) -> GroupedMean:
    rule = rule_of(weights)
    for _ in range(3):
        rule._weights.learn(np.array(lesson))
    return rule


class TestSensitivity:
    @given(weighed, lessons, any_client, any_row, any_loss, some_rows)
    def test_any_client_moves_the_release_by_at_most_the_clip(self, weights, lesson, client, row, loss, rest):
        """Zero-out neighbours, whatever was learned before; update and loss together, NaN and 1e300 among them."""
        rule = taught(weights, lesson)
        without = fold_of(rule, rest, np.linspace(0.0, 2.0, len(rest)), list(range(len(rest))))
        with_it = rule.merge(without, fold_of(rule, row, np.array([loss]), [client]))
        assert distance(rule, with_it, without) <= Fraction(CLIP) ** 2

    @given(weighed, any_client, any_client, any_row, any_row, any_loss, any_loss)
    def test_another_client_in_its_place_moves_it_by_at_most_twice_the_clip(self, weights, a, b, x, y, u, v):
        """Replace-one neighbours: groups are public and stay, but the bound would hold if one changed too."""
        rule = rule_of(weights)
        first, second = (
            fold_of(rule, row, np.array([loss]), [client]) for client, row, loss in ((a, x, u), (b, y, v))
        )
        assert distance(rule, first, second) <= (2 * Fraction(CLIP)) ** 2

    @pytest.mark.parametrize("weights", WEIGHTS)
    @pytest.mark.parametrize("row", [np.nan, 0.0, 1e30, 1e300])
    @pytest.mark.parametrize("loss", [np.nan, -1.0, 0.0, 1e30])
    def test_hostile_ones_too(self, weights, row, loss):
        rule = rule_of(weights)
        fold = fold_of(rule, np.full((1, COORDINATES), row), np.array([loss]))
        assert distance(rule, fold, rule.zero(COORDINATES)) <= Fraction(CLIP) ** 2

    @pytest.mark.parametrize("weights", WEIGHTS)
    def test_the_bound_is_reached_but_for_the_margin_in_the_group_that_counts_most(self, weights):
        """A test of an upper bound alone would pass for a sum of zeros."""
        rule = taught(weights, (1.4, 0.1))
        fold = fold_of(rule, np.full((1, COORDINATES), 1e200), np.array([9.0]), [0])
        moved = distance(rule, fold, rule.zero(COORDINATES))
        assert float(moved) ** 0.5 == pytest.approx(CLIP * MARGIN, rel=1e-6)

    def test_the_loss_takes_its_share_of_the_clip_and_no_more(self):
        rule = rule_of("adaptive")
        only_loss = fold_of(rule, np.zeros((1, COORDINATES)), np.array([9.0]))
        only_update = fold_of(rule, np.full((1, COORDINATES), 1e9), np.array([rule._weights.bound / 2]))
        for fold, share in ((only_loss, 0.3), (only_update, math.sqrt(1 - 0.09))):
            moved = float(distance(rule, fold, rule.zero(COORDINATES))) ** 0.5
            assert moved == pytest.approx(share * CLIP * MARGIN, rel=1e-6)

    def test_a_client_that_nobody_registered_is_refused(self):
        rule = rule_of("size")
        for client in (-1, CLIENTS):
            with pytest.raises(EngineError, match="none of the 100"):
                fold_of(rule, np.ones((1, COORDINATES)), np.ones(1), [client])


class TestAccounting:
    def test_a_plan_costs_what_a_noisy_mean_does(self):
        """One Gaussian release for each round, of the same multiplier."""
        plans = [
            make_plan(
                clients=100, rounds=8, cohort_rate=0.3, record_epsilon=math.inf, record_delta=1e-5, record_clip=1.0,
                record_rate=1.0, steps=1, max_participations=None, client_epsilon=3.0, client_delta=1e-3,
                client_clip=1.0, mechanics=Mechanics(mechanism=mechanism),
            )
            for mechanism in (CENTRAL, GROUPED)
        ]  # fmt: skip
        assert plans[0].client.noise == plans[1].client.noise
        assert plans[0].spend(8) == plans[1].spend(8)
        assert plans[0].client_account(8, 8, adjacency="replace-one") == plans[1].client_account(
            8, 8, adjacency="replace-one"
        )
        assert plans[1].client.cohorts_count


class TestNoise:
    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
    @pytest.mark.parametrize(("weights", "largest"), [("size", 1 / 30), ("uniform", 0.5 / 3)])
    def test_its_scale_is_the_clips_times_the_largest_weight_of_a_client(self, factor, weights, largest):
        rule = rule_of(weights, NOISE * factor)
        update = rule.finish(rule.zero(3000), stream())
        assert scale_is(update, NOISE * CLIP * largest) is (factor == 1.0)

    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
    def test_it_is_the_same_around_a_sum_of_clients(self, factor):
        rule = rule_of("uniform", NOISE * factor)
        fold = fold_of(rule, np.random.default_rng(1).normal(size=(60, 3000)), np.ones(60))
        exact = np.array([float(v) for v in released(rule, fold)]) * 0.5 / 3
        assert scale_is(rule.finish(fold, stream()) - exact, NOISE * CLIP * 0.5 / 3) is (factor == 1.0)

    @pytest.mark.parametrize("factor", [2 / 3, 1.0, 1.5])
    def test_losses_get_it_too(self, factor):
        """What a round says of a group's mean loss, against the scale that the claim needs."""
        rule = rule_of("minimum", NOISE * factor, bound=1e3, smoothing=0.0)
        fold, heard = fold_of(rule, np.zeros((100, 2)), np.full(100, 500.0)), []
        for round in range(400):
            rule.advance(fold, stream(round + 1))
            heard.append(rule.state()["scores"])
        expected = rule._weights.bound / 2 * NOISE * CLIP / (0.3 * CLIP * MARGIN * DIVISOR * GROUPS.shares)
        # Of the large group: the noise of the small one is cut at the bounds.
        assert scale_is(np.array(heard)[:, 1] - 500.0, expected[1]) is (factor == 1.0)

    def test_finish_and_advance_draw_one_release(self):
        """The losses' noise is not that of the update, and is the same both times."""
        rule = rule_of("adaptive")
        fold = fold_of(rule, np.ones((20, 3)), np.ones(20))
        first = rule.finish(fold, stream())
        np.testing.assert_array_equal(rule.finish(fold, stream()), first)
        own = stream()
        own.normal(2)
        shown = rule.finish(rule.zero(3), stream()) / (1 / 30)
        np.testing.assert_allclose(shown, own.normal(3) * NOISE * CLIP, atol=1e-6)

    def test_exact_losses_are_never_used(self):
        rule = rule_of("adaptive")
        with pytest.raises(EngineError, match="noisy losses alone: pass the noise"):
            rule.advance(rule.zero(3))
        rule_of("uniform").advance(rule_of("uniform").zero(3))

    def test_an_empty_cohort_still_releases_noise(self):
        for weights in WEIGHTS:
            assert (rule_of(weights).finish(rule_of(weights).zero(50), stream()) != 0.0).all()


class TestWeights:
    def test_by_size_it_is_the_noisy_mean(self):
        """The same update and the same noise, but for the coarser grid of clients."""
        rows = np.random.default_rng(0).normal(size=(40, COORDINATES))
        plain = NoisyMean(clip=CLIP, noise=NOISE, bits=BITS, divisor=DIVISOR)
        updates = Updates(clients=np.arange(40), rows=rows, examples=np.ones(40))
        expected = plain.finish(plain.add(plain.zero(COORDINATES), updates), stream())
        rule = rule_of("size")
        np.testing.assert_allclose(
            rule.finish(fold_of(rule, rows, np.ones(40)), stream()), expected, atol=1e-7
        )

    def test_uniform_weights_make_each_group_one_voice(self):
        rule = rule_of("uniform", 1e-9)
        rows = np.where(GROUPS.of[:, None] == 0, 1.0, -1.0) * np.ones((100, 2)) * 0.1
        everyone = fold_of(rule, rows, np.ones(100))
        # Cohorts of all where thirty in a hundred are expected: the public divisor stays.
        np.testing.assert_allclose(rule.finish(everyone, stream()), (0.1 - 0.1) * 100 / 30, atol=1e-4)
        alone = fold_of(rule, rows[:10], np.ones(10))
        np.testing.assert_allclose(rule.finish(alone, stream()), 0.5 * 1.0 / 3.0, rtol=1e-3)

    def test_adaptive_ones_climb_the_losses_from_the_sizes(self):
        rule = rule_of("adaptive", 1e-9, step=2.0, bound=2.0)
        np.testing.assert_allclose(rule.weights, [0.1, 0.9])
        losses = np.where(GROUPS.of == 0, 1.2, 0.4)
        for round in (1, 2):
            everyone = fold_of(rule, np.zeros((100, 2)), losses)
            thinned = Fold(arrays={"totals": everyone.arrays["totals"] * 3 // 10})
            rule.advance(thinned, stream(round))
        grown = np.array([0.1, 0.9]) * np.exp(2.0 * 2 * np.array([1.2, 0.4]))
        np.testing.assert_allclose(rule.weights, grown / grown.sum(), rtol=1e-3)
        np.testing.assert_allclose(list(rule.figures().values()), rule.weights)
        assert list(rule.figures()) == ["weight of few", "weight of many"]

    def test_minimum_puts_all_on_the_group_whose_average_loss_is_largest(self):
        rule = rule_of("minimum", smoothing=0.5)
        np.testing.assert_allclose(rule.weights, GROUPS.shares)
        rule._weights.learn(np.array([0.8, 0.3]))
        np.testing.assert_array_equal(rule.weights, [1.0, 0.0])
        rule._weights.learn(np.array([0.3, 0.7]))  # averages of .35 and .425
        np.testing.assert_array_equal(rule.weights, [0.0, 1.0])

    def test_what_was_heard_long_enough_stays_finite(self):
        rule = rule_of("adaptive", step=1e6)
        for _ in range(50):
            rule._weights.learn(np.array([1.5, 0.0]))
        np.testing.assert_array_equal(rule.weights, [1.0, 0.0])
        rule._weights.learn(np.array([0.0, 1.5]))
        assert np.isfinite(rule.weights).all()
        assert rule.weights[1] > 0.0

    @pytest.mark.parametrize("state", [{}, {"scores": np.zeros(3)}, {"scores": np.array([np.nan, 0.0])}])
    def test_a_state_of_other_groups_is_refused(self, state):
        with pytest.raises(RecordError, match="2 groups"):
            rule_of("adaptive").restore(state)


class TestSettings:
    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({}, "needs the option 'column'"),
            ({"column": "g"}, "needs the option 'weights'"),
            ({"column": "", "weights": "size"}, "column = ''; it names a group column"),
            ({"column": "g", "weights": "max"}, "weights = 'max'; they are one of size, uniform, minimum"),
            ({"column": "g", "weights": "uniform", "step": 0.1}, "step = 0.1 is for weights = adaptive"),
            ({"column": "g", "weights": "minimum", "step": 0.1}, "step = 0.1 is for weights = adaptive"),
            ({"column": "g", "weights": "size", "bound": 1.0}, "bound = 1.0 is for weights = minimum or adaptive"),
            ({"column": "g", "weights": "size", "loss_share": 0.1}, "loss_share = 0.1 is for weights that follow"),
            ({"column": "g", "weights": "adaptive", "step": -1.0}, "step = -1.0"),
            ({"column": "g", "weights": "adaptive", "bound": 0.0}, "bound = 0"),
            ({"column": "g", "weights": "adaptive", "loss_share": 1.0}, "loss_share = 1.0"),
            ({"column": "g", "weights": "adaptive", "loss_share": 0.0}, "loss_share = 0 hides"),
            ({"column": "g", "weights": "minimum", "smoothing": 1.0}, "smoothing = 1.0"),
            ({"column": "g", "weights": "size", "smallest": 0}, "smallest = 0; it is a whole number"),
            ({"column": "g", "weights": "size", "membership": 1}, "leave membership out"),
            ({"column": "g", "weigths": "size"}, "did you mean 'weights'"),
        ],
    )  # fmt: skip
    def test_a_wrong_one_is_one_line(self, options, why):
        with pytest.raises(ConfigError, match=why) as caught:
            build_aggregator(
                {"name": "grouped_mean", **options}, plan_of(1.0), learning_rate=0.5, membership=nine()
            )
        assert "\n" not in str(caught.value)

    def test_weights_that_follow_losses_have_no_record_level_claim(self):
        for weights in WEIGHTS:
            spec = {"name": "grouped_mean", "column": "g", "weights": weights}
            if weights in ("size", "uniform"):
                check_aggregator(spec, client_private=True, record_private=True)
            else:
                with pytest.raises(ConfigError, match=r"exact losses.*privacy\.record\.epsilon = inf"):
                    check_aggregator(spec, client_private=True, record_private=True)

    def test_without_members_or_for_others_it_is_refused(self):
        spec = {"name": "grouped_mean", "column": "g", "weights": "size"}
        with pytest.raises(ConfigError, match="nobody says here who is in which"):
            build_aggregator(spec, plan_of(1.0), learning_rate=0.5)
        with pytest.raises(ConfigError, match="100 clients have a group and 9 are registered"):
            build_aggregator(spec, plan_of(1.0), learning_rate=0.5, membership=GROUPS)

    def test_small_groups_are_one_together(self):
        found = Membership.from_values(["a"] * 5 + ["b"] * 2 + ["c"], smallest=3)
        assert found.names == ("a", "other")
        assert found.sizes.tolist() == [5, 3]
        with pytest.raises(ConfigError, match="one group 'a'"):
            Membership.from_values(["a", "a"])

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            (["a"] * 12 + ["b"], "have 1 together, which is too few"),
            (["a"] * 12 + ["other"] * 12 + ["b"] * 4, "a group is called 'other'"),
            ([f"{number}" for number in range(20)], "all 20 clients are in the one group"),
        ],
    )
    def test_no_group_is_smaller_than_was_asked_for_and_other_means_the_rest(self, values, why):
        with pytest.raises(ConfigError, match=why):
            Membership.from_values(values, smallest=10)

    def test_a_client_is_no_group(self):
        with pytest.raises(ConfigError, match="each of 3 clients is a group of its own"):
            Membership.from_values(["a", "b", "c"])


class TestWithoutNoise:
    def test_it_is_fedavg_of_each_group_under_the_weights(self):
        spec = {"name": "grouped_mean", "column": "g", "weights": "uniform"}
        rule = build_aggregator(spec, plan_of(math.inf), learning_rate=0.5, membership=nine())
        assert rule.name == "grouped_fedavg"
        rows, examples = np.arange(18.0).reshape(9, 2), np.arange(1.0, 10.0)
        fold = rule.add(rule.zero(2), Updates(clients=np.arange(9), rows=rows, examples=examples))
        means = [np.average(rows[g], axis=0, weights=examples[g]) for g in (slice(0, 3), slice(3, 9))]
        np.testing.assert_allclose(rule.finish(fold, stream()), np.mean(means, axis=0))
        few = rule.add(rule.zero(2), Updates(clients=np.arange(3), rows=rows[:3], examples=examples[:3]))
        np.testing.assert_allclose(rule.finish(few, stream()), means[0])

    def test_weights_follow_the_losses_of_those_who_replied(self):
        spec = {"name": "grouped_mean", "column": "g", "weights": "adaptive", "step": 1.0, "bound": 2.0}
        rule = build_aggregator(spec, plan_of(math.inf), learning_rate=0.5, membership=nine())
        updates = Updates(
            clients=np.array([0, 1, 4]),
            rows=np.zeros((3, 2)),
            examples=np.array([1.0, 3.0, 2.0]),
            losses=np.array([2.0, 0.4, 99.0]),
        )
        rule.advance(rule.add(rule.zero(2), updates))
        grown = np.array([1 / 3, 2 / 3]) * np.exp([(2.0 + 3 * 0.4) / 4, 2.0])
        np.testing.assert_allclose(rule.weights, grown / grown.sum())
        assert any("loss" in phrase for phrase in rule.releases)
