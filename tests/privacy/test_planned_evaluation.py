"""Federated evaluation is planned, charged to both levels and reserved in the ledger before it is asked for."""

import hashlib
import json
import math
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from dp_accounting import dp_event, privacy_accountant
from dp_accounting.pld import pld_privacy_accountant

from fedsafe.errors import CalibrationError, LedgerError, PlanViolation
from fedsafe.privacy.accounting import FINE, SampledGaussian, epsilon
from fedsafe.privacy.calibration import make_plan
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.levels import EvaluationPlan
from fedsafe.privacy.matrix import planned_claims
from fedsafe.privacy.plan import PrivacyPlan

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
    "evaluate_every": 3,
    "evaluation_epsilon": 0.2,
}


def plan_of(**changes: Any) -> PrivacyPlan:
    return make_plan(**{**NUMBERS, **changes})


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return plan_of()


def by_hand(delta: float, *parts: tuple[float, float, int]) -> float:
    """Epsilon of releases (rate, noise, count), composed without FedSafe."""
    accountant = pld_privacy_accountant.PLDAccountant(
        privacy_accountant.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=1e-4
    )
    for rate, noise, count in parts:
        event = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
        accountant.compose(dp_event.SelfComposedDpEvent(event, count))
    return float(accountant.get_epsilon(delta))


class TestBudget:
    def test_the_client_level_composes_training_and_evaluation_within_its_target(self, plan):
        spent = plan.spend(8)["client"]
        assert plan.evaluation is not None
        whole = by_hand(1e-3, (0.4, plan.client.noise, 8), (0.4, plan.evaluation.noise_client, 2))
        assert spent == pytest.approx(whole, rel=1e-6)
        assert 0.5 * 0.99 < spent <= 0.5

    def test_evaluation_alone_costs_no_more_than_it_may(self, plan):
        evaluation = plan.evaluation
        assert by_hand(1e-3, (0.4, evaluation.noise_client, 2)) <= 0.2
        assert epsilon(SampledGaussian(rate=1.0, noise=evaluation.noise_record, count=2), 1e-5) <= 0.2

    def test_training_gets_more_noise_where_evaluation_shares_its_budget(self, plan):
        alone = plan_of(evaluate_every=None)
        assert plan.client.noise > alone.client.noise
        assert plan.record.noise == alone.record.noise  # validation records are not trained on

    def test_a_validation_record_is_bounded_by_its_own_releases(self, plan):
        dear = replace(plan, evaluation=replace(plan.evaluation, noise_record=5.0))
        cost = epsilon(SampledGaussian(rate=1.0, noise=5.0, count=2), 1e-5)
        assert dear.spend(8)["record"] == pytest.approx(cost)
        assert dear.spend(8)["record"] > plan.spend(8)["record"]

    @pytest.mark.parametrize(("target", "client"), [(0.5, 0.5), (0.6, 0.5), (0.4, 5.0)])
    def test_more_than_a_level_has_is_refused(self, target, client):
        with pytest.raises(CalibrationError, match="evaluation may cost"):
            plan_of(evaluation_epsilon=target, client_epsilon=client)

    def test_the_curve_never_falls_and_ends_at_the_plan(self, plan):
        curve = plan.spending()
        for unit in ("record", "client"):
            assert curve[unit] == sorted(curve[unit])
            assert curve[unit][-1] <= plan.spend(8)[unit] * (1 + 1e-9)
            for round, bound in enumerate(curve[unit], start=1):
                assert bound >= plan.spend(round)[unit] * (1 - 1e-9)

    @pytest.mark.parametrize("level", ["record", "client"])
    def test_a_level_without_a_target_adds_no_noise(self, level):
        plan = plan_of(**{f"{level}_epsilon": math.inf})
        assert getattr(plan.evaluation, f"noise_{level}") == 0.0
        assert plan.spend(8)[level] is None


class TestPlan:
    def test_a_plan_without_evaluation_has_the_hash_it_always_had(self, plan):
        alone = plan_of(evaluate_every=None)
        plain = asdict(alone)
        del plain["evaluation"]
        for level, later in (
            ("record", ("caps", "group", "grid_bits", "batch_size", "least_records", "local_steps")),
            ("client", ("mechanism", "cohort_size", "group", "separation", "shares", "order")),
        ):
            for field in later:
                del plain[level][field]
        assert alone.hash == hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        assert "evaluation" not in alone.numbers()

    @pytest.mark.parametrize("field", [field.name for field in fields(EvaluationPlan)])
    def test_the_hash_changes_with_every_field(self, plan, field):
        value = getattr(plan.evaluation, field)
        other = not value if isinstance(value, bool) else value + 1
        assert replace(plan, evaluation=replace(plan.evaluation, **{field: other})).hash != plan.hash

    @pytest.mark.parametrize("changes", [{}, {"evaluation_epsilon": math.inf}])
    def test_it_survives_json(self, changes):
        plan = plan_of(**changes)
        assert PrivacyPlan.from_numbers(json.loads(json.dumps(plan.numbers(), allow_nan=False))) == plan


