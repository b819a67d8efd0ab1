"""From the configuration to a rule: names, options, and classes of a user's own."""

import math

import numpy as np
import pytest
from test_contract import GROUPS, KEY, NEEDED, UNPROVEN, plan_of

from fedsafe.aggregation import (
    RULES,
    Aggregator,
    Fold,
    Median,
    RowRule,
    Updates,
    build_aggregator,
    check_aggregator,
    released_by,
)
from fedsafe.errors import ConfigError, EngineError
from fedsafe.rng import Stream, StreamId

FREE = plan_of(math.inf)


def make(spec, plan=FREE) -> Aggregator:
    return build_aggregator(spec, plan, learning_rate=0.5, membership=GROUPS)


class TestNames:
    @pytest.mark.parametrize("name", UNPROVEN)
    def test_no_proven_sensitivity_no_client_level_claim(self, name):
        for spec in (name, {"name": name}) if name not in NEEDED else ({"name": name, **NEEDED[name]},):
            with pytest.raises(
                ConfigError, match=r"no proven sensitivity.*noisy_mean.*privacy.client.epsilon = inf"
            ):
                make(spec, plan_of(1.0))
            assert make(spec).name == name

    def test_what_has_a_proven_sensitivity(self):
        assert set(RULES) - set(UNPROVEN) == {
            "noisy_mean",
            "capped_mean",
            "adaptive_clip",
            "local_gaussian",
            "banded_mean",
            "distributed_mean",
            "chosen_noise",
            "grouped_mean",
        }

    @pytest.mark.parametrize(
        "name", ["capped_mean", "adaptive_clip", "local_gaussian", "distributed_mean", "chosen_noise"]
    )
    def test_a_rule_that_is_about_privacy_needs_a_target(self, name):
        spec = {"name": name, **({"cap": 10} if name == "capped_mean" else {})}
        with pytest.raises(ConfigError, match=rf"{name}' adds noise .* privacy.client.epsilon"):
            make(spec)

    def test_what_carries_a_claim_is_what_has_the_proof(self):
        built = make("noisy_mean", plan_of(1.0))
        assert built.proven_sensitivity
        assert (built.clip, built.noise, built.bits, built.divisor) == (1.5, 2.0, 40, 4.5)

    @pytest.mark.parametrize("spec", ["noisy_mean", {"name": "noisy_mean"}])
    def test_without_a_client_target_the_noisy_mean_is_plain_averaging(self, spec):
        assert make(spec).name == "fedavg"

    @pytest.mark.parametrize(
        ("asked", "near"),
        [("noisy-mean", "noisy_mean"), ("meadian", "median"), ("FedAvg", "fedavg"), ("scafold", "scaffold")],
    )
    def test_an_unknown_name_gets_the_nearest_one(self, asked, near):
        with pytest.raises(ConfigError, match=f"{asked}.*is not known.*did you mean '{near}'"):
            make(asked)

    def test_a_name_near_to_none_gets_the_list(self):
        with pytest.raises(
            ConfigError, match=r"Known: noisy_mean, .*fedavg, mean, median, trimmed_mean.*package.module"
        ):
            make("zzz")

    def test_a_table_without_a_name_is_refused(self):
        with pytest.raises(ConfigError, match=r"\{'share': 0.1\} has no name"):
            make({"share": 0.1})


