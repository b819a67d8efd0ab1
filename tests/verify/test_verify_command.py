"""``fedsafe verify``: own plans pass, exit codes, the report, and one clear line for bad input."""

import json

import pytest
from claims_of_faults import AVERAGE, CLIENT, FAULTS
from tiny_federation import config, parts, plan

from fedsafe.errors import ConfigError
from fedsafe.runs.config import make_config
from fedsafe.verify import check_plan, make_claim, verify, verify_plan

PRIVATE = {
    "rounds": 12,
    "federation__clients": 60,
    "federation__partition": {"name": "iid"},
    "model": {"name": "mlp", "hidden": [8]},
}


def test_plans_of_fedsafe_pass_at_both_levels():
    of = parts(**PRIVATE)
    report = check_plan(of, plan(of, noise=1.0), name="tiny", runs=16)
    assert not report.failures, "\n".join(report.lines())
    passed = {outcome.check for outcome in report.outcomes if outcome.status == "pass"}
    assert {"noise scale", "noise reuse", "empty cohort", "sampling", "records with NaN"} <= passed


def test_a_plan_whose_clip_adapts_passes():
    of = parts(**PRIVATE, server__aggregator="adaptive_clip")
    groups = ["noise", "reuse", "empty", "metrics", "adaptive"]
    report = check_plan(of, plan(of, noise=1.0), name="tiny", runs=8, only=groups)
    assert not report.failures, "\n".join(report.lines())
    assert "noise follows the clip" in {o.check for o in report.outcomes if o.status == "pass"}


def test_a_level_without_a_claim_is_not_applicable():
    changes = {**PRIVATE, "privacy__client__epsilon": float("inf")}
    report = verify_plan(make_config(config(**changes)), name="tiny", runs=8, only=["epsilon"])
    assert [outcome.status for outcome in report.outcomes] == ["not applicable", "pass"]
    assert "no client-level claim" in report.outcomes[0].seen


def claim_file(folder, claim):
    import tomli_w

    path = folder / "claim.toml"
    path.write_text(tomli_w.dumps(claim))
    return path


def test_the_command_fails_for_a_fault_and_writes_a_report(fedsafe, tmp_path):
    claim = claim_file(tmp_path, AVERAGE)
    options = ("--claim", claim, "--path", FAULTS, "--runs", 8)
    command = fedsafe("verify", "faulty_averages:LetsNanPass", *options, "--json", "--report", "report.md")
    assert command.wait() == 1, command.err
    said = json.loads(command.out)
    assert not said["passed"]
    assert "one client sends a NaN" in said["failures"]
    report = (tmp_path / "report.md").read_text()
    assert "### FAIL: one client sends a NaN" in report
    assert "- Explained in: " in report
    right = fedsafe("verify", "faulty_averages:Average", *options)
    assert right.wait() == 0, right.out + right.err
    assert "0 failed" in right.out


@pytest.mark.parametrize(
    ("target", "changes", "said"),
    [
        ("faulty_averages:Average", {"noise": -1.0}, "noise"),
        ("faulty_averages:Average", {"nois": 1.0}, "nois"),
        ("faulty_averages:Average", {"sampler": "fixed"}, "size"),
        ("faulty_averages:Average", {"level": "record"}, "model, client, learning_rate, steps"),
        ("faulty_averages:Average", CLIENT, "no record-level claim"),
        ("faulty_clients:right", {}, "no client-level claim"),
        ("faulty_averages:Nothing", {}, "no 'Nothing'"),
        ("faulty_averages", {}, "import path"),
        ("no_such_module:it", {}, "cannot be imported"),
        ("faulty_clients:COUNT", {}, "int, not a Flower Strategy"),
    ],
)
def test_bad_input_is_one_clear_line(target, changes, said):
    with pytest.raises(ConfigError) as error:
        verify(target, make_claim({**AVERAGE, **changes}), path=FAULTS, runs=8)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_app_that_does_not_ask_for_its_records_is_told_so():
    claim = {**CLIENT, "client": {"data": "faulty_clients:per_record", "learning_rate_key": "lr"}}
    with pytest.raises(ConfigError, match=r"did not call|can replace"):
        verify("faulty_clients:right", make_claim(claim), path=FAULTS, runs=8)


def test_a_claim_is_needed_and_an_experiment_has_its_own(tmp_path):
    with pytest.raises(ConfigError, match="needs --claim"):
        verify("faulty_averages:Average", path=FAULTS)
    with pytest.raises(ConfigError, match="leave --claim out"):
        verify("experiment.toml", make_claim(AVERAGE))
