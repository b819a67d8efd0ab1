"""Attacks on the rows equal their published definitions, and reach the rule whatever the packing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from test_contract import noise, plan_of

from fedsafe.aggregation import (
    CentredClipping,
    FedAvg,
    Mean,
    Median,
    NoisyMean,
    QFedAvg,
    Updates,
    build_aggregator,
)
from fedsafe.aggregation.attacks import (
    ATTACKS,
    Alie,
    Attacked,
    Gaussian,
    InnerProductManipulation,
    Mimic,
    MinMax,
    MinSum,
    ModelReplacement,
    SignFlip,
    alie_deviations,
    build_attack,
)
from fedsafe.errors import ConfigError, EngineError

SIZES = [(n, f) for n in (5, 8, 11, 20, 100) for f in (1, 2, 3, 9, 30) if 2 * f < n]


def honest_of(n, f, parameters=6):
    rng = np.random.default_rng([n, f])
    return rng.normal(size=parameters) + rng.normal(size=(n - f, parameters)) * rng.uniform(
        0.1, 3, parameters
    )


def sent(attack, honest, f, own=None):
    own = np.zeros((f, honest.shape[1])) if own is None else own
    rows = attack(honest, f, own, np.random.default_rng(0))
    assert rows.shape == own.shape
    return rows


class TestDefinitions:
    @pytest.mark.parametrize(("n", "f"), SIZES)
    def test_alie(self, n, f):
        """Baruch et al. (2019), algorithm 3: of n workers, s of the honest ones must be on the attackers' side."""
        honest = honest_of(n, f)
        s = n // 2 + 1 - f
        z = norm.ppf((n - f - s) / (n - f))
        expected = [
            np.mean(column) - z * math.sqrt(np.mean((column - np.mean(column)) ** 2)) for column in honest.T
        ]
        np.testing.assert_allclose(sent(Alie(), honest, f), np.tile(expected, (f, 1)), rtol=0, atol=1e-9)

    def test_alie_of_the_papers_example(self):
        """Of 50 workers 24 are corrupted: two honest ones must be on their side."""
        assert alie_deviations(50, 24) == pytest.approx(norm.ppf(24 / 26), abs=1e-12)
        assert 1.42 < alie_deviations(50, 24) < 1.43

    @pytest.mark.parametrize(("n", "f"), [(4, 3), (10, 9), (2, 1), (3, 2), (100, 60)])
    def test_alie_is_finite_for_a_majority_of_adversaries(self, n, f):
        assert math.isfinite(alie_deviations(n, f))
        assert np.isfinite(sent(Alie(), honest_of(n, f), f)).all()

    @pytest.mark.parametrize("scale", [0.1, 2.0, 100.0])
    def test_ipm(self, scale):
        honest = honest_of(11, 3)
        expected = [-scale / len(honest) * math.fsum(column) for column in honest.T]
        rows = sent(InnerProductManipulation(scale=scale), honest, 3)
        np.testing.assert_allclose(rows, np.tile(expected, (3, 1)), rtol=1e-12)

    def test_ipm_at_h_over_f_stops_the_mean(self):
        honest = honest_of(10, 3)
        rows = np.concatenate([honest, sent(InnerProductManipulation(scale=7 / 3), honest, 3)])
        np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-12)

    def test_sign_flip_and_model_replacement_scale_what_was_trained(self):
        own, honest = honest_of(3, 1), honest_of(11, 2)
        np.testing.assert_array_equal(sent(SignFlip(), honest, 2, own), -4.0 * own)
        np.testing.assert_array_equal(sent(SignFlip(scale=1), honest, 2, own), -own)
        np.testing.assert_array_equal(sent(ModelReplacement(), honest, 2, own), 11 / 2 * own)
        np.testing.assert_array_equal(sent(ModelReplacement(boost=3), honest, 2, own), 3 * own)

    def test_model_replacement_makes_the_mean_its_own_where_the_others_have_converged(self):
        honest, own = np.zeros((7, 4)), np.tile(np.arange(4.0), (3, 1))
        rows = np.concatenate([honest, sent(ModelReplacement(), honest, 3, own)])
        np.testing.assert_allclose(rows.mean(axis=0), own[0])

    def test_gaussian_noise_has_its_deviation_and_follows_from_the_randomness(self):
        own = np.zeros((40, 1000))
        rows = sent(Gaussian(deviation=3.0), honest_of(50, 40), 40, own)
        assert rows.std() == pytest.approx(3.0, rel=0.02)
        assert abs(rows.mean()) < 0.06
        np.testing.assert_array_equal(rows, sent(Gaussian(deviation=3.0), honest_of(50, 40), 40, own))

    def test_mimic_copies_the_row_farthest_out_in_the_main_direction(self):
        honest = honest_of(20, 4)
        apart = honest - honest.mean(axis=0)
        main = np.linalg.svd(apart)[2][0]
        expected = honest[np.argmax(np.abs(apart @ main))]
        np.testing.assert_array_equal(sent(Mimic(), honest, 4), np.tile(expected, (4, 1)))
        np.testing.assert_array_equal(sent(Mimic(client=2), honest, 4)[0], honest[2])
        np.testing.assert_array_equal(sent(Mimic(client=99), honest, 4)[0], honest[-1])


