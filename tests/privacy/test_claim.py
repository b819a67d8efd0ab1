"""A claim says everything that must be true for its epsilon to mean something."""

import json
import math
import re
from decimal import Decimal

import pytest

from fedsafe.privacy.accounting import SampledGaussian, epsilon
from fedsafe.privacy.calibration import make_plan
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.claim import Claim
from fedsafe.privacy.matrix import planned_claims
from fedsafe.privacy.plan import PrivacyPlan

KEYS = [
    "unit", "epsilon", "delta", "adjacency", "adversary", "release", "sampler", "accountant", "horizon", "regime",
    "randomness", "arithmetic", "assumptions", "not_covered", "cohort_secret", "group_epsilon",
    "known_cohorts_epsilon", "fallback_epsilon", "statement",
]  # fmt: skip


def plan_of(**changes: float) -> PrivacyPlan:
    numbers = {
        "clients": 50, "rounds": 8, "cohort_rate": 0.4, "record_epsilon": 0.3, "record_delta": 1e-5,
        "record_clip": 0.7, "record_rate": 0.1, "steps": 3, "max_participations": 5, "client_epsilon": 0.5,
        "client_delta": 1e-3, "client_clip": 1.5,
    }  # fmt: skip
    return make_plan(**{**numbers, **changes})


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return plan_of()


@pytest.fixture(scope="module")
def claims(plan) -> tuple[Claim, Claim]:
    return planned_claims(plan, Circumstances(key_from_seed=False))


def test_there_is_one_headline_for_each_unit(claims):
    assert [claim.unit for claim in claims] == ["record", "client"]


def test_epsilon_is_that_of_the_whole_plan(plan, claims):
    assert claims[0].epsilon == epsilon(SampledGaussian(rate=0.1, noise=plan.record.noise, count=15), 1e-5)
    assert claims[1].epsilon == epsilon(SampledGaussian(rate=0.4, noise=plan.client.noise, count=8), 1e-3)


@pytest.mark.parametrize("position", [0, 1])
def test_the_statement_names_unit_adjacency_adversary_delta_and_what_is_not_covered(claims, position):
    claim = claims[position]
    statement = claim.statement()
    for part in (
        f"{claim.unit} level", *claim.adjacency.split(" ", 1), claim.adversary, f"{claim.delta:g}",
        claim.release, claim.sampler,
        claim.accountant, claim.horizon, claim.randomness, claim.regime, "Not covered: ", *claim.not_covered,
    ):  # fmt: skip
        assert part in statement
    assert "secrecy of the cohorts" in statement


@pytest.mark.parametrize("value", [0.299_949_9, 1.000_04, 7.046_603, 33.104, 123.44, 0.012_344_9])
def test_a_printed_epsilon_is_still_a_bound(claims, value):
    """Rounding to nearest would print less than the truth half of the time."""
    claim = Claim(**{**vars(claims[0]), "epsilon": value, "group_epsilon": 2.5 * value})
    printed = Decimal(re.search(r"is \(([\d.]+), ", claim.statement()).group(1))
    group = Decimal(
        re.search(r"two records in one client, epsilon is ([\d.]*\d)", claim.statement()).group(1)
    )
    for bound, shown in ((value, printed), (2.5 * value, group)):
        assert Decimal(repr(bound)) <= shown <= Decimal(repr(bound)) * Decimal("1.001")


def test_the_record_claim_prints_the_bound_for_two_records(claims):
    assert claims[0].group_epsilon >= 2 * claims[0].epsilon
    assert "For a person with two records in one client, epsilon is" in claims[0].statement()
    assert claims[1].group_epsilon is None


def test_the_record_claim_does_not_rest_on_secret_cohorts_and_the_client_claim_does(claims):
    record, client = claims
    assert not record.cohort_secret
    assert "does not rely on the secrecy" in record.statement()
    assert "server" in record.adversary
    assert client.cohort_secret
    assert "and relies on the secrecy" in client.statement()
    assert "outsider" in client.adversary
    assert any("server is trusted" in assumption for assumption in client.assumptions)


def test_adjacency_is_named_as_accounted(claims):
    assert all(claim.adjacency.startswith("zero-out") for claim in claims)


@pytest.mark.parametrize("position", [0, 1])
def test_json_has_every_key_and_nothing_that_json_cannot_hold(claims, position):
    plain = claims[position].to_json()
    assert sorted(plain) == sorted(KEYS)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["statement"] == claims[position].statement()


@pytest.mark.parametrize(
    ("target", "position", "unit"), [("record_epsilon", 0, "record"), ("client_epsilon", 1, "client")]
)
def test_infinity_is_null_and_says_that_nothing_is_claimed(target, position, unit):
    claim = planned_claims(plan_of(**{target: math.inf}), Circumstances(key_from_seed=False))[position]
    assert claim.to_json()["epsilon"] is None
    assert claim.to_json()["group_epsilon"] is None
    assert claim.statement().startswith(f"No {unit}-level differential privacy is claimed")
    assert not re.search(r"\d", claim.statement())


def test_an_unbounded_group_is_null_and_said_in_words(claims):
    claim = Claim(**{**vars(claims[0]), "group_epsilon": math.inf})
    assert claim.to_json()["group_epsilon"] is None
    assert "epsilon is unbounded" in claim.statement()


def test_a_key_from_the_seed_is_said_in_these_words(plan):
    for claim in planned_claims(plan, Circumstances(key_from_seed=True)):
        assert claim.randomness == "simulated: no guarantee against anyone who knows the seed"
        assert claim.randomness in claim.statement()


def test_a_key_from_the_operating_system_is_said_too(claims):
    for claim in claims:
        assert "operating system" in claim.randomness
        assert "simulated" not in claim.statement()


def test_the_cap_and_not_the_number_of_rounds_is_the_horizon_of_a_record(claims):
    assert "5 participations of 3 steps" in claims[0].horizon
    assert "8 rounds" in claims[1].horizon
