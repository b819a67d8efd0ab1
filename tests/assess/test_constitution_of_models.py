"""A constitution's principles about models are requirements of a run; verdicts, report and record carry their names."""

import json
import re

import pytest
from tiny_federation import config

import fedsafe
from fedsafe.alignment import parse_constitution
from fedsafe.assess.constitution import constitution_requirements
from fedsafe.assess.requirements import judge
from fedsafe.errors import ConfigError
from fedsafe.findings import estimate, not_measured
from fedsafe.runs.config import make_config, parse_config
from fedsafe.runs.judge import read_requirements

RIGHT = {
    "id": "right",
    "text": "It is right | mostly.",
    "scope": "model",
    "metric": "performance.accuracy",
    "op": ">=",
    "threshold": 0.99,
}
SHORT = {
    "id": "short",
    "text": "Short.",
    "scope": "response",
    "checker": "finished",
    "bound": 0.1,
    "severity": "should",
}
FILE = """
version = "2"
title = "House rules"
[[principle]]
id = "right"
text = "It is right | mostly."
scope = "model"
metric = "performance.accuracy"
op = ">="
threshold = 0.99
[[principle]]
id = "ends"
text = "It ends."
scope = "response"
checker = "finished"
"""


def constitution(*articles):
    return parse_constitution({"version": "1", "principle": list(articles)})


def test_principles_of_each_scope_become_requirements_with_their_id_and_text():
    whole = constitution(RIGHT, SHORT, {**SHORT, "id": "free", "bound": None})
    (model,) = constitution_requirements(whole)
    assert (model.principle, model.statement, model.severity) == ("right", "It is right | mostly.", "must")
    (text,) = constitution_requirements(whole, "response")
    assert (text.principle, text.severity, text.threshold, text.op) == ("short", "should", 0.1, "<=")
    assert text.where == {"principle": "short", "of": "answers"}


def test_the_bound_of_a_text_is_judged_by_the_end_of_the_interval_that_hurts():
    (rule,) = constitution_requirements(constitution(SHORT), "response")
    where = {"principle": "short", "of": "answers"}

    def verdict(*ends):
        found = estimate("constitution.true_violations", 0.05, interval=ends, method="draws", where=where)
        return judge(rule, [found]).verdict

    assert verdict(0.0, 0.09) == "pass"
    assert verdict(0.0, 0.2) == "undecided"
    unknown = not_measured("constitution.true_violations", "no labels", status="insufficient", where=where)
    assert judge(rule, [unknown]).verdict == "unmeasured"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 99.0}, "a share of 99 % is 0.99"),
        ({"op": "=>"}, "op '=>'"),
        ({"threshold": "much"}, "finite number"),
        ({"where": {"group": [1]}}, "table of texts"),
    ],
)
def test_a_principle_that_is_no_requirement_is_one_line_that_names_it(change, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        constitution_requirements(constitution({**RIGHT, **change}))
    assert str(caught.value).startswith("principle 'right'")


def test_a_run_keeps_the_constitution_that_it_began_with(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    resolved = make_config(config(assess__constitution=str(path)))
    path.write_text(FILE.replace("0.99", "0.5"))
    again = parse_config(resolved.to_toml())
    assert again == resolved
    assert [rule.threshold for rule in read_requirements(again.assess)] == [0.99]
    assert make_config(config(assess__constitution=str(path))).digest != resolved.digest
    assert "constitution" not in make_config(config()).to_toml()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (FILE.replace("performance.accuracy", "performance.acuracy"), "did you mean 'performance.accuracy'"),
        (FILE.replace("0.99", "99"), "principle 'right'"),
        (FILE.replace('scope = "model"', 'scope = "modle"'), "did you mean 'model'"),
        (
            FILE[: FILE.index("[[principle]]")] + FILE[FILE.rindex("[[principle]]") :],
            "no principle of scope 'model'",
        ),
    ],
)
def test_a_wrong_constitution_of_a_run_is_one_line_before_anything_starts(tmp_path, content, words):
    path = tmp_path / "rules.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        make_config(config(assess__constitution=str(path)))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="name of a TOML file"):
        make_config(config(assess__constitution=3))


def test_a_failed_principle_stops_the_release_and_is_shown_by_name(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    run = fedsafe.run(config(assess__constitution=str(path)), out=tmp_path / "run")
    assert run.accepted is None
    lines = [json.loads(line) for line in (run.path / "requirements.jsonl").read_text().splitlines()]
    assert {(line["principle"], line["statement"]) for line in lines} == {("right", "It is right | mostly.")}
    assert all(line["blocks"] for line in lines)
    start = json.loads((run.path / "record.jsonl").read_text().splitlines()[0])
    assert start["assessment"]["constitution"]["title"] == "House rules"
    from fedsafe.report import write_report

    report = write_report(run.path)
    assert "right: It is right | mostly." in report.read_text()
    assert "House rules" in report.read_text()
    card = (run.path / "card.md").read_text()
    assert r"right: It is right \| mostly." in card
    assert "House rules" in card
