"""The section ``[audit]``: a second training beside the run, which changes no model, survives a crash and can alarm."""

import json
import math
import shutil
from dataclasses import replace

import pytest
from tiny_federation import config, parts, plan

import fedsafe.runs.audit_setting as settings
import fedsafe.runs.compose as composing
from fedsafe.errors import ConfigError
from fedsafe.report import closing_table, write_report
from fedsafe.report.acceptance import release
from fedsafe.report.reading import read_run
from fedsafe.runs import make_config, resume, run
from fedsafe.runs.audit import RunAudit, check_audit

AUDIT = {"every": 2, "canaries": 60}
# Nearly every canary takes part in two rounds, so that sixty are enough.
MUCH = {"federation__cohort": {"rate": 0.9}, "client__rate": 0.5, "client__steps": 3}
BRACKET, UPPER, ALARM = "privacy.audited_epsilon", "privacy.accounted_epsilon", "privacy.audit_alarm"


def audited(**changes):
    return config(**{"rounds": 4, "privacy__noise_key": "seed", "audit": AUDIT, **changes})


def lines(path, name="findings.jsonl"):
    return [json.loads(line) for line in (path / name).read_text().splitlines()]


def of_audit(path):
    return [line for line in lines(path) if line["assessor"] == "audit"]


def models(path):
    return [line["parameters_sha256"] for line in lines(path, "record.jsonl") if line["kind"] == "round"]


@pytest.fixture
def no_noise(monkeypatch):
    """Clients add no noise to gradients, in the run and so in its audit; the plan says that they do."""
    whole = composing.local_training
    for module in (composing, settings):
        monkeypatch.setattr(
            module, "local_training", lambda *arguments: replace(whole(*arguments), noise=0.0)
        )


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    kinds = ["gradient", "client"]
    return run(audited(audit={**AUDIT, "kinds": kinds}), out=tmp_path_factory.mktemp("clean") / "run")


def test_nothing_is_audited_where_nobody_asked(clean, tmp_path):
    plain = run(audited(audit=None), out=tmp_path / "run")
    assert of_audit(plain.path) == []
    assert not any("audit" in phrase for claim in plain.claims for phrase in claim["not_covered"])
    # No canary ever meets a model of the run, nor its plan or ledger.
    assert models(plain.path) == models(clean.path)
    assert plain.start.plan == clean.start.plan


def test_a_clean_run_has_a_bracket_after_every_look_and_no_alarm(clean):
    brackets = [line for line in of_audit(clean.path) if line["metric"] == BRACKET]
    assert [(line["round"], line["where"]["canaries"]) for line in brackets] == [
        (2, "gradient"), (2, "client"), (4, "gradient"), (4, "client"),
    ]  # fmt: skip
    for line in brackets:
        lower, upper = line["interval"]
        assert lower == line["value"] <= upper == line["anchors"]["accounted"]
        assert (line["bound"], line["n"], line["confidence"]) == ("lower", 60, 0.95)
        assert line["released"]
    uppers = [line for line in of_audit(clean.path) if line["metric"] == UPPER]
    assert [line["value"] for line in uppers] == [line["interval"][1] for line in brackets]
    assert {line["bound"] for line in uppers} == {"upper"}
    assert clean.alarms == []
    assert [line["value"] for line in of_audit(clean.path) if line["metric"] == ALARM] == [0.0] * 4
    assert clean.end.status == "completed"
    for claim in clean.claims:
        (phrase,) = (phrase for phrase in claim["not_covered"] if "findings of the audit" in phrase)
        assert "what requirements on them decide" in phrase
    assert release(read_run(clean.path)).status == "pass"


def test_the_upper_end_is_what_the_plan_spends_at_the_same_delta(clean):
    record = [line for line in of_audit(clean.path) if line["metric"] == UPPER][-2]
    assert record["detail"]["delta"] == 1e-5  # the claim's own
    assert record["value"] == pytest.approx(clean.claims[0]["epsilon"], rel=1e-6)


def test_all_looks_of_all_kinds_share_the_allowed_error(clean):
    spent = [
        1.0 - line["diagnostics"]["confidence_of_this_look"]
        for line in of_audit(clean.path)
        if line["metric"] == BRACKET
    ]
    assert spent == pytest.approx([0.0125] * 4)
    assert sum(spent) == pytest.approx(0.05)


def test_audit_findings_are_judged_by_requirements(tmp_path):
    require = [
        {"metric": ALARM, "op": "<=", "threshold": 0.0},
        {"metric": BRACKET, "op": "<=", "threshold": 0.2},
    ]
    result = run(audited(assess__require=require, assess__every=2), out=tmp_path / "run")
    assert [verdict["verdict"] for verdict in result.last_verdicts()] == ["pass", "pass"]


@pytest.mark.parametrize("kept", [2, 3])
def test_an_interrupted_run_finds_the_same_when_it_is_resumed(clean, tmp_path, kept):
    path = tmp_path / "run"
    shutil.copytree(clean.path, path)
    text = (path / "record.jsonl").read_text().splitlines(keepends=True)
    (path / "record.jsonl").write_text("".join(text[:kept]))  # the start line, and kept - 1 rounds
    for round in range(kept + 1, 5):
        (path / f"checkpoints/round-{round:05d}.safetensors").unlink()
    resume(path)
    assert lines(path) == lines(clean.path)
    assert models(path) == models(clean.path)


