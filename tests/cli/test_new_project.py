"""``fedsafe new`` writes a project that runs; what is broken in it is named in one line, or in a failed finding."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from quiet_environment import QUIET

from fedsafe.runs.run import run
from fedsafe.store import RunFolder

NAME = "my_project"
# Two rounds without calibration, judged by what is quick and by what is the project's own.
QUICK = [
    word
    for option in (
        "rounds=2", "assess.every=2", "privacy.record.epsilon=inf",
        f"assess.assessors=['performance', '{NAME}.assessor:Unsure']",
    )
    for word in ("--set", option)
]  # fmt: skip


@pytest.fixture
def project(fedsafe, tmp_path):
    command = fedsafe("new", NAME)
    assert command.code == 0, command.err
    return tmp_path / NAME


def of_project(*argv, cwd):
    environment = {**os.environ, **QUIET, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, *argv],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_command_says_what_it_made_and_what_to_do_next(fedsafe, tmp_path):
    command = fedsafe("new", NAME, "--out", "elsewhere/it")
    assert command.code == 0, command.err
    assert command.out.splitlines() == [
        "made elsewhere/it with 9 files; next:", "  cd elsewhere/it", f"  fedsafe run {NAME}.toml", "  pytest",
    ]  # fmt: skip
    files = {
        str(file.relative_to(tmp_path / "elsewhere" / "it")) for file in (tmp_path / "elsewhere").rglob("*.*")
    }
    files.discard("tests")
    assert files == {
        ".gitignore", "README.md", "pyproject.toml", f"{NAME}.toml", f"{NAME}/__init__.py", f"{NAME}/model.py",
        f"{NAME}/aggregator.py", f"{NAME}/assessor.py", f"tests/test_{NAME}.py",
    }  # fmt: skip
    for file in (tmp_path / "elsewhere").rglob("*.*"):
        text = file.read_text()
        assert "$" not in text, file
        assert "NAME" not in text, file
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["it"]


def test_its_own_tests_pass_and_its_files_are_in_order(project):
    code, said = of_project("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert code == 0, said
    assert "2 passed" in said
    rules = ("--isolated", "--no-cache", "--line-length", "110", ".")
    selected = ("--select", "A,B,E,F,I,N,UP,RUF")
    for check in (("check", *selected, *rules), ("format", "--check", *rules)):
        code, said = of_project("-m", "ruff", *check, cwd=project)
        assert code == 0, said


def test_it_runs_with_its_own_model_aggregator_and_assessor(fedsafe, project, tmp_path):
    command = fedsafe("run", f"{NAME}/{NAME}.toml", "--out", "out", *QUICK)
    assert command.code == 0, command.err + command.out
    folder = RunFolder.open(tmp_path / "out")
    findings = folder.read("findings.jsonl")
    (ours,) = [line for line in findings if line["assessor"] == NAME]
    assert (ours["metric"], ours["status"], ours["n"]) == (f"{NAME}.unsure_share", "measured", 171)
    assert [line["metric"] for line in folder.read("requirements.jsonl")] == [
        "performance.accuracy", f"{NAME}.unsure_share",
    ]  # fmt: skip
    start = folder.record()[0]
    assert start.model == {"name": f"{NAME}.model:small_net", "parameters": 30 * 8 + 8 + 8 + 1}
    assert (tmp_path / "out" / "metrics.csv").is_file()
    assert "An example to start from" in (tmp_path / "out" / "card.md").read_text()
    assert not [line for line in findings if line["status"] == "failed"]


def test_it_runs_on_rays_workers_too_and_gives_the_same(project, tmp_path, monkeypatch, ray_of_two):
    monkeypatch.setattr(sys, "path", [*sys.path, str(project)])
    values = tomllib.loads((project / f"{NAME}.toml").read_text())
    privacy = {"record": {"epsilon": float("inf")}, "client": {"epsilon": float("inf")}, "noise_key": "seed"}
    values |= {"rounds": 2, "privacy": privacy, "sinks": []}
    values["assess"] |= {"every": 2, "assessors": ["performance"], "require": []}
    results = []
    try:
        for number, engine in enumerate(({"name": "inline"}, {"name": "ray", "workers": 2})):
            results.append(run({**values, "engine": engine}, out=tmp_path / str(number)))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[name]
    digests = [[line.parameters_sha256 for line in result._rounds()] for result in results]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-project", ["'my-project'", "such as 'my_project'"]),
        ("2nd", ["'2nd'", "such as 'my_project'"]),
        ("class", ["'class'", "cannot be the name"]),
        ("größe", ["größe", "letters, digits and _"]),
        ("../up", ["'../up'", "such as 'up'"]),
        ("", ["''"]),
        ("json", ["'json'", "there already", "'my_json'"]),
        ("torch", ["'torch'", "there already"]),
        ("fedsafe", ["'fedsafe'", "there already"]),
        ("tests", ["'tests'", "there already"]),
    ],
)
def test_a_name_that_python_could_not_import_or_would_confuse_is_refused(fedsafe, tmp_path, name, said):
    command = fedsafe("new", "--", name)
    assert command.code == 1
    assert command.err.count("\n") == 1
    assert command.err.startswith("fedsafe: ")
    for part in said:
        assert part in command.err
    assert [path.name for path in tmp_path.iterdir()] == ["said"]


def test_nothing_that_is_there_is_written_over(fedsafe, tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for words in ([NAME], ["other_name", "--out", "said"], ["other_name", "--out", "dangling"]):
        command = fedsafe("new", *words)
        assert command.code == 1
        assert "is there already" in command.err
    command = fedsafe("new", "other_name", "--out", "/proc/no/project")
    assert (command.code, command.err.count("\n")) == (1, 1)
    assert "/proc/no/project cannot be made" in command.err
    assert list((tmp_path / NAME).iterdir()) == []


MODEL = "    return nn.Sequential("
COMBINE = "        return middle"
CALL = "        probable = subject"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("model", MODEL, "    return 3\n    return nn.Sequential(", ["model:small_net", "int", "torch.nn.Module"]),
        ("model", MODEL, "    raise ValueError('no\\nluck')\n" + MODEL, ["model:small_net", "ValueError: no luck"]),
        ("model", "def small_net", "def net", ["model:small_net", "has no attribute 'small_net'"]),
        ("model", "def small_net(", "def small_net((", ["model:small_net", "SyntaxError"]),
        ("model", "width: int = 8", "height: int = 8", ["width"]),
        ("model", "width, outputs)", "width, outputs + 1)", ["(5, 2)"]),
        ("aggregator", "def combine", "def merge_all", ["aggregator:MiddleMean", "combine"]),
        ("aggregator", "class MiddleMean(RowRule)", "class MiddleMean", ["aggregator:MiddleMean", "lacks", "zero"]),
        ("aggregator", COMBINE, "        return middle[1:]", ["aggregator:MiddleMean", "(4,)"]),
        ("aggregator", COMBINE, "        return list(middle)", ["aggregator:MiddleMean", "list", "finish"]),
        ("aggregator", COMBINE, "        raise KeyError('lost')", ["aggregator:MiddleMean", "KeyError", "finish"]),
        ("aggregator", "MiddleMean(RowRule)", "Middle(RowRule)", ["no attribute 'MiddleMean'"]),
        ("assessor", "    def plan", "    def cost", ["assessor:Unsure", "plan"]),
        ("assessor", "below: float", "under: float", ["assessor:Unsure", "below"]),
        ("assessor", 'direction="lower"', 'direction="down"', ["assessor:Unsure", "direction 'down'"]),
    ],
)  # fmt: skip
def test_a_broken_part_is_named_in_one_line_before_anything_is_written(
    fedsafe, project, tmp_path, file, old, new, said
):
    change(project / NAME / f"{file}.py", old, new)
    command = fedsafe("run", f"{NAME}/{NAME}.toml", "--out", "out")
    assert command.code == 1, command.out
    assert command.err.count("\n") == 1, command.err
    assert command.err.startswith("fedsafe: ")
    for part in said:
        assert part in command.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("        raise ValueError('no\\nluck')", "ValueError: no luck"),
        ("        return 3", "it returned a int, not a list of findings"),
        ("        return [3]", "entry 0 of its list is a int, not a Finding"),
    ],
)
def test_a_broken_assessor_is_a_failed_finding_that_names_it_and_the_run_goes_on(
    fedsafe, project, tmp_path, new, said
):
    change(project / NAME / "assessor.py", CALL, f"{new}\n{CALL}")
    command = fedsafe("run", f"{NAME}/{NAME}.toml", "--out", "out", *QUICK)
    assert command.code == 0, command.err
    findings = RunFolder.open(tmp_path / "out").read("findings.jsonl")
    (failed,) = [line for line in findings if line["status"] == "failed"]
    assert failed["metric"] == "assess.completed"
    assert f"'{NAME}'" in failed["detail"]["reason"]
    assert said in " ".join(failed["detail"]["reason"].split())
    assert any(line["metric"] == "performance.accuracy" for line in findings)
    card = (tmp_path / "out" / "card.md").read_text()
    assert "assess.completed" in card.partition("## Limitations")[2]


def test_an_aggregator_that_breaks_in_the_middle_of_a_run_ends_it_with_one_line_that_names_it(
    fedsafe, project, tmp_path
):
    broken = "        if len(rows) > 3:\n            raise KeyError('lost')\n"
    change(project / NAME / "aggregator.py", COMBINE, broken + COMBINE)
    command = fedsafe("run", f"{NAME}/{NAME}.toml", "--out", "out", *QUICK)
    assert command.code == 1
    assert command.err.count("\n") == 1, command.err
    assert f"{NAME}.aggregator:MiddleMean' failed in finish: KeyError: 'lost'" in command.err
    assert [line.kind for line in RunFolder.open(tmp_path / "out").record()] == ["start"]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))