class TestOptions:
    def test_options_reach_their_rule(self):
        assert make({"name": "trimmed_mean", "share": 0.25}).share == 0.25
        assert make({"name": "q_fedavg", "q": 2}).q == 2

    def test_the_clients_learning_rate_reaches_the_rules_that_need_it(self):
        assert make("q_fedavg").learning_rate == 0.5

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ({"name": "trimmed_mean", "shar": 0.1}, "option 'shar' is not known: did you mean 'share'"),
            ({"name": "median", "share": 0.1}, "does not ask how many are adversaries: leave share out"),
            ({"name": "noisy_mean", "clip": 1.0}, "option 'clip' is not known: it has no options"),
            ({"name": "q_fedavg", "learning_rate": 0.1}, "client.optimizer.lr; leave learning_rate out"),
            ({"name": "scaffold", "steps": 3}, "option 'steps' is not known"),
            (
                {"name": "trimmed_mean", "share": 0.5},
                "share = 0.5; it is a number of at least 0 and below 0.5",
            ),
            ({"name": "trimmed_mean", "share": -0.1}, "share = -0.1"),
            ({"name": "trimmed_mean", "share": "much"}, "share = 'much'"),
            ({"name": "trimmed_mean", "share": True}, "share = True"),
            ({"name": "krum", "share": 0.5}, "share = 0.5; it is a number of at least 0 and below 0.5"),
            ({"name": "krum", "adversaries": -1}, "adversaries = -1; it is a whole number of at least 0"),
            ({"name": "krum", "adversaries": 0.3}, "adversaries = 0.3"),
            ({"name": "krum", "adversaries": 1, "share": 0.1}, "say the same; leave one out"),
            ({"name": "krum", "adversarys": 1}, "did you mean 'adversaries'"),
            ({"name": "multi_krum", "selected": 0}, "selected = 0; it is a whole number of at least 1"),
            ({"name": "norm_bound", "bound": 0.0}, "bound = 0.0"),
            ({"name": "centred_clipping", "clip": -1.0}, "clip = -1.0"),
            ({"name": "centred_clipping", "iterations": 0}, "iterations = 0; it is a whole number"),
            ({"name": "geometric_median", "adversaries": 3}, "leave adversaries out, or set before"),
            ({"name": "median", "before": "bucketing", "share": 0.2}, "leave share out, or set before"),
            ({"name": "median", "before": "mixing"}, "it is nearest_neighbour_mixing or bucketing"),
            ({"name": "median", "before": {"size": 2}}, "it is nearest_neighbour_mixing or bucketing"),
            ({"name": "median", "before": {"name": "bucketing", "sise": 2}}, "did you mean 'size'"),
            (
                {"name": "median", "before": {"name": "bucketing", "size": 0}},
                "size = 0; it is a whole number",
            ),
            ({"name": "q_fedavg", "before": "bucketing"}, "option 'before' is not known"),
            ({"name": "q_fedavg", "q": -1.0}, "q = -1.0; it is a number of at least 0$"),
            ({"name": "q_fedavg", "q": math.nan}, "q = nan"),
            ({"name": "q_fedavg", "q": math.inf}, "q = inf"),
            ({"name": "agnostic", "ascent": -1}, "ascent = -1"),
        ],
    )
    def test_a_wrong_one_is_refused_before_anything_is_built(self, spec, why):
        with pytest.raises(ConfigError, match=why):
            check_aggregator(spec, client_private=False, record_private=False)


class Kinder(RowRule):
    """A rule of a user's own, as short as one can be."""

    name = "kinder"
    releases = ("how kind each client is",)

    def __init__(self, *, factor: float = 1.0) -> None:
        self.factor = factor

    def combine(self, updates):
        return self.factor * updates.rows.mean(axis=0)


class Bare:
    """Only the six members that a rule cannot do without, and a claim that nobody has checked."""

    name = "bare"
    proven_sensitivity = True

    @classmethod
    def from_plan(cls, plan, *, learning_rate, strength):
        made = cls()
        made.given = (learning_rate, strength)
        return made

    def zero(self, parameters):
        return Fold(arrays={"total": np.zeros(parameters)})

    def add(self, fold, updates):
        return Fold(arrays={"total": fold.arrays["total"] + updates.rows.sum(axis=0)})

    def merge(self, first, second):
        return Fold(arrays={"total": first.arrays["total"] + second.arrays["total"]})

    def finish(self, fold, noise):
        return fold.arrays["total"].astype(np.float32)


class FailsToAdd(Kinder):
    def combine(self, updates):
        raise KeyError("no such\nthing")


class ReturnsAList(Kinder):
    def combine(self, updates):
        return [0.0] * updates.rows.shape[1]


class ReturnsNaN(Kinder):
    def combine(self, updates):
        return updates.rows[0] * np.nan


class ReturnsAScalar(Kinder):
    def combine(self, updates):
        return updates.rows.mean()


class ReturnsAnother(Kinder):
    def combine(self, updates):
        return updates.rows.mean(axis=1)


class FoldsToADict(Bare):
    @classmethod
    def from_plan(cls, plan):
        return cls()

    def add(self, fold, updates):
        return {"total": updates.rows}


class FoldsObjects(FoldsToADict):
    def add(self, fold, updates):
        return Fold(arrays={"total": np.array([object()])})


class RemembersText(FoldsToADict):
    add = Bare.add

    def state(self):
        return {"note": "text"}


class CannotBeMade(Kinder):
    @classmethod
    def from_plan(cls, plan):
        raise OSError("no weights")


HERE = "test_choosing"


