"""Adversary x unit: what is claimed where others slip, and what is not."""

import itertools
import json
import math
from dataclasses import replace

import pytest

from fedsafe.errors import CalibrationError, PlanViolation
from fedsafe.privacy.calibration import make_plan
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.claim import COMPARED, require_comparable
from fedsafe.privacy.client_claim import CLIENTS, OUTSIDER, SERVER
from fedsafe.privacy.levels import CENTRAL, DISTRIBUTED, LOCAL, ClientPlan, Mechanics, RecordPlan, Shares
from fedsafe.privacy.matrix import Cell, claim_matrix, planned_claims
from fedsafe.privacy.plan import PrivacyPlan

ABOUT = Circumstances(key_from_seed=False)


def plan_of(
    *, noise: float = 2.0, rounds: int = 100, record: float = math.inf, client: float = 8.0, **level: object
) -> PrivacyPlan:
    """1,000 clients, 100 in a cohort."""
    return PrivacyPlan(
        clients=1000,
        rounds=rounds,
        record=RecordPlan(
            epsilon=record, delta=1e-5, clip=1.0, rate=0.01, steps=1, max_participations=rounds,
            noise=1.0 if math.isfinite(record) else 0.0,
        ),
        client=ClientPlan(
            epsilon=client, delta=1e-5, clip=1.0, rate=0.1, noise=noise if math.isfinite(client) else 0.0,
            grid_bits=30, **level,
        ),
        program="",
    )  # fmt: skip


def cells(plan: PrivacyPlan) -> dict[tuple[str, str], Cell]:
    return {(cell.adversary, cell.unit): cell for cell in claim_matrix(plan, ABOUT)}


def bound(plan: PrivacyPlan, adversary: str, unit: str) -> float | None:
    claim = cells(plan)[adversary, unit].claim
    return None if claim is None else claim.epsilon


@pytest.fixture(scope="module")
def poisson() -> dict[tuple[str, str], Cell]:
    return cells(plan_of())


def test_every_adversary_meets_every_unit_once(poisson):
    adversaries = (SERVER, CLIENTS, OUTSIDER)
    assert list(poisson) == [(who, unit) for unit in ("record", "client") for who in adversaries]


def test_a_record_behind_the_client_level_is_replaced_not_removed(poisson):
    """4.37 and not 2.34: changing one record replaces its client's update."""
    assert poisson[OUTSIDER, "record"].claim.epsilon == pytest.approx(4.37, abs=0.01)
    assert poisson[OUTSIDER, "record"].claim.adjacency.startswith("replace-one")
    assert poisson[OUTSIDER, "client"].claim.epsilon == pytest.approx(2.34, abs=0.01)
    assert poisson[OUTSIDER, "client"].claim.adjacency.startswith("zero-out")


def test_the_bound_for_known_cohorts_stands_beside_it(poisson):
    claim = poisson[OUTSIDER, "client"].claim
    assert claim.known_cohorts_epsilon == pytest.approx(33.1, abs=0.05)
    assert "To somebody who sees the cohorts, epsilon is 33." in claim.statement()


def test_nothing_is_claimed_against_a_server_that_adds_the_noise(poisson):
    for unit in ("record", "client"):
        assert poisson[SERVER, unit].claim is None
        assert poisson[SERVER, unit].to_json()["epsilon"] is None
        assert poisson[SERVER, unit].reason


def test_cohorts_of_fixed_size_are_an_upper_bound_under_replace_one():
    fixed = cells(plan_of(cohort_size=100))
    claim = fixed[OUTSIDER, "client"].claim
    assert claim.epsilon == pytest.approx(14.05, abs=0.01)
    assert claim.adjacency.startswith("replace-one")
    assert "RDP" in claim.accountant
    assert "upper bound" in claim.accountant
    # Who knows that it was in such a cohort knows something of the others: no amplification.
    assert fixed[CLIENTS, "client"].claim.epsilon == pytest.approx(91.8, abs=0.1)
    assert claim.known_cohorts_epsilon == fixed[CLIENTS, "client"].claim.epsilon
    assert not fixed[CLIENTS, "client"].claim.cohort_secret


@pytest.mark.parametrize(("rounds", "expected"), [(1, 1.99), (10, 7.51), (100, 33.1)])
def test_local_noise_of_four_clips_holds_against_the_server(rounds, expected):
    """A sensitivity of 2 clips, and no amplification."""
    found = cells(plan_of(rounds=rounds, mechanism=LOCAL))
    for adversary, unit in itertools.product((SERVER, CLIENTS, OUTSIDER), ("record", "client")):
        claim = found[adversary, unit].claim
        assert claim.epsilon == pytest.approx(expected, rel=2e-3)
        assert not claim.cohort_secret
        assert "twice the clip" in claim.horizon


def test_a_record_has_the_smaller_of_its_two_bounds():
    strong_client, strong_record = plan_of(record=20.0, noise=40.0), plan_of(record=20.0, noise=0.8)
    through_client = bound(strong_client, OUTSIDER, "record")
    own = bound(strong_client, SERVER, "record")
    assert through_client < own
    assert bound(strong_record, OUTSIDER, "record") == bound(strong_record, SERVER, "record") == own
    assert cells(strong_client)[OUTSIDER, "record"].reason.startswith("the client level under replace-one")


def test_without_noise_every_cell_says_none_and_why():
    for cell in claim_matrix(plan_of(client=math.inf), ABOUT):
        assert cell.claim is None
        assert cell.reason


