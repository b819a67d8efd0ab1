"""What the READMEs of experiments show is what the recorded results give, and their commands are ones that exist."""

import json
import re
import sys
from pathlib import Path

import click
import pytest
import typer

from fedsafe.cli import app
from fedsafe.runs.comparison import Comparison, read_budget
from fedsafe.runs.config import read_config

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
sys.path.insert(0, str(FOLDER))

import commands as readme_commands  # noqa: E402
import local_training  # noqa: E402
import tables  # noqa: E402

NAMES = tuple(tables.SHOWN)
PARTS = [(name, part) for name in NAMES for part in tables.SHOWN[name]]


def readme(name):
    return (FOLDER / name / "README.md").read_text(encoding="utf-8")


def results(name):
    return json.loads((FOLDER / name / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_the_block_is_what_the_recorded_results_give(name, part):
    text = readme(name)
    assert tables.with_block(text, part, tables.block(name, part, results(name)[part])) == text


def test_a_figure_that_changes_is_noticed():
    found = results("adult")["budgets"]
    text = readme("adult")
    found["curves"][0]["points"][0]["value"] += 0.001
    assert tables.with_block(text, "budgets", tables.block("adult", "budgets", found)) != text


@pytest.mark.parametrize("name", NAMES)
def test_figures_of_the_answer_stand_in_the_results(name):
    text = readme(name)
    answer = text.partition("## Answer")[2].partition("\n## ")[0]
    blocks = "".join(tables.block(name, part, found) for part, found in results(name).items())
    figures = re.findall(r"[-+]?\d+\.\d+", answer)
    assert len(figures) >= 4
    known = set(re.findall(r"\d+\.\d+", blocks))
    assert [figure for figure in figures if figure.lstrip("+-") not in known] == []


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_there_and_small(name):
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", readme(name))
    assert pictures
    for picture in pictures:
        content = (FOLDER / name / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 150_000


def parsed(command: click.Command, words):
    """The options that a command reads; a usage error is an exception."""
    with command.make_context("command", list(words)) as context:
        return context.params


def cells_of(config, epsilon, seeds, unit, overrides):
    base = read_config(config, overrides)
    budgets = [read_budget(text) for text in epsilon.split(",")]
    comparison = Comparison(base=base, epsilons=budgets, seeds=seeds, unit=unit)
    return list(comparison.cells()), epsilon.split(",")


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_are_ones_that_exist(name, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    group = typer.main.get_command(app)
    own = typer.Typer()
    own.command()(local_training.main)
    left = {}
    for words in readme_commands.commands(FOLDER / name / "README.md"):
        if words[:2] == ["fedsafe", "compare"]:
            given = parsed(group.commands["compare"], words[2:])
            (config,) = given["sources"]
            seeds, unit, out, overrides = (given[key] for key in ("seeds", "unit", "out", "set_"))
            assert given["reproducible"]
        elif words[:2] == ["python", "experiments/local_training.py"]:
            given = parsed(typer.main.get_command(own), words[2:])
            config, seeds, unit, out = given["config"], given["seeds"], "record", given["out"]
            overrides = given["set_"]
            for key in ("alone", "fine_tuned"):
                local_training._own(given[key], key)
        else:
            assert words[:3] == ["python", "experiments/tables.py", name]
            for text in words[3:]:
                part, _, folder = text.partition("=")
                recorded = results(name)[part]
                budgets = recorded["budgets"] if "budgets" in recorded else recorded["settings"]["epsilons"]
                assert left.pop(folder) == budgets
            continue
        assert seeds == 5
        cells, budgets = cells_of(Path(config), given["epsilon"], seeds, unit, overrides or [])
        assert len(cells) == 5 * len(budgets)
        left[str(out)] = budgets
    assert left == {}  # every result is shown


def test_commands_go_on_after_a_backslash(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("```sh\nfedsafe compare a.toml \\\n  --set 'b=\"c d\"'\n\nls\n```\n```toml\nx = 1\n```\n")
    assert readme_commands.commands(path) == [["fedsafe", "compare", "a.toml", "--set", 'b="c d"'], ["ls"]]


@pytest.mark.parametrize(
    "words", [[], ["nothing"], ["adult", "budgets"], ["adult", "nothing=x"], ["adult", "budgets=nowhere"]]
)
def test_wrong_requests_are_refused(words, capsys):
    assert tables.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="<!-- begin budgets -->"):
        tables.with_block("nothing", "budgets", "content")


def test_what_a_comparison_left_is_recorded(tmp_path):
    point = {"epsilon": "1", "value": 0.99, "low": 0.97, "high": 1.01, "seeds": [0.99], "lost": None}
    curve = {"key": "accuracy", "title": "Accuracy", "unit": "share", "direction": "higher", "note": ""}
    curve |= {"low": 0.0, "high": 1.0, "points": [point]}
    body = {
        "settings": dict.fromkeys(
            ("epsilons", "seeds", "units", "reproducible", "rounds", "clients", "evaluation", "parameters"), 1
        ),
        "axis": [],
        "curves": [curve],
        "groups": [],
        "choices": [],
        "publishing": [],
    }
    (tmp_path / "comparison.json").write_text(json.dumps(body))
    (kept,) = tables.recorded(tmp_path, {"measures": ["accuracy"]})["curves"]
    # An interval ends where the measure does.
    assert kept["points"] == [{"epsilon": "1", "value": 0.99, "low": 0.97, "high": 1.0, "lost": None}]


@pytest.mark.parametrize(
    ("epsilon", "kept", "shown"), [(26.62071, 26.6208, "26.63"), (130.5270001, 130.528, "130.6")]
)
def test_no_epsilon_is_rounded_down(epsilon, kept, shown):
    found = results("adult")["budgets"]
    found["publishing"] = tables._rounded([{**found["publishing"][0], "epsilon": epsilon}])
    assert found["publishing"][0]["epsilon"] == kept
    assert f"cost one record epsilon {shown} at delta" in tables.block("adult", "budgets", found)
    assert tables.block("adult", "budgets", results("adult")["budgets"]).count("this is no bound") == 1
