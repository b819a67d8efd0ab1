"""A policy is read strictly, and a plan is held to each of its lines."""

import tomllib

import pytest
from hospitals import Hospital, composed, experiment, policy

from fedsafe.deploy.policy import make_policy, planned_epsilon, read_policy, require_allowed
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.errors import ConfigError


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    made = Hospital(folder)
    yield composed(experiment(folder))[1]
    made.gate.close()


def test_a_policy_is_what_it_writes(tmp_path):
    (tmp_path / "policy.toml").write_text(policy().to_toml())
    assert read_policy(tmp_path / "policy.toml") == policy()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"record": {"epsilon": 1.0}}}, r"budget\.record\.delta"),
        ({"budget": {}}, r"budget\.record"),
        ({"budget": {"record": {"epsilon": float("inf"), "delta": 1e-5}}}, r"budget\.record\.epsilon"),
        ({"client": ""}, "client"),
        ({"more": 1}, "more"),
        ({"format": "fedsafe.policy/2"}, "format"),
        ({"server_noise": "checked"}, "server_noise"),
        ({"mechanism": {"least_noise": -1.0}}, r"mechanism\.least_noise"),
        ({"mechanism": {"least_noise": "1"}}, r"mechanism\.least_noise"),
        ({"metrics": {"allowed": ["everything"]}}, r"metrics\.allowed"),
        ({"code": {"apps": ["short"]}}, r"code\.apps"),
    ],
)
def test_a_wrong_policy_is_named(change, message):
    values = {"client": "north", "budget": {"record": {"epsilon": 1.0, "delta": 1e-5}}}
    with pytest.raises(ConfigError, match=message):
        make_policy({**values, **change})


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(tmp_path / "policy.toml")
    (tmp_path / "policy.toml").write_text("client = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_policy(tmp_path / "policy.toml")


def test_nothing_may_leave_by_default():
    bare = make_policy({"client": "north", "budget": {"record": {"epsilon": 1.0, "delta": 1e-5}}})
    assert bare.code.apps == bare.code.fedsafe == bare.code.imports == []
    assert bare.metrics.allowed == []


def test_a_plan_within_the_policy_gives_its_epsilon(plan):
    epsilon = require_allowed(policy(), plan, client=0, parameters=4)
    assert epsilon == planned_epsilon(plan, 0) <= 0.5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"budget__record__epsilon": 0.4}, Refusal.BUDGET_SPENT),
        ({"budget__record__delta": 1e-6}, Refusal.BUDGET_SPENT),
        ({"budget__record__records_per_person": 2}, Refusal.BUDGET_SPENT),
        ({"mechanism__least_noise": 1000.0}, Refusal.TOO_LITTLE_NOISE),
        ({"mechanism__arithmetic": "grid"}, Refusal.TOO_LITTLE_NOISE),
        ({"mechanism__largest_rate": 0.49}, Refusal.RATE_TOO_HIGH),
        ({"mechanism__largest_steps_per_round": 1}, Refusal.RATE_TOO_HIGH),
        ({"model__most_parameters": 3}, Refusal.MODEL_TOO_LARGE),
    ],
)
def test_each_line_of_the_policy_counts(plan, changes, reason):
    with pytest.raises(Refused) as error:
        require_allowed(policy(**changes), plan, client=0, parameters=4)
    assert error.value.reason == reason


def test_what_a_rule_sends_without_noise_needs_to_be_allowed(plan):
    with pytest.raises(Refused) as error:
        require_allowed(policy(), plan, client=0, parameters=4, released=("exact losses",))
    assert error.value.reason == Refusal.METRIC_NOT_ALLOWED
    require_allowed(
        policy(metrics__allowed=["losses"]), plan, client=0, parameters=4, released=("exact losses",)
    )


def test_the_first_lines_of_the_format_say_whose_noise_is_checked():
    values = tomllib.loads(policy().to_toml())
    assert values["server_noise"] == "trusts the server"
