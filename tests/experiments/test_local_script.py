"""The script that holds training alone to federating: what it writes, what it keeps, and what it refuses."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_federation
import typer
from typer.testing import CliRunner

from fedsafe.runs import local_training as own

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
sys.path.insert(0, str(FOLDER))

import local_training as script  # noqa: E402
import tables  # noqa: E402

CONFIG = """
task = "test_local_script:task"
rounds = 2
[federation]
partition = { name = "natural", by = "hospital" }
cohort = { rate = 1.0 }
[client]
steps = 1
[server]
aggregator = "fedavg"
[privacy.record]
epsilon = 1.0
[privacy.client]
epsilon = inf
"""


def task():
    whole = tiny_federation.task()
    sides = {}
    for side in ("train", "evaluation"):
        examples = getattr(whole, side)
        names = np.array(["East", "West"])[np.arange(len(examples)) % 2]
        sides[side] = replace(examples, holders={"hospital": names})
    return replace(whole, **sides)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


def called(config, out, *words):
    app = typer.Typer()
    app.command()(script.main)
    given = [str(config), "--out", str(out), "--epsilon", "0.2,inf", "--seeds", "2", "--workers", "1"]
    return CliRunner().invoke(app, [*given, "--alone", "2,1,0.5", "--fine-tuned", "1,1,0", *words])


def test_the_same_command_goes_on_and_says_the_same(config, tmp_path, monkeypatch):
    first = called(config, tmp_path / "out")
    assert first.exit_code == 0, first.output
    body = json.loads((tmp_path / "out" / "local.json").read_text())
    assert body["budgets"] == ["0.2", "inf"]
    assert body["clients"] == ["East", "West"]
    assert body["alone"] == {"rounds": 2, "lr": 1.0, "momentum": 0.5}

    def nothing(*_, **__):
        raise AssertionError("a cell that is kept is not computed again")

    monkeypatch.setattr(own, "prepare_runs", nothing)
    assert called(config, tmp_path / "out").exit_code == 0
    assert json.loads((tmp_path / "out" / "local.json").read_text()) == body
    # What it wrote is what a README shows.
    shown = {"holder": "hospital", "unit": "patients", "budgets": ["0.2", "inf"]}
    monkeypatch.setitem(tables.SHOWN, "tiny", {"clients": shown})
    text = tables.block("tiny", "clients", tables.recorded(tmp_path / "out", shown))
    assert text.count("| East |") == 2
    assert "worst hospital" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--alone", "2,1"), "--alone '2,1'"),
        (("--alone", "0,1,0"), "0 rounds"),
        (("--epsilon", "0"), "--epsilon 0"),
        (("--set", "privacy.client.epsilon=8", "--set", 'server.aggregator="noisy_mean"'), "privacy.client"),
    ],
)
def test_wrong_requests_are_one_line(config, tmp_path, words, said):
    done = called(config, tmp_path / "out", *words)
    assert done.exit_code == 2
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1
