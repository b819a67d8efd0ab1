"""``fedsafe assess RUN --suite NAME --junit FILE``, as another project's pipeline calls it."""

import json
from xml.etree import ElementTree as Xml

import pytest
from tiny_federation import config

from fedsafe.params import fingerprint
from fedsafe.runs import run
from fedsafe.store import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(config(), out=tmp_path_factory.mktemp("runs") / "original").path


@pytest.fixture
def suite(tmp_path):
    def write(threshold, **more):
        lines = {
            "metric": "performance.accuracy",
            "op": ">=",
            "threshold": threshold,
            "because": "it must",
            **more,
        }
        text = 'assessors = ["performance"]\n[[require]]\ncase = "right"\n'
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items())
        (tmp_path / "house.toml").write_text(text)
        return "house.toml"

    return write


def cases(file):
    return {case.attrib["name"]: [child.tag for child in case] for case in Xml.parse(file).iter("testcase")}


def test_the_exit_code_and_the_file_say_the_same(fedsafe, finished, suite, tmp_path):
    for threshold, code, inside in ((0.01, 0, []), (0.999, 3, ["failure"])):
        command = fedsafe(
            "assess",
            finished,
            "--suite",
            suite(threshold),
            "--tier",
            "cheap",
            "--junit",
            "out/j.xml",
            "--out",
            "o",
        )
        assert command.code == code, command.err
        assert cases(tmp_path / "out" / "j.xml") == {"right": inside}
    assert "1 requirement(s) not met, first: performance.accuracy >= 0.999 is fail" in command.err
    about = {p.attrib["name"]: p.attrib["value"] for p in Xml.parse(tmp_path / "out/j.xml").iter("property")}
    parameters = RunFolder.open(finished).read_checkpoint(int(about["round"]))[0]["parameters"]
    assert about["model"] == fingerprint(parameters)
    assert about["suite"] == "house"
    assert "epsilon 0.0" in about["claim"] or "epsilon 0.1" in about["claim"]


def test_a_file_of_requirements_replaces_a_threshold(fedsafe, finished, suite, tmp_path):
    rules = tmp_path / "rules.toml"
    rules.write_text('[[require]]\nmetric = "performance.accuracy"\nop = ">="\nthreshold = 0.01\n')
    command = fedsafe(
        "assess",
        finished,
        "--suite",
        suite(0.999),
        "--require",
        rules,
        "--tier",
        "cheap",
        "--json",
        "--out",
        "o",
    )
    assert command.code == 0, command.err
    printed = json.loads(command.out)
    assert printed["passed"]
    assert [(line["case"], line["threshold"], line["result"]) for line in printed["requirements"]] == [
        ("right", 0.01, "pass")
    ]
    rules.write_text('[[require]]\nmetric = "fairness.accuracy"\nop = ">="\nthreshold = 0.01\n')
    command = fedsafe("assess", finished, "--suite", suite(0.5), "--require", rules, "--out", "o")
    assert command.code == 1
    assert "in the place of no case of house" in command.err


def test_suites_that_ship_judge_a_run(fedsafe, finished):
    command = fedsafe(
        "assess",
        finished,
        "--suite",
        "bias,privacy",
        "--tier",
        "cheap",
        "--json",
        "--junit",
        "j.xml",
        "--out",
        "o",
    )
    assert command.code in (0, 3), command.err
    lines = json.loads(command.out)["requirements"]
    results = {(line["suite"], line["case"]): line["result"] for line in lines}
    assert results["privacy", "accounted epsilon"] == "pass"
    assert results["privacy", "audited below accounted"] == "skip"
    assert results["bias", "race equalised odds"] == "skip"
    assert results["bias", "sex changed"] in ("pass", "fail")
    blocks = [line for line in lines if line["blocks"]]
    assert command.code == (3 if blocks else 0)
    assert all(line["result"] in ("fail", "error") for line in blocks)


def test_a_model_that_promises_nothing_does_not_pass_for_private(fedsafe, tmp_path):
    (tmp_path / "mine.py").write_text("from torch import nn\n\n\ndef model():\n    return nn.Linear(5, 1)\n")
    command = fedsafe(
        "assess", "mine:model", "--task", "tiny_federation:task", "--suite", "privacy", "--tier", "cheap"
    )
    assert command.code == 3
    assert "privacy.epsilon <= 10 is unmeasured" in command.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "bias", "--only", "fairness"], "leave --only out"),
        (["--junit", "j.xml"], "name one with --suite"),
        (["--suite", "nothing"], "The suite 'nothing' is not known"),
    ],
)
def test_wrong_options_are_one_clear_line(fedsafe, finished, options, message):
    command = fedsafe("assess", finished, *options)
    assert command.code == 1
    assert message in command.err
    assert len(command.err.strip().splitlines()) == 1