@pytest.mark.parametrize("mechanism", [CENTRAL, LOCAL])
def test_the_headline_is_a_cell(mechanism):
    plan = plan_of(record=20.0, mechanism=mechanism)
    record, client = planned_claims(plan, ABOUT)
    found = cells(plan)
    assert client == found[OUTSIDER if mechanism == CENTRAL else SERVER, "client"].claim
    assert record.epsilon >= found[SERVER, "record"].claim.epsilon


def test_json_holds_nothing_that_json_cannot_hold(poisson):
    for cell in poisson.values():
        plain = cell.to_json()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain


class TestComparing:
    def test_claims_of_one_kind_are_comparable(self):
        one, other = (planned_claims(plan_of(noise=noise), ABOUT)[1].to_json() for noise in (1.0, 2.0))
        require_comparable(one, other)

    @pytest.mark.parametrize("key", COMPARED)
    def test_a_difference_is_named(self, key):
        one = planned_claims(plan_of(), ABOUT)[1].to_json()
        with pytest.raises(PlanViolation, match=f"differ in {key} "):
            require_comparable(one, {**one, key: "another"})

    def test_units_and_adversaries_are_not_mixed(self, poisson):
        record, client = (poisson[OUTSIDER, unit].to_json()["claim"] for unit in ("record", "client"))
        with pytest.raises(PlanViolation, match=r"unit .*adjacency "):
            require_comparable(record, client)


class TestWhatAReviewerFound:
    """Each of these once claimed too little."""

    @staticmethod
    def evaluated(**changes) -> PrivacyPlan:
        numbers = {
            "clients": 50, "rounds": 8, "cohort_rate": 0.4, "record_epsilon": 2.0, "record_delta": 1e-5,
            "record_clip": 1.0, "record_rate": 0.1, "steps": 1, "max_participations": None, "client_epsilon": 4.0,
            "client_delta": 1e-3, "client_clip": 1.0, "evaluate_every": 2, "evaluation_epsilon": 1.0,
        }  # fmt: skip
        return make_plan(**{**numbers, **changes})

    @pytest.mark.parametrize(
        "changes",
        [
            {"mechanics": Mechanics(mechanism=LOCAL)},
            {"mechanics": Mechanics(mechanism="banded", separation=2)},
            {"record_group": 2},
            {"client_group": 2},
            {"budgets": {0: 0.5}},
            {"record_batch": 5, "least_records": 50},
        ],
        ids=["local", "banded", "records", "clients", "budgets", "batches"],
    )
    def test_scores_are_not_accounted_for_with_what_they_do_not_compose_with(self, changes):
        with pytest.raises(CalibrationError, match=r"noised = true is not accounted for together with"):
            self.evaluated(**changes)

    def test_known_cohorts_are_those_of_evaluations_too(self):
        plan = self.evaluated()
        claim = cells(plan)[OUTSIDER, "client"].claim
        alone = plan.known_account(8, "zero-out", 1e-3).epsilon
        without = self.evaluated(evaluate_every=None)
        assert claim.known_cohorts_epsilon == alone > claim.epsilon
        assert (
            alone > without.known_account(8, "zero-out", 1e-3).epsilon
            or plan.client.noise > without.client.noise
        )

    def test_a_group_counts_for_known_cohorts_as_well(self):
        one, three = plan_of(), plan_of(group=3)
        known = [cells(plan)[OUTSIDER, "client"].claim.known_cohorts_epsilon for plan in (one, three)]
        assert known[1] > 3 * known[0]

    def test_claims_for_other_groups_are_not_comparable(self):
        one, three = (planned_claims(plan_of(group=size), ABOUT)[1].to_json() for size in (1, 3))
        with pytest.raises(PlanViolation, match="adjacency"):
            require_comparable(one, three)

    def test_a_simulated_claim_is_not_compared_with_a_real_one(self):
        real = planned_claims(plan_of(), ABOUT)[1].to_json()
        simulated = planned_claims(plan_of(), Circumstances(key_from_seed=True))[1].to_json()
        with pytest.raises(PlanViolation, match="one is simulated"):
            require_comparable(real, simulated)

    def test_clients_that_add_the_noise_know_their_own_part_of_it(self):
        shares = Shares(law="skellam", minimum=2, corrupt=0, modulus=32, rotated=True, parameters=50)
        found = cells(plan_of(rounds=3, mechanism=DISTRIBUTED, shares=shares))
        server, others = (found[who, "client"].claim.epsilon for who in (SERVER, CLIENTS))
        assert others > 1.2 * server
        alone = cells(plan_of(rounds=3, mechanism=DISTRIBUTED, shares=replace(shares, minimum=1)))
        assert alone[CLIENTS, "client"].claim is None
        assert "gives no finite bound" in alone[CLIENTS, "client"].reason

    def test_a_minimum_that_no_round_can_have_is_refused(self):
        shares = Shares(law="skellam", minimum=60, corrupt=0, modulus=32, rotated=True, parameters=50)
        with pytest.raises(CalibrationError, match="every round would be aborted"):
            self.evaluated(evaluate_every=None, mechanics=Mechanics(mechanism=DISTRIBUTED, shares=shares))

    def test_a_delta_of_one_over_the_population_is_named(self):
        claim = cells(replace(plan_of(), clients=100_000))[OUTSIDER, "client"].claim
        assert any("not below one over the 100000 clients" in phrase for phrase in claim.not_covered)
        assert not any(
            "not below" in phrase for phrase in cells(plan_of())[OUTSIDER, "client"].claim.not_covered
        )

    def test_the_statement_says_what_it_assumes(self):
        claim = cells(plan_of())[OUTSIDER, "client"].claim
        assert all(assumption in claim.statement() for assumption in claim.assumptions)