def bisected(allowed):
    """The largest gamma that is allowed, as the authors look for it, but to the last digit."""
    low, high = 0.0, 1.0
    while allowed(high):
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


def direction_by_hand(honest, direction):
    mean = honest.mean(axis=0)
    return {
        "deviation": -honest.std(axis=0),
        "sign": -np.sign(mean),
        "mean": -mean / np.linalg.norm(mean),
    }[direction]


@pytest.mark.parametrize("direction", ["deviation", "sign", "mean"])
@pytest.mark.parametrize(("n", "f"), [(5, 1), (8, 3), (11, 2), (20, 9)])
class TestWidest:
    def test_min_max(self, n, f, direction):
        honest = honest_of(n, f)
        widest = max(math.dist(a, b) for a in honest for b in honest)
        towards = direction_by_hand(honest, direction)

        def allowed(gamma):
            row = honest.mean(axis=0) + gamma * towards
            return max(math.dist(row, other) for other in honest) <= widest

        gamma = bisected(allowed)
        assert gamma > 0.05
        expected = honest.mean(axis=0) + gamma * towards
        np.testing.assert_allclose(
            sent(MinMax(direction=direction), honest, f)[0], expected, rtol=0, atol=1e-9
        )

    def test_min_sum(self, n, f, direction):
        honest = honest_of(n, f)
        largest = max(sum(math.dist(a, b) ** 2 for b in honest) for a in honest)
        towards = direction_by_hand(honest, direction)

        def allowed(gamma):
            row = honest.mean(axis=0) + gamma * towards
            return sum(math.dist(row, other) ** 2 for other in honest) <= largest

        expected = honest.mean(axis=0) + bisected(allowed) * towards
        np.testing.assert_allclose(
            sent(MinSum(direction=direction), honest, f)[0], expected, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("name", ATTACKS)
class TestEveryAttack:
    @pytest.mark.parametrize("honest", [np.zeros((3, 4)), np.ones((1, 4)), 1e30 * np.eye(4)])
    def test_what_it_sends_is_finite(self, name, honest):
        """Of honest rows without any spread, of a single one, and of huge ones."""
        for f in (1, 2, 5):
            assert np.isfinite(sent(build_attack(name), honest, f, np.ones((f, 4)))).all()

    def test_it_leaves_what_it_sees_alone_and_says_what_that_is(self, name):
        honest, own, attack = honest_of(9, 2), honest_of(5, 3), build_attack(name)
        before = honest.tobytes() + own.tobytes()
        sent(attack, honest, 2, own)
        assert honest.tobytes() + own.tobytes() == before
        assert attack.sees
        assert attack.name == name


class TestAttacked:
    """A rule over rows, of which the adversaries' were replaced."""

    ROWS = np.random.default_rng(3).normal(size=(9, 4))
    BAD = np.array([1, 4, 7])

    def rule(self, inner, attack="ipm", adversaries=BAD, seed=0):
        return Attacked(inner, build_attack(attack), label=str(attack), adversaries=adversaries, seed=seed)

    def fold(self, rule, clients=range(9)):
        clients = np.array(list(clients), int)
        updates = Updates(
            clients=clients,
            rows=self.ROWS[clients],
            examples=np.ones(len(clients)),
            losses=np.ones(len(clients)),
        )
        return rule.add(rule.zero(4), updates)

    def test_the_mean_is_that_of_honest_and_malicious_rows(self):
        rule = self.rule(Mean(), {"name": "ipm", "scale": 2.0})
        honest = np.delete(self.ROWS, self.BAD, axis=0)
        expected = (honest.sum(axis=0) - 3 * 2.0 * honest.mean(axis=0)) / 9
        np.testing.assert_allclose(rule.finish(self.fold(rule), noise()), expected, atol=1e-12)

    @pytest.mark.parametrize("attack", ATTACKS)
    @settings(max_examples=15)
    @given(data=st.data())
    def test_packing_cannot_change_a_bit(self, attack, data):
        rule, order = self.rule(Median(), attack), data.draw(st.permutations(range(9)))
        cut = data.draw(st.integers(0, 9))
        merged = rule.merge(self.fold(rule, order[cut:]), self.fold(rule, order[:cut]))
        assert rule.finish(merged, noise()).tobytes() == rule.finish(self.fold(rule), noise()).tobytes()

    def test_its_randomness_is_of_the_seed_and_the_round_and_never_of_the_noise(self):
        def finished(seed, stream, clients=range(9)):
            rule = self.rule(Mean(), "gaussian", seed=seed)
            return rule.finish(self.fold(rule, clients), stream).tobytes()

        assert finished(0, noise(1)) == finished(0, noise(2))
        assert finished(0, noise(1)) != finished(1, noise(1))
        rule = self.rule(Mean(), "gaussian")
        first = rule.attacked(self.fold(rule)).arrays["rows"][1]
        other = rule.attacked(self.fold(rule, range(8))).arrays["rows"][1]
        assert (first != other).all()

    @pytest.mark.parametrize("adversaries", [np.array([], int), np.arange(9), np.array([20])])
    def test_a_round_without_adversaries_or_without_honest_clients_is_left_alone(self, adversaries):
        rule = self.rule(Mean(), adversaries=adversaries)
        np.testing.assert_array_equal(
            rule.finish(self.fold(rule), noise()), Mean().finish(self.fold(Mean()), noise())
        )

    def test_a_remembering_rule_remembers_what_it_gave(self):
        rule = self.rule(CentredClipping(), "alie")
        assert rule.remembers
        given = rule.finish(self.fold(rule), noise())
        rule.advance(self.fold(rule), noise())
        np.testing.assert_array_equal(rule.state()["centre"], given)
        other = self.rule(CentredClipping(), "alie")
        other.restore(rule.state())
        np.testing.assert_array_equal(
            other.finish(self.fold(rule), noise()), rule.finish(self.fold(rule), noise())
        )

    def test_a_rule_with_losses_keeps_them(self):
        rule = self.rule(QFedAvg(learning_rate=1.0), "sign_flip")
        assert rule.needs_losses
        assert np.isfinite(rule.finish(self.fold(rule), noise())).all()

    def test_a_malicious_row_that_is_not_finite_is_a_zero_row_like_any_other(self):
        rule = self.rule(Mean(), "test_attacks:Infinite")
        expected = np.delete(self.ROWS, self.BAD, axis=0).sum(axis=0) / 9
        np.testing.assert_allclose(rule.finish(self.fold(rule), noise()), expected, atol=1e-12)

    def test_a_rule_over_rows_of_ones_own_is_attacked_like_those_that_ship(self):
        inner = build_aggregator("test_choosing:Kinder", plan_of(math.inf), learning_rate=1.0)
        rule, plain = self.rule(inner), self.rule(Mean())
        np.testing.assert_allclose(
            rule.finish(self.fold(rule), noise()), plain.finish(self.fold(plain), noise()), atol=1e-12
        )

    @pytest.mark.parametrize("inner", [FedAvg(), NoisyMean(clip=1.0, noise=1.0, bits=20, divisor=3.0)])
    def test_a_rule_that_adds_updates_up_has_no_rows_to_attack(self, inner):
        with pytest.raises(
            ConfigError, match=rf"'ipm' needs the update of each.*{inner.name}.*byzantine.poison"
        ):
            self.rule(inner)

    @pytest.mark.parametrize(
        ("attack", "why"),
        [
            ("test_attacks:Fails", "'test_attacks:Fails' failed: KeyError"),
            (
                "test_attacks:OneRow",
                r"returned an array of float64 and shape \(4,\): it must be floats of shape",
            ),
            ("test_attacks:Nothing", "returned NoneType"),
        ],
    )
    def test_a_broken_one_is_one_clear_line(self, attack, why):
        rule = self.rule(Mean(), attack)
        with pytest.raises(EngineError, match=why):
            rule.finish(self.fold(rule), noise())


class Infinite:
    def __call__(self, honest, adversaries, own, rng):
        return np.full_like(own, np.inf)


class Fails:
    def __call__(self, honest, adversaries, own, rng):
        raise KeyError("no")


class OneRow:
    def __call__(self, honest, adversaries, own, rng):
        return own[0]


class Nothing:
    def __call__(self, honest, adversaries, own, rng):
        return None


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("alei", "attacker 'alei' is not known: did you mean 'alie'"),
        ({"scale": 2.0}, "has no name"),
        ({"name": "ipm", "scael": 2.0}, "did you mean 'scale'"),
        ({"name": "ipm", "scale": 0.0}, "scale = 0.0; it is a number above 0"),
        ({"name": "sign_flip", "scale": -1}, "scale = -1"),
        ({"name": "gaussian", "deviation": math.nan}, "deviation = nan"),
        ({"name": "alie", "deviations": "many"}, "deviations = 'many'"),
        ({"name": "min_max", "direction": "up"}, "direction = 'up'; it is deviation, sign or mean"),
        ({"name": "mimic", "client": -1}, "client = -1"),
        ({"name": "model_replacement", "boost": 0}, "boost = 0"),
    ],
)
def test_a_wrong_request_is_one_clear_line(spec, why):
    with pytest.raises(ConfigError, match=why) as caught:
        build_attack(spec)
    assert "\n" not in str(caught.value)
