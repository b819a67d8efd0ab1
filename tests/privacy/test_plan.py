"""The plan: everything that decides epsilon is in it, hashed, and cannot be changed unnoticed."""

import itertools
import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from fedsafe.errors import CalibrationError, PlanViolation
from fedsafe.privacy.accounting import epsilon
from fedsafe.privacy.calibration import make_plan
from fedsafe.privacy.levels import Mechanics, Shares
from fedsafe.privacy.plan import PrivacyPlan

# Little epsilon is much noise, whose loss distribution is narrow and quick to compose.
NUMBERS: dict[str, Any] = {
    "clients": 50,
    "rounds": 8,
    "cohort_rate": 0.4,
    "record_epsilon": 0.3,
    "record_delta": 1e-5,
    "record_clip": 0.7,
    "record_rate": 0.1,
    "steps": 3,
    "max_participations": 5,
    "client_epsilon": 0.5,
    "client_delta": 1e-3,
    "client_clip": 1.5,
    "program": "abc",
}


def plan_of(**changes: Any) -> PrivacyPlan:
    return make_plan(**{**NUMBERS, **changes})


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return plan_of()


def changed(plan: PrivacyPlan, level: str, field: str) -> PrivacyPlan:
    target = plan if level == "plan" else getattr(plan, level)
    value = getattr(target, field)
    shares = Shares(law="skellam", minimum=3, corrupt=0, modulus=32, rotated=True, parameters=7)
    others = {
        "caps": ((3, 1),),
        "grid_bits": 33,
        "batch_size": 2,
        "least_records": 9,
        "local_steps": 1,
        "cohort_size": 20,
        "shares": shares,
        "order": 8.0,
    }
    if field in others and not value:
        other = others[field]
    elif isinstance(value, str):
        other = value + "x"
    else:
        other = value + 1 if isinstance(value, int) else value * 1.001
    new = replace(target, **{field: other})
    return new if level == "plan" else replace(plan, **{level: new})


FIELDS = [
    *(("plan", field) for field in ("clients", "rounds", "program")),
    *(("record", f) for f in ("epsilon", "delta", "clip", "rate", "steps", "max_participations", "noise")),
    *(("record", f) for f in ("caps", "group", "grid_bits", "batch_size", "least_records", "local_steps")),
    *(("client", f) for f in ("epsilon", "delta", "clip", "rate", "noise", "grid_bits")),
    *(("client", f) for f in ("mechanism", "cohort_size", "group", "separation", "shares", "order")),
]


def test_the_list_of_fields_is_complete(plan):
    numbers = asdict(plan)
    assert numbers.pop("evaluation") is None  # tested on its own
    inner = {("record", f) for f in numbers.pop("record")} | {("client", f) for f in numbers.pop("client")}
    assert {("plan", field) for field in numbers} | inner == set(FIELDS)


@pytest.mark.parametrize(("level", "field"), FIELDS)
def test_the_hash_changes_with_every_field(plan, level, field):
    assert changed(plan, level, field).hash != plan.hash


def test_the_hash_is_that_of_the_values_and_stable(plan):
    assert plan.hash == replace(plan).hash
    assert len(plan.hash) == 64


class TestNumbers:
    @pytest.mark.parametrize(
        "changes",
        [{}, {"record_epsilon": math.inf}, {"client_epsilon": math.inf}],
        ids=["both", "client", "record"],
    )
    def test_they_survive_json_infinities_included(self, changes):
        plan = plan_of(**changes)
        text = json.dumps(plan.numbers(), allow_nan=False)
        assert PrivacyPlan.from_numbers(json.loads(text)) == plan

    @pytest.mark.parametrize(("level", "field"), FIELDS)
    def test_an_edited_number_is_refused(self, plan, level, field):
        edited = {**changed(plan, level, field).numbers(), "hash": plan.hash}
        with pytest.raises(PlanViolation, match="was edited"):
            PrivacyPlan.from_numbers(edited)

    def test_a_target_turned_into_infinity_is_refused(self, plan):
        numbers = plan.numbers()
        with pytest.raises(PlanViolation, match="was edited"):
            PrivacyPlan.from_numbers({**numbers, "client": {**numbers["client"], "epsilon": None}})

    @pytest.mark.parametrize("missing", ["clients", "rounds", "record", "client", "program", "hash"])
    def test_a_missing_number_is_refused(self, plan, missing):
        numbers = plan.numbers()
        del numbers[missing]
        with pytest.raises(PlanViolation, match=r"restore the record|was edited"):
            PrivacyPlan.from_numbers(numbers)

    @pytest.mark.parametrize("field", ["epsilon", "noise", "rate"])
    def test_a_missing_or_unknown_number_of_a_level_is_refused(self, plan, field):
        numbers = plan.numbers()
        level = {key: value for key, value in numbers["record"].items() if key != field}
        with pytest.raises(PlanViolation, match="incomplete"):
            PrivacyPlan.from_numbers({**numbers, "record": level})
        with pytest.raises(PlanViolation, match="incomplete"):
            PrivacyPlan.from_numbers({**numbers, "record": {**numbers["record"], "extra": 1}})