def test_a_run_without_noise_raises_an_alarm_and_goes_on(no_noise, tmp_path, caplog):
    result = run(audited(**MUCH), out=tmp_path / "run")
    assert result.end.status == "completed"
    assert result.end.rounds == 4
    assert len(result.alarms) == 2
    warned = [record for record in caplog.records if record.name == "fedsafe.runs.audit"]
    assert [record.levelname for record in warned] == ["WARNING"] * 2
    assert "after round 2 the canaries prove epsilon > " in result.alarms[0]
    # Accepted by the requirements, of which there are none; and still nothing to release.
    shown = release(read_run(result.path))
    assert (result.accepted, shown.value, shown.status) == (4, "none", "fail")
    assert "the audit raised an alarm, though the model of round 4 is accepted" in shown.sentence
    last = [line for line in of_audit(result.path) if line["round"] == 4]
    assert last[0]["interval"] is None
    assert last[0]["value"] > last[0]["anchors"]["accounted"] == last[1]["value"]
    assert last[2]["value"] == 1.0


def test_an_alarm_can_end_a_run_and_a_resumed_one_stays_ended(no_noise, tmp_path):
    values = audited(audit={**AUDIT, "on_alarm": "stop"}, assess__every=4, **MUCH)
    result = run(values, out=tmp_path / "run")
    assert (result.end.status, result.end.rounds) == ("stopped", 2)
    assert result.end.reason.startswith("audit.on_alarm = 'stop': after round 2 ")
    assert len(models(result.path)) == 2
    assert "performance" in {line["assessor"] for line in lines(result.path)}, "its last model is assessed"
    page, card = write_report(result.path).read_text(), (result.path / "card.md").read_text()
    assert "The audit raised an alarm." in page
    assert "they cross" in page
    assert "**Alarm**" in card
    # Killed before the end line: nothing is left to do.
    path = tmp_path / "killed"
    shutil.copytree(result.path, path)
    text = (path / "record.jsonl").read_text().splitlines(keepends=True)
    (path / "record.jsonl").write_text("".join(text[:-1]))
    again = resume(path)
    assert (again.end.status, again.end.rounds, again.end.reason) == ("stopped", 2, result.end.reason)
    assert models(path) == models(result.path)


def test_the_report_the_card_and_the_closing_table_show_the_bracket(clean):
    page, card = write_report(clean.path).read_text(), (clean.path / "card.md").read_text()
    upper = [line for line in of_audit(clean.path) if line["metric"] == UPPER][-1]["value"]
    shown = f"{math.ceil(upper * 1e4) / 1e4:.4f}"
    for text in (page, card):
        assert "Audited" in text
        assert shown in text
        assert "60 gradient" in text
    assert "do not cross" in page
    assert "alarm." not in page.split("<nav")[0]
    rows = [row for row in closing_table(clean.path) if row.name.startswith("audited epsilon")]
    assert rows
    assert rows[0].detail.startswith("[")


def test_a_level_without_a_claim_has_a_lower_bound_and_nothing_to_cross(tmp_path):
    result = run(
        audited(audit={**AUDIT, "kinds": ["client"]}, privacy__client__epsilon=math.inf),
        out=tmp_path / "run",
    )
    lower, upper, alarm = (line for line in of_audit(result.path) if line["round"] == 4)
    assert lower["value"] > 0.5
    assert upper["status"] == alarm["status"] == "not_applicable"
    assert result.alarms == []
    assert "nothing to cross" in write_report(result.path).read_text()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"canaries": 3}, "audit.canaries = 3"),
        ({"kinds": ["client", "client"]}, "twice"),
        ({"kinds": []}, "audit.kinds"),
        ({"kinds": ["other"]}, "audit.kinds"),
        ({"every": 0}, "audit.every = 0"),
        ({"on_alarm": "ask"}, "audit.on_alarm"),
        ({"confidence": 1.0}, "audit.confidence"),
        ({"evry": 2}, "did you mean 'audit.every'"),
    ],
)
def test_a_wrong_setting_is_one_line(section, message):
    with pytest.raises(ConfigError, match=message) as error:
        make_config({"audit": section})
    assert "\n" not in str(error.value)


def test_an_audit_on_nodes_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match="fedsafe audit CONFIG"):
        check_audit(parts(audit={}, engine__name="flower"))


def test_what_cannot_be_audited_is_refused_before_anything_is_written(tmp_path):
    no_claim = {"privacy__record__epsilon": math.inf, "privacy__client__epsilon": math.inf}
    steered = {"server__aggregator": "q_fedavg", "server__optimizer": {"momentum": 0.0}, **no_claim}
    too_many = {"audit": {"kinds": ["client"], "canaries": 50_000}}
    for changes, message in ((steered, "exact losses"), (too_many, "fewer canaries")):
        with pytest.raises(ConfigError, match=message):
            run(audited(**changes), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_two_runs_and_two_kinds_throw_other_coins(monkeypatch):
    of = parts()
    section = make_config({"audit": {"canaries": 60, "kinds": ["gradient", "client"]}}).audit
    thrown = []
    for key in (bytes(32), bytes(range(32))):
        audit = RunAudit(section, of, plan(of), key)
        thrown += [audit._training(kind)._made.included.tolist() for kind in ("gradient", "client")]
        audit.close()
    assert len({tuple(coins) for coins in thrown}) == 4
