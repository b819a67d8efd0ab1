"""The README is true: its Python runs, its commands exist, and the files that it names are there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import fedsafe as fedsafe_package

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "differentially private" in printed
    assert printed.rstrip().endswith("stacked")
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == 2


def _commands():
    lines = [line for language, code in BLOCKS if not language for line in code.splitlines()]
    return [line.split("#")[0].split() for line in lines if line.startswith("fedsafe ")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("readme") / "run"
    fedsafe_package.run(
        {
            "rounds": 2,
            "federation": {"clients": 40},
            "assess": {"assessors": ["performance"]},
            "engine": {"name": "inline"},
        },
        out=out,
    )
    return out


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_every_command_of_the_readme_works(command, finished, fedsafe):
    """The long runs are shortened; everything else is run as it stands."""
    stands_for = {"RUN": finished, "experiments/adult.toml": ROOT / "experiments" / "adult.toml"}
    arguments = [stands_for.get(word, word) for word in command[1:]]
    if arguments[0] == "run" and "--resume" not in arguments:
        arguments += ["--engine", "inline", "--set", "rounds=2", "--set", "assess.require=[]"]
        arguments += ["--set", 'assess.assessors=["performance"]']
    done = fedsafe(*arguments)
    assert done.code == 0, done.err
    assert done.out


def test_every_file_that_the_documents_name_is_there():
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for name in re.findall(r"`((?:fedsafe|docs|tests|experiments|benchmarks)/[\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"
        for name in re.findall(r"\]\((\w[\w./-]*)\)", text):
            assert (ROOT / name).exists(), f"{document} links {name}"


def test_the_default_experiment_is_the_adult_experiment():
    packaged = ROOT / "fedsafe" / "runs" / "default.toml"
    assert packaged.read_text(encoding="utf-8") == (ROOT / "experiments" / "adult.toml").read_text(
        encoding="utf-8"
    )


def test_the_public_names_are_what_they_are_meant_to_be():
    assert fedsafe_package.__all__ == ["assess", "open_run", "resume", "run"]
    assert all(hasattr(fedsafe_package, name) for name in fedsafe_package.__all__)


def test_no_document_or_code_names_a_path_of_one_machine():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout: the files of the project cannot be listed")
    home = os.path.expanduser("~")
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".j2", ".css"} and path.is_file():
            assert f"{home}/" not in path.read_text(encoding="utf-8"), name