class TestClaims:
    def test_noised_scores_are_named_and_counted(self, plan):
        for claim, noise in zip(planned_claims(plan, Circumstances(key_from_seed=False)), "rc", strict=True):
            level = "record" if noise == "r" else "client"
            assert claim.epsilon == plan.spend(8)[level]
            assert "score" in claim.release
            assert "2 evaluations" in claim.horizon
            assert f"{getattr(plan.evaluation, f'noise_{level}'):g}" in claim.horizon

    def test_two_records_of_one_person_may_lie_on_either_side_of_the_split(self, plan):
        record, _ = planned_claims(plan, Circumstances(key_from_seed=False))
        both = epsilon(plan.record.mechanism(), 1e-5, FINE, (plan.evaluation.of_record(8),))
        assert record.group_epsilon is not None
        assert record.group_epsilon >= both > record.epsilon

    def test_open_scores_are_not_covered(self):
        plan = plan_of(evaluation_epsilon=math.inf)
        assert plan.evaluation is not None
        assert plan.evaluation.noise_record == plan.evaluation.noise_client == 0.0
        for claim in planned_claims(plan, Circumstances(key_from_seed=False)):
            assert any("score of each client" in item for item in claim.not_covered)
            assert claim.release.endswith("and for these only")
            assert "score" not in claim.release

    def test_without_evaluation_nothing_is_said(self):
        for claim in planned_claims(plan_of(evaluate_every=None), Circumstances(key_from_seed=False)):
            assert "score" not in claim.statement()
            assert "evaluation" not in claim.horizon


class TestLedger:
    @pytest.fixture
    def ledger(self, tmp_path, plan):
        ledger = Ledger.create(tmp_path / "ledger.sqlite", plan, key_fingerprint="k")
        yield ledger
        ledger.close()

    @staticmethod
    def train(ledger: Ledger, *rounds: int) -> None:
        for round in rounds:
            ledger.reserve(round=round, digest=b"%d" % round, cohort=[round])

    def test_an_evaluation_is_an_event_that_uses_no_participation(self, ledger, tmp_path, plan):
        self.train(ledger, 1, 2, 3)
        head = ledger.reserve_evaluation(round=3, digest=b"e", cohort=[1, 2, 3])
        assert head.sequence == 4
        assert ledger.participations == {1: 1, 2: 1, 3: 1}
        ledger.verify_events()
        self.train(ledger, 4)
        ledger.close()
        again = Ledger.open(tmp_path / "ledger.sqlite", plan, key_fingerprint="k")
        again.verify_events()
        assert [event.kind for event in again.events] == ["plan", *["round"] * 3, "evaluation", "round"]
        assert again.participations == {1: 1, 2: 1, 3: 1, 4: 1}
        again.close()

    def test_asking_again_is_counted_once_and_other_inputs_are_refused(self, ledger):
        self.train(ledger, 1, 2, 3)
        head = ledger.reserve_evaluation(round=3, digest=b"e", cohort=[1])
        assert ledger.reserve_evaluation(round=3, digest=b"e", cohort=[1]) == head
        self.train(ledger, 3)  # a repeated round is repeated with its evaluation
        for digest, cohort in ((b"other", [1]), (b"e", [2])):
            with pytest.raises(LedgerError, match="other inputs"):
                ledger.reserve_evaluation(round=3, digest=digest, cohort=cohort)

    def test_what_the_plan_does_not_have_is_refused(self, ledger):
        self.train(ledger, 1, 2)
        with pytest.raises(PlanViolation, match="no evaluation after round 2"):
            ledger.reserve_evaluation(round=2, digest=b"e", cohort=[1])
        with pytest.raises(PlanViolation, match="not that round's training"):
            ledger.reserve_evaluation(round=3, digest=b"e", cohort=[1])
        self.train(ledger, 3)
        with pytest.raises(PlanViolation, match="not one of the 50"):
            ledger.reserve_evaluation(round=3, digest=b"e", cohort=[50])
        assert len(ledger.events) == 4

    def test_a_plan_without_evaluation_refuses_one(self, tmp_path):
        ledger = Ledger.create(tmp_path / "l.sqlite", plan_of(evaluate_every=None), key_fingerprint="k")
        self.train(ledger, 1, 2, 3)
        with pytest.raises(PlanViolation, match="no evaluation"):
            ledger.reserve_evaluation(round=3, digest=b"e", cohort=[1])
        ledger.close()