class TestCalibration:
    def test_both_levels_meet_their_own_target_and_use_it(self, plan):
        record = epsilon(plan.record.mechanism(), plan.record.delta)
        client = plan.client_epsilon(plan.rounds, plan.record.max_participations)
        assert 0.99 * 0.3 < record <= 0.3
        assert 0.99 * 0.5 < client <= 0.5

    def test_a_record_is_composed_over_steps_times_the_most_participations(self, plan):
        mechanism = plan.record.mechanism()
        assert (mechanism.rate, mechanism.count) == (0.1, 5 * 3)
        released = plan.client.release(clients=50, rounds=8, cap=5)
        assert (released.rate, released.count) == (0.4, 8)

    def test_no_level_is_amplified_by_the_sampling_of_the_other(self, plan):
        """Elsewhere the pooled rate times the client rate was used: the server knows who takes part."""
        other_cohorts = plan_of(cohort_rate=0.3)
        assert other_cohorts.record == plan.record
        assert plan_of(record_rate=0.12).client == plan.client

    @pytest.mark.parametrize(("asked", "cap"), [(None, 8), (3, 3), (8, 8), (100, 8)])
    def test_the_cap_is_never_above_the_rounds(self, asked, cap):
        assert plan_of(max_participations=asked, client_epsilon=math.inf).record.max_participations == cap

    def test_infinity_removes_noise_of_its_own_level_alone(self, plan):
        without = plan_of(client_epsilon=math.inf)
        assert without.client.noise == 0.0
        assert not without.client.private
        assert without.record == plan.record

    def test_the_divisor_is_the_expected_cohort(self, plan):
        assert plan.divisor == pytest.approx(20.0)

    @pytest.mark.parametrize(
        ("level", "target"), [("record", "record_epsilon"), ("client", "client_epsilon")]
    )
    def test_an_impossible_target_names_its_level(self, level, target):
        with pytest.raises(CalibrationError, match=rf"privacy\.{level}"):
            plan_of(**{target: 1e-6, "record_delta": 1e-9, "client_delta": 1e-9})


class TestSpend:
    def test_stopping_early_is_covered(self, plan):
        spends = [plan.spend(rounds) for rounds in range(plan.rounds + 1)]
        for earlier, later in itertools.pairwise(spends):
            assert earlier["record"] <= later["record"]
            assert earlier["client"] < later["client"]
        assert spends[0] == {"record": 0.0, "client": 0.0}
        assert spends[-1]["record"] <= 0.3
        assert spends[-1]["client"] <= 0.5

    def test_the_record_level_stops_growing_at_the_cap(self, plan):
        assert plan.spend(5)["record"] == plan.spend(8)["record"] > plan.spend(4)["record"]

    def test_realised_is_never_above_planned_whoever_took_part(self, plan):
        rng = np.random.default_rng(3)
        for _ in range(20):
            rounds = int(rng.integers(0, plan.rounds + 1))
            took_part = (rng.random((rounds, plan.clients)) < plan.client.rate).sum(0)
            worst = int(np.minimum(took_part, plan.record.max_participations).max(initial=0))
            realised, planned = plan.spend(rounds, worst), plan.spend(plan.rounds)
            assert realised["record"] <= planned["record"]
            assert realised["client"] <= planned["client"]
            assert realised["record"] <= plan.spend(rounds)["record"]

    def test_the_client_level_counts_every_round_whoever_took_part(self, plan):
        """An empty cohort releases noise, and is counted."""
        assert plan.spend(8, 0)["client"] == plan.spend(8)["client"]

    def test_a_level_without_noise_spends_null_not_zero(self):
        assert plan_of(client_epsilon=math.inf).spend(8)["client"] is None
        assert plan_of(record_epsilon=math.inf).spend(8)["record"] is None


