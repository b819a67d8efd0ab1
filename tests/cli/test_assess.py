"""``fedsafe assess``: the model of a run or any module, an exit code for a pipeline, one clear line for wrong input."""

import json
import shutil

import pytest
from tiny_federation import config

from fedsafe.findings import Finding
from fedsafe.runs import run
from fedsafe.store import RunFolder

MODEL, TASK = "mine:model", "tiny_federation:task"
MINE = """
from dataclasses import replace

import numpy as np
from tiny_federation import task
from torch import nn


def model():
    return nn.Linear(5, 1)


def talkative_model():
    print("a greeting that is no part of the result")
    return model()


def no_model():
    return "a model"


def wide_model():
    return nn.Linear(9, 1)


def with_a_nan():
    whole = task()
    whole.evaluation.x[3, 1] = np.nan
    return replace(whole, evaluation=replace(whole.evaluation))


def with_a_wrong_label():
    whole = task()
    whole.evaluation.y[3] = 7
    return whole


def of_one_group():
    whole = task(evaluation=200)
    groups = {"sex": np.full(200, "Female")}
    return replace(whole, evaluation=replace(whole.evaluation, groups=groups))
"""


@pytest.fixture(autouse=True)
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)


@pytest.fixture
def rules(tmp_path):
    def write(metric="performance.accuracy", threshold=0.0, **more):
        lines = [f"{key} = {value!r}" for key, value in {"metric": metric, "op": ">=", **more}.items()]
        path = tmp_path / "rules.toml"
        path.write_text("\n".join(["[[require]]", f"threshold = {threshold}", *lines]) + "\n")
        return path

    return write


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return run(config(), out=tmp_path_factory.mktemp("runs") / "original").path


@pytest.fixture
def finished(original, tmp_path):
    shutil.copytree(original, tmp_path / "run")
    return tmp_path / "run"


def test_the_model_of_a_run_is_judged_beside_its_rounds(fedsafe, finished, rules):
    before = (finished / "findings.jsonl").read_bytes(), (finished / "record.jsonl").read_bytes()
    command = fedsafe("assess", "run", "--only", "performance,fairness", "--require", rules(), "--json")
    assert command.code == 0, command.err
    printed = json.loads(command.out, parse_constant=pytest.fail)
    assert (printed["round"], printed["tier"], printed["task"], printed["passed"]) == (
        3,
        "full",
        "tiny",
        True,
    )
    assert {finding["assessor"] for finding in printed["findings"]} == {
        "performance",
        "fairness",
        "comparison",
    }
    assert set(printed["seconds"]) == {"performance", "fairness", "comparison"}
    accuracy = next(f for f in printed["findings"] if f["metric"] == "performance.accuracy")
    in_run = [f for f in RunFolder.open(finished).read("findings.jsonl") if f["metric"] == accuracy["metric"]]
    assert accuracy["value"] == in_run[-1]["value"]
    folder = finished / "assessments" / "round-00003-full"
    lines = [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()]
    assert lines == printed["findings"]
    assert all(Finding.from_json(line) for line in lines)
    assert "performance.accuracy &gt;= 0.0" in (folder / "assessment.html").read_text()
    assert ((finished / "findings.jsonl").read_bytes(), (finished / "record.jsonl").read_bytes()) == before


def test_what_an_assessor_read_of_the_clients_records_is_said_though_evaluation_is_public(fedsafe, finished):
    command = fedsafe("assess", "run", "--only", "performance", "--tier", "cheap", "--json")
    assert json.loads(command.out)["released"] is None
    command = fedsafe("assess", "run", "--only", "membership", "--tier", "cheap", "--json")
    assert "the simulator's view" in json.loads(command.out)["released"]
    command = fedsafe("assess", "run", "--only", "membership", "--tier", "cheap")
    assert "let out of private data, and in no claim: " in command.out


def test_a_shared_copy_is_enough_and_any_round_may_be_named(fedsafe, finished, tmp_path):
    shutil.rmtree(finished / "private")
    command = fedsafe("assess", "run", "--round", 2, "--tier", "cheap", "--out", "found", "--json")
    assert command.code == 0, command.err
    assert json.loads(command.out)["round"] == 2
    assert (tmp_path / "found" / "findings.jsonl").is_file()
    assert not (finished / "assessments").exists()