class TestOfYourOwn:
    def test_a_rule_over_rows_needs_nothing_but_combine(self):
        mine = make({"name": f"{HERE}:Kinder", "factor": 2.0})
        fold = mine.add(mine.zero(2), Updates(clients=np.arange(2), rows=np.eye(2), examples=np.ones(2)))
        np.testing.assert_array_equal(mine.finish(fold, unused()), [1.0, 1.0])

    def test_a_rule_with_only_the_necessary_members_is_completed(self):
        mine = make({"name": f"{HERE}:Bare", "strength": 3})
        fold = mine.add(mine.zero(2), Updates(clients=np.arange(2), rows=np.eye(2), examples=np.ones(2)))
        update = mine.finish(fold, unused())
        assert update.dtype == np.float64
        np.testing.assert_array_equal(update, [1.0, 1.0])
        assert mine._rule.given == (0.5, 3)
        assert (mine.needs_losses, mine.remembers, mine.state(), mine.correction(0, 2)) == (
            False,
            False,
            {},
            None,
        )

    def test_nobody_takes_its_word_for_a_sensitivity(self):
        """A claim rests on a proof that somebody has looked at."""
        assert not make({"name": f"{HERE}:Bare", "strength": 3}).proven_sensitivity
        with pytest.raises(
            ConfigError, match=r"no proven sensitivity that FedSafe could check.*use noisy_mean"
        ):
            make({"name": f"{HERE}:Bare", "strength": 3}, plan_of(1.0))

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            (f"{HERE}:Nothing", "cannot be imported"),
            ("no_such_module:Rule", "cannot be imported: No module named 'no_such_module'"),
            (f"{HERE}:HERE", "is str, not something to call"),
            (f"{HERE}:unused", "is no aggregator: it lacks from_plan, zero, add, merge, finish; inherit"),
            (f"{HERE}:Bare", r"needs the option 'strength'"),
            ({"name": f"{HERE}:Bare", "strenght": 1}, "did you mean 'strength'"),
            (f"{HERE}:CannotBeMade", "CannotBeMade' cannot be made: OSError: no weights"),
        ],
    )
    def test_what_cannot_be_one_is_refused_with_a_reason(self, spec, why):
        with pytest.raises(ConfigError, match=why):
            check_aggregator(spec, client_private=False, record_private=False)

    @pytest.mark.parametrize(
        ("rule", "why"),
        [
            ("FailsToAdd", "failed in finish: KeyError: 'no such.*thing'"),
            ("ReturnsAList", "returned list from finish: it must be a vector of floats"),
            ("ReturnsNaN", "returned 4 values that are not finite from finish"),
            ("ReturnsAScalar", "returned float64 from finish: it must be a vector of floats"),
            (
                "ReturnsAnother",
                r"returned an array of float64 and shape \(3,\) from finish: it must be \(4,\)",
            ),
            ("FoldsToADict", "returned dict from add: it must be a Fold"),
            ("FoldsObjects", "returned a Fold with other things than arrays from add"),
            ("RemembersText", "returned dict from state: it must be a dict of numeric arrays"),
        ],
    )
    def test_a_broken_one_is_found_in_a_rehearsal_and_named(self, rule, why):
        with pytest.raises(EngineError, match=f"the aggregator '{HERE}:{rule}' {why}") as caught:
            check_aggregator(f"{HERE}:{rule}", client_private=False, record_private=False)
        assert "\n" not in str(caught.value)

    def test_a_rule_that_ships_can_be_named_by_its_path(self):
        assert isinstance(make("fedsafe.aggregation:Median")._rule, Median)


class TestReleases:
    def test_what_a_rule_lets_out_is_said(self):
        assert released_by("noisy_mean") == released_by("scaffold") == released_by({"name": "median"}) == ()
        for name in ("q_fedavg", "agnostic"):
            assert released_by(name) == ("the training loss of each client in each round, un-noised",)

    def test_of_one_of_your_own_nobody_knows(self):
        kind, unknown = released_by(f"{HERE}:Kinder")
        assert kind == "how kind each client is"
        assert f"{HERE}:Kinder" in unknown


def unused() -> Stream:
    return Stream(KEY, StreamId(purpose="client noise", client=-1, round=1, digest=b""))


class NeedsLosses(RowRule):
    """A rule of one's own that looks at losses."""

    name = "looks"
    needs_losses = True

    def combine(self, updates):
        return updates.rows.mean(0) * updates.losses.mean()


@pytest.mark.parametrize("spec", ["q_fedavg", "agnostic", f"{HERE}:NeedsLosses"])
def test_a_rule_that_steers_by_exact_losses_has_no_record_level_claim(spec):
    """The model is then a function of un-noised records: an adversary who knows the rest solves for a loss."""
    with pytest.raises(ConfigError, match=r"exact losses.*privacy\.record\.epsilon = inf"):
        check_aggregator(spec, client_private=False, record_private=True)
    check_aggregator(spec, client_private=False, record_private=False)
