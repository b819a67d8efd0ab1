"""``fedsafe audit``: one JSON object or a few lines, and an exit code that is an alarm where bounds cross."""

import io
import json
from dataclasses import replace

import pytest

import fedsafe.cli.audit as command
import fedsafe.runs.audit_setting as settings


def test_a_correct_run_prints_both_bounds_and_ends_with_zero(fedsafe, tiny_toml):
    done = fedsafe("audit", tiny_toml(), "--canaries", 60, "--every", 2, "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out, parse_constant=pytest.fail)
    assert printed["crossed"] is False
    assert [look["round"] for look in printed["looks"]] == [2, 3]
    assert printed["looks"][-1]["bound"]["epsilon"] <= printed["looks"][-1]["accounted"] <= 0.1
    assert all("not for release" in claim["audit"] for claim in printed["claims"])


def test_lines_for_people(fedsafe, tiny_toml):
    done = fedsafe(
        "audit", tiny_toml(), "--canaries", 60, "--kind", "client", "--every", 0, "--set", "rounds=1"
    )
    assert done.code == 0, done.err
    for expected in ("round   1/1  epsilon >", "lower  ", "upper  ", "neither bound", "not for release"):
        assert expected in done.out


def test_crossing_bounds_are_an_alarm(tiny_toml, monkeypatch, capsys):
    whole = settings.setting_of

    def silent(parts, plan):
        made = whole(parts, plan)
        return replace(made, training=replace(made.training, noise=0.0))

    monkeypatch.setattr(settings, "setting_of", silent)
    with pytest.raises(SystemExit) as ended:
        command.audit_command(
            config=tiny_toml(), kind=command.CanaryKind.GRADIENT, canaries=100, every=0, confidence=0.95,
            delta=None, set_=None, seed=None, as_json=False,
        )  # fmt: skip
    assert ended.value.code == 4
    said = capsys.readouterr()
    assert "ALARM" in said.out
    assert said.err.startswith("fedsafe: after round 3 the canaries prove epsilon > ")
    assert said.err.count("\n") == 1


def test_a_wrong_number_is_one_line(fedsafe, tiny_toml):
    done = fedsafe("audit", tiny_toml(), "--canaries", 2)
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "canaries" in done.err


def test_a_run_with_an_audit_prints_its_bracket_and_an_alarm_is_its_exit_code(fedsafe, tiny_toml):
    done = fedsafe("run", tiny_toml(audit={"canaries": 60}), "--out", "out")
    assert done.code == 0, done.err
    assert "round 3: canaries (gradient) prove epsilon > " in done.out
    printed = json.loads(fedsafe("run", tiny_toml(audit={"canaries": 60}), "--out", "two", "--json").out)
    (bracket,) = [each for each in printed["findings"] if each["metric"] == "privacy.audited_epsilon"]
    assert bracket["interval"][0] == bracket["value"] <= bracket["interval"][1] <= 0.1


def test_an_alarm_is_the_exit_code_of_a_run(tiny_toml, monkeypatch, tmp_path, capsys):
    from fedsafe.cli.progress import Progress
    from fedsafe.cli.run import _close
    from fedsafe.runs import run

    whole = settings.local_training
    monkeypatch.setattr(settings, "local_training", lambda *arguments: replace(whole(*arguments), noise=0.0))
    # Nearly every canary takes part in every round, so that sixty are enough.
    much = {"federation__cohort": {"rate": 0.9}, "client__rate": 0.5, "client__steps": 3}
    finished = run(tiny_toml(audit={"canaries": 60}, **much), out=tmp_path / "out")
    with pytest.raises(SystemExit) as ended:
        _close(finished, Progress(io.StringIO()), as_json=True)
    assert ended.value.code == 4
    printed = json.loads(capsys.readouterr().out)
    (alarm,) = [each for each in printed["findings"] if each["metric"] == "privacy.audit_alarm"]
    assert alarm["value"] == 1.0