def test_a_must_that_is_not_met_ends_with_code_3(fedsafe, finished, rules):
    for metric, threshold, verdict in (
        ("performance.accuracy", 0.999, "fail"),
        ("robustness.attacked_accuracy", 0.0, "unmeasured"),
    ):
        rule = rules(metric, threshold)
        command = fedsafe("assess", "run", "--only", "performance", "--require", rule, "--tier", "cheap")
        assert command.code == 3
        assert f"1 requirement(s) not met, first: {metric} >= {threshold:g} is {verdict}" in command.err
    soft = rules(threshold=0.999, severity="should")
    assert fedsafe("assess", "run", "--only", "performance", "--require", soft, "--tier", "cheap").code == 0


def test_what_would_be_spent_is_said_and_nothing_is_written(fedsafe, finished):
    command = fedsafe("assess", "run", "--plan", "--only", "performance,fairness")
    assert command.code == 0, command.err
    assert "60 forward and 0 backward passes of an example" in command.out
    printed = json.loads(fedsafe("assess", "run", "--plan", "--json", "--only", "performance").out)
    assert printed["plan"]["performance"]["forward"] == 60
    assert not (finished / "assessments").exists()


def test_any_module_is_judged_on_a_task(fedsafe, tmp_path, rules):
    command = fedsafe("assess", MODEL, "--task", TASK, "--tier", "cheap", "--only", "performance")
    assert command.code == 0, command.err
    assert "accuracy" in command.out
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["said"]
    (tmp_path / "mine.toml").write_text(f'task = "{TASK}"\n')
    command = fedsafe(
        "assess",
        "mine:talkative_model",
        "--task",
        "mine.toml",
        "--tier",
        "cheap",
        "--only",
        "performance",
        "--out",
        "o",
        "--json",
    )
    assert command.code == 0, command.err
    printed = json.loads(command.out)
    assert (printed["target"], printed["round"]) == ("mine:talkative_model", 0)
    assert (tmp_path / "o" / "assessment.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is not a run folder: it does not exist"),
        ([MODEL], "is a model and not a run: name the data to judge it on with --task"),
        ([MODEL, "--task", TASK, "--round", "2"], "is a model, and has no rounds"),
        (["no.such:thing", "--task", TASK], "cannot be imported"),
        (["mine:no_model", "--task", TASK], "returned str, not a torch.nn.Module"),
        (["mine:wide_model", "--task", TASK], "cannot take records float32 of shape (n, 5)"),
        ([MODEL, "--task", "adutl"], "There is no task 'adutl'"),
        ([MODEL, "--task", "none.toml"], "--task none.toml cannot be read"),
        ([MODEL, "--task", TASK, "--only", "fairnes"], "did you mean 'fairness'"),
        ([MODEL, "--task", TASK, "--only", ","], "--only names no assessor"),
        ([MODEL, "--task", "mine:with_a_nan"], "Row 3 (counted from 0) of x has nan"),
        ([MODEL, "--task", "mine:with_a_wrong_label"], "labels run from 0 to 7"),
    ],
)
def test_wrong_input_is_one_clear_line(fedsafe, tmp_path, arguments, words):
    command = fedsafe("assess", *arguments)
    assert command.code == 1
    assert command.out == ""
    assert command.err.count("\n") == 1
    assert words in command.err


def test_a_requirement_on_an_unknown_metric_names_the_nearest(fedsafe, rules):
    command = fedsafe("assess", MODEL, "--task", TASK, "--require", rules("performance.acuracy"))
    assert command.code == 1
    assert command.err.count("\n") == 1
    assert "did you mean 'performance.accuracy'" in command.err


def test_a_group_column_of_one_value_is_said_in_one_line(fedsafe, rules):
    rule = rules("fairness.accuracy_difference")
    command = fedsafe(
        "assess",
        MODEL,
        "--task",
        "mine:of_one_group",
        "--only",
        "fairness",
        "--tier",
        "cheap",
        "--require",
        rule,
    )
    assert command.code == 3
    assert "unmeasured" in command.err
    assert "group" in command.err
    assert command.err.count("\n") == 1
