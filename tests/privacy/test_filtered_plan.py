"""The adaptive regime: what its plan fixes, what its filter lets through, and what its claim says."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsafe.errors import BudgetSpent, CalibrationError, ConfigError, PlanViolation
from fedsafe.privacy.accounting import (
    RdpFilter,
    SampledGaussian,
    account,
    epsilon,
    noise_that_costs,
    order_for,
    require_whole,
)
from fedsafe.privacy.accounting import renyi_filter as filters
from fedsafe.privacy.accounting.renyi import renyi
from fedsafe.privacy.calibration import make_plan
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.levels import FILTERED, LEAST_CHOSEN, MOST_CHOSEN, Mechanics
from fedsafe.privacy.matrix import claim_matrix, planned_claims
from fedsafe.privacy.plan import PrivacyPlan

EPSILON, DELTA, RATE, ROUNDS = 2.0, 1e-3, 0.4, 8
NUMBERS: dict[str, Any] = {
    "clients": 50, "rounds": ROUNDS, "cohort_rate": RATE, "record_epsilon": 0.3, "record_delta": 1e-5,
    "record_clip": 0.7, "record_rate": 0.1, "steps": 3, "max_participations": None, "client_epsilon": EPSILON,
    "client_delta": DELTA, "client_clip": 1.5, "mechanics": Mechanics(mechanism=FILTERED),
}  # fmt: skip


def plan_of(**changes: Any) -> PrivacyPlan:
    return make_plan(**{**NUMBERS, **changes})


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return plan_of()


def cost(noise: float, order: float) -> float:
    return float(renyi(SampledGaussian(rate=RATE, noise=noise, count=1), (order,))[0])


class TestPlanned:
    def test_a_constant_choice_spends_the_whole_budget_and_no_more(self, plan):
        """So its epsilon is exactly that of Rényi divergence at the order that was fixed."""
        level, passed = plan.client, plan.client.filter()
        for _ in range(ROUNDS):
            passed.spend([level.chosen(level.noise)])
        assert passed.spent == pytest.approx(passed.budget, rel=1e-7)
        at_order = ROUNDS * cost(level.noise, level.order) + filters._conversion(level.order, DELTA)
        assert at_order == pytest.approx(EPSILON, abs=1e-7)
        assert plan.client_account(ROUNDS, ROUNDS).epsilon == pytest.approx(EPSILON, abs=1e-12)
        with pytest.raises(BudgetSpent):
            passed.spend([level.chosen(level.noise)])

    def test_a_planned_run_with_the_same_noise_costs_less(self, plan):
        """What a PLD would say, and may not: it stands in the claim as not used."""
        pld = epsilon(SampledGaussian(rate=RATE, noise=plan.client.noise, count=ROUNDS), DELTA)
        assert pld < 0.95 * EPSILON

    def test_the_order_is_the_one_with_the_least_noise(self, plan):
        noises = {}
        for order in range(2, 40):
            try:
                budget = RdpFilter.for_target(EPSILON, DELTA, order=float(order)).budget
            except CalibrationError:
                continue
            noises[order] = noise_that_costs(budget, order=float(order), rate=RATE, count=ROUNDS)
        assert min(noises, key=noises.get) == plan.client.order
        assert plan.client.noise == noises[plan.client.order]

    @pytest.mark.parametrize(("order", "count"), [(2.0, 1), (7.0, 13), (64.0, 1000)])
    def test_noise_that_costs_so_much_costs_so_much(self, order, count):
        noise = noise_that_costs(0.8, order=order, rate=RATE, count=count)
        assert count * cost(noise, order) == pytest.approx(0.8, rel=1e-6)
        assert count * cost(noise, order) <= 0.8
        assert count * cost(noise * (1 - 1e-6), order) > 0.8

    def test_where_nothing_is_left_no_noise_is_enough(self):
        assert math.isinf(noise_that_costs(1e-13, order=8.0, rate=RATE))

    def test_an_order_may_be_given_and_costs_noise(self, plan):
        other = plan_of(mechanics=Mechanics(mechanism=FILTERED, order=30))
        assert other.client.order == 30.0
        assert other.client.noise > plan.client.noise
        assert other.client_account(ROUNDS, ROUNDS).epsilon == pytest.approx(EPSILON)

    @pytest.mark.parametrize("order", [1, 1.5, 2.5, 1025, math.nan, math.inf, True, "8"])
    def test_a_wrong_order_is_refused(self, order):
        with pytest.raises(ConfigError, match="order of a Rényi filter is"):
            require_whole(order)

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"client_noise": 3.0}, "privacy.client.noise"),
            ({"client_group": 2}, "max_clients_per_person above 1"),
            ({"mechanics": Mechanics(mechanism=FILTERED, cohort_size=9)}, "cohorts of a fixed size"),
            ({"evaluate_every": 2, "evaluation_epsilon": 0.1}, "'filtered' of the client level"),
            ({"client_epsilon": 0.001, "client_delta": 1e-12}, "no noise multiplier up to"),
            ({"client_epsilon": 0.01, "mechanics": Mechanics(mechanism=FILTERED, order=2)}, "nothing to spend"),
        ],
    )  # fmt: skip
    def test_what_the_filter_does_not_count_is_refused(self, changes, why):
        with pytest.raises(CalibrationError, match=why):
            plan_of(**changes)

    def test_order_and_budget_are_in_the_hash_and_survive_the_record(self, plan):
        assert PrivacyPlan.from_numbers(json.loads(json.dumps(plan.numbers()))) == plan
        for change in ({"order": plan.client.order + 1}, {"epsilon": 2.001}, {"mechanism": "central"}):
            assert replace(plan, client=replace(plan.client, **change)).hash != plan.hash

    def test_the_spend_is_the_whole_budget_from_the_first_round_on(self, plan):
        assert plan.spending()["client"] == [pytest.approx(EPSILON)] * ROUNDS
        assert plan.spend(0)["client"] == 0.0
        assert plan.spend(1)["client"] == pytest.approx(EPSILON)

    def test_a_filter_has_no_other_adjacency_and_no_other_delta(self, plan):
        for change in ({"adjacency": "replace-one"}, {"delta": 1e-5}):
            with pytest.raises(CalibrationError, match="has no bound under"):
                plan.client_account(ROUNDS, ROUNDS, **change)

    def test_a_planned_level_has_no_filter(self, plan):
        with pytest.raises(CalibrationError, match=r"'central' .* has no Rényi filter"):
            replace(plan.client, mechanism="central").filter()


class TestFilter:
    @given(st.lists(st.floats(min_value=-3.0, max_value=3.0), max_size=30))
    def test_it_never_overspends_whatever_is_chosen(self, plan, logarithms):
        """Against a sum of its own, which knows nothing of what was refused."""
        level, passed, let_through = plan.client, plan.client.filter(), []
        for logarithm in logarithms:
            noise = max(LEAST_CHOSEN, level.noise * 10.0**logarithm)
            try:
                passed.spend([level.chosen(noise)])
                let_through.append(noise)
            except BudgetSpent:
                assert sum(cost(n, level.order) for n in [*let_through, noise]) > passed.budget * (1 - 1e-9)
        spent = math.fsum(cost(noise, level.order) for noise in let_through)
        assert spent <= passed.spent <= passed.budget

    @pytest.mark.parametrize("broken", [math.nan, math.inf])
    def test_a_cost_that_is_no_number_is_not_let_through(self, plan, monkeypatch, broken):
        passed = plan.client.filter()
        monkeypatch.setattr(RdpFilter, "cost", lambda self, releases: broken)
        with pytest.raises(BudgetSpent):
            passed.spend([plan.client.chosen(plan.client.noise)])
        assert passed.spent == 0.0

    @pytest.mark.parametrize(
        "noise", [math.nan, math.inf, -math.inf, -2.0, 0.0, 0.09, True, None, "2", [2.0]]
    )
    def test_what_is_no_multiplier_is_no_choice(self, plan, noise):
        with pytest.raises(PlanViolation, match=r"was chosen: choose a number from 0\.1 to") as caught:
            plan.client.chosen(noise)
        assert "\n" not in str(caught.value)

    def test_the_grid_has_room_for_the_largest_choice(self, plan):
        level = plan.client
        assert level.chosen(MOST_CHOSEN * level.noise).noise == MOST_CHOSEN * level.noise
        with pytest.raises(PlanViolation):
            level.chosen(1.01 * MOST_CHOSEN * level.noise)
        # 9.5 deviations stay where double precision holds every whole number.
        assert 9.5 * MOST_CHOSEN * level.noise * level.clip * 2.0**level.grid_bits < 2.0**53


class TestClaims:
    @pytest.fixture
    def claim(self, plan):
        return planned_claims(plan, Circumstances(key_from_seed=False))[1]

    def test_regime_order_and_budget_are_named(self, plan, claim):
        assert claim.regime == "adaptive"
        assert claim.epsilon == pytest.approx(EPSILON)
        assert f"Rényi filter of order {plan.client.order:g}" in claim.accountant
        assert f"at order {plan.client.order:g}, fixed before the first one" in claim.horizon
        assert "(adaptive regime; " in claim.statement()

    def test_the_smaller_figure_of_a_plan_is_shown_as_not_used(self, plan, claim):
        planned = account([SampledGaussian(rate=RATE, noise=plan.client.noise, count=ROUNDS)], DELTA)
        assert f"{planned.accountant} would say {planned.epsilon:.3f}"[:-1] in claim.accountant
        assert "not used" in claim.accountant

    def test_there_is_no_figure_for_known_cohorts_and_the_claim_says_so(self, claim):
        assert claim.known_cohorts_epsilon is None
        assert claim.cohort_secret
        assert any("anybody who sees a cohort" in what for what in claim.not_covered)
        assert any("chosen from what was released before it alone" in what for what in claim.assumptions)

    def test_a_record_is_not_protected_by_the_filter(self, plan):
        """Changing a record replaces an update, and the filter is under zero-out."""
        own = {
            (cell.adversary, cell.unit): cell
            for cell in claim_matrix(plan, Circumstances(key_from_seed=False))
        }
        for adversary in ("server", "other clients", "outsider"):
            assert own[adversary, "record"].claim.regime == "planned"
            assert own[adversary, "record"].reason == "DP-SGD at its client"
        assert own["server", "client"].claim is None
        assert own["outsider", "client"].claim.epsilon == own["other clients", "client"].claim.epsilon
        bare = replace(plan, record=replace(plan.record, epsilon=math.inf, noise=0.0))
        cells = {(c.adversary, c.unit): c for c in claim_matrix(bare, Circumstances(key_from_seed=False))}
        assert cells["outsider", "record"].claim is None
        assert "counts under zero-out" in cells["outsider", "record"].reason

    def test_the_best_order_is_found_once(self):
        assert order_for(EPSILON, DELTA, rate=RATE, count=ROUNDS) == plan_of().client.order