class TestNoiseThatIsGiven:
    """The target then is a budget: what it pays for is planned, and no more."""

    def test_a_client_takes_part_in_as_many_rounds_as_its_budget_pays_for(self):
        plan = plan_of(record_noise=8.0, max_participations=8, record_epsilon=0.2)
        cap = plan.record.max_participations
        assert 0 < cap < 8
        assert plan.record.noise == 8.0
        assert plan.record_epsilon(8, cap) <= 0.2 < plan.record_epsilon(8, cap + 1)

    def test_the_run_ends_before_its_budget_is_overspent(self):
        plan = plan_of(client_noise=5.0, rounds=40, client_epsilon=0.8)
        assert 0 < plan.rounds < 40
        longer = replace(plan, rounds=plan.rounds + 1)
        cap = plan.record.max_participations
        assert plan.client_epsilon(plan.rounds, cap) <= 0.8 < longer.client_epsilon(longer.rounds, cap)
        assert plan.record.max_participations <= plan.rounds

    @pytest.mark.parametrize("level", ["record", "client"])
    def test_a_budget_that_pays_for_no_round_says_what_one_costs(self, level):
        with pytest.raises(
            CalibrationError, match=rf"privacy.{level}: one round with noise = 0.5 costs epsilon"
        ):
            plan_of(**{f"{level}_noise": 0.5})

    def test_a_client_with_a_smaller_budget_has_a_smaller_cap(self):
        plan = plan_of(budgets={4: 0.15, 7: 1e-6, 9: 5.0})
        caps = dict(plan.record.caps)
        assert caps.keys() == {4, 7}
        assert 0 < caps[4] < plan.record.max_participations
        assert caps[7] == 0
        assert plan.record_epsilon(8, caps[4]) <= 0.15 < plan.record_epsilon(8, caps[4] + 1)
        assert PrivacyPlan.from_numbers(json.loads(json.dumps(plan.numbers()))) == plan


class TestOtherWays:
    def test_cohorts_of_fixed_size_meet_the_target_by_their_own_bound(self):
        plan = plan_of(mechanics=Mechanics(cohort_size=20), client_epsilon=2.0, max_participations=None)
        found = plan.client_epsilon(8, 8)
        assert 0.98 * 2.0 < found <= 2.0
        assert plan.client.noise > plan_of(client_epsilon=2.0).client.noise
        assert plan.divisor == 20.0
        curve = plan.spending()["client"]
        assert curve == sorted(curve)
        assert curve[-1] == pytest.approx(found)

    def test_a_cohort_of_fixed_size_leaves_nobody_out(self):
        """The argument for a cap needs draws that say nothing of each other."""
        for changes in ({"max_participations": 5}, {"max_participations": None, "budgets": {1: 1e-6}}):
            with pytest.raises(CalibrationError, match="cannot leave a client out after"):
                plan_of(mechanics=Mechanics(cohort_size=20), client_epsilon=2.0, **changes)

    def test_local_noise_is_calibrated_for_the_rounds_of_one_client(self):
        plan = plan_of(mechanics=Mechanics(mechanism="local"))
        released = plan.client.release(clients=50, rounds=8, cap=5)
        assert (released.rate, released.count) == (1.0, 5)
        assert 0.99 * 0.5 < plan.client_epsilon(8, 5) <= 0.5

    @pytest.mark.parametrize("level", ["record", "client"])
    def test_more_of_one_person_need_more_noise_for_the_same_target(self, level):
        one, two = plan_of(), plan_of(**{f"{level}_group": 2})
        assert getattr(two, level).noise > 1.5 * getattr(one, level).noise
        spent = two.record_epsilon(8, 5) if level == "record" else two.client_epsilon(8, 5)
        target = 0.3 if level == "record" else 0.5
        assert 0.98 * target < spent <= target
