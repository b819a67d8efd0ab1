"""The README is true: its Python and its commands run, and leave what it says."""

import re
import tomllib

import pytest
import tomli_w
from readme import BLOCKS, README, ROOT, commands, section

import fedsafe as fedsafe_package
from fedsafe.cli.run import summary
from fedsafe.runs import Run

RULES = """
[[require]]
metric = "performance.accuracy"
op = ">="
threshold = 0.5
"""
MY_MODULE = """
from fedsafe.data import load_task
from torch import nn


def model():
    return nn.Linear(load_task("adult").train.x.shape[1], 1)
"""


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    """All as it stands; the first run has every assessor, and the comparison of its configuration two."""
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for language, code in BLOCKS:
        if language == "python":
            if "fedsafe.compare(" in code:
                judge_by_less(namespace["run"].path / "config.toml")
            exec(compile(code, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "differentially private" in printed
    assert "regression {" in printed
    assert printed.rstrip().endswith("stacked")
    runs = README.count("fedsafe.run(") - README.count("`fedsafe.run(")
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == runs
    assert set(namespace["frame"]["assessor"]) == {"performance", "fairness"}
    assert not (namespace["frame"]["status"] == "failed").any()


def judge_by_less(path):
    values = tomllib.loads(path.read_text())
    values["assess"] = {**values.get("assess", {}), "assessors": ["performance", "fairness"]}
    path.write_text(tomli_w.dumps(values))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("readme") / "run"
    fedsafe_package.run(
        {
            "rounds": 2,
            "federation": {"clients": 40},
            "assess": {
                "assessors": ["performance"],
                "require": [{"metric": "performance.accuracy", "op": ">=", "threshold": 0.5}],
            },
            "engine": {"name": "inline"},
        },
        out=out,
    )
    return out


@pytest.mark.parametrize("command", commands("fedsafe"), ids=" ".join)
def test_every_command_of_the_readme_works(command, finished, fedsafe, tmp_path):
    """The long runs are shortened; everything else is run as it stands."""
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "my_module.py").write_text(MY_MODULE)
    stands_for = {
        "RUN": finished,
        "experiments/adult.toml": ROOT / "experiments" / "adult.toml",
        "MY_APP": ROOT / "tests" / "apps" / "flower_apps" / "quickstart",
        "1000": "4",
    }
    arguments = [stands_for.get(word, word) for word in command[1:]]
    if arguments[0] == "run" and "--resume" not in arguments:
        arguments += ["--engine", "inline", "--set", "rounds=2", "--set", "assess.require=[]"]
        arguments += ["--set", 'assess.assessors=["performance"]']
    judged = "--suite" in arguments
    if judged:  # by its cheapest; a model of two rounds need not meet what it asks for
        arguments[arguments.index("--suite") + 1] = "privacy"
        arguments += ["--tier", "cheap"]
    elif arguments[0] == "assess":
        arguments += ["--only", "performance"]
    if arguments[0] == "compare":
        arguments[arguments.index("--epsilon") + 1] = "1,inf"
        arguments[arguments.index("--seeds") + 1] = "2"
        if "--trials" in arguments:
            arguments[arguments.index("--trials") + 1] = "2"
        arguments += ["--rounds", "2", "--workers", "1", "--set", 'assess.assessors=["performance"]']
    if arguments[0] == "simulate":
        arguments += ["--engine", "inline"]
    done = fedsafe(*arguments)
    assert done.code in ((0, 3) if judged else (0,)), done.err
    assert done.out


def test_the_run_folder_is_the_one_described(finished):
    lines = [line for line in section("A run folder").splitlines() if line.startswith("RUN/")]
    listed = {line.split()[0].removeprefix("RUN/").rstrip("/") for line in lines}
    made_later = {"assessments"}
    assert listed - made_later == {path.name for path in finished.iterdir()} - made_later


def test_the_keys_of_json_are_those_listed(finished):
    listed = re.search(r"`--json` prints one object: (.*?)\. ", README, flags=re.DOTALL)
    assert re.findall(r"`(\w+)`", listed[1]) == list(summary(Run(finished), finished / "report.html"))
