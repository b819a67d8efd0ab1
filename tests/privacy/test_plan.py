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
from fedsafe.privacy.plan import PrivacyPlan, make_plan

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
    other = value + "x" if isinstance(value, str) else value + 1 if isinstance(value, int) else value * 1.001
    new = replace(target, **{field: other})
    return new if level == "plan" else replace(plan, **{level: new})


FIELDS = [
    *(("plan", field) for field in ("clients", "rounds", "program")),
    *(("record", f) for f in ("epsilon", "delta", "clip", "rate", "steps", "max_participations", "noise")),
    *(("client", f) for f in ("epsilon", "delta", "clip", "rate", "noise", "grid_bits")),
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
        client = epsilon(plan.client.mechanism(plan.rounds), plan.client.delta)
        assert 0.99 * 0.3 < record <= 0.3
        assert 0.99 * 0.5 < client <= 0.5

    def test_a_record_is_composed_over_steps_times_the_most_participations(self, plan):
        mechanism = plan.record.mechanism()
        assert (mechanism.rate, mechanism.count) == (0.1, 5 * 3)
        assert (plan.client.mechanism(8).rate, plan.client.mechanism(8).count) == (0.4, 8)

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
