"""Every experiment that the README lists runs, with privacy on and inside its budget; here it is cut short."""

import math
import os
import re
import tomllib
from pathlib import Path

import pytest

from fedsafe.extensions import search
from fedsafe.runs.config import make_config, read_config
from fedsafe.runs.run import run

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))
WITHOUT_DATA = {"adult", "breast-cancer", "digits", "flower"}


def test_the_readme_lists_every_experiment():
    listed = re.findall(r"^\| `([\w-]+)\.toml`", (EXPERIMENTS / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == set(NAMES) - {"flower"}


@pytest.mark.parametrize("name", NAMES)
def test_privacy_is_on_in_every_experiment(name):
    privacy = read_config(EXPERIMENTS / f"{name}.toml").privacy
    assert privacy.noise_key == "os"
    assert min(privacy.record.epsilon, privacy.client.epsilon) <= 8.0


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_runs_on_its_own_data(name, tmp_path):
    if name not in WITHOUT_DATA and not os.environ.get("FEDSAFE_DATA_DIR"):
        pytest.skip("needs FEDSAFE_DATA_DIR with the real data sets")
    search([EXPERIMENTS])
    values = tomllib.loads((EXPERIMENTS / f"{name}.toml").read_text(encoding="utf-8"))
    values |= {
        "rounds": 1,
        "engine": {"name": "inline"},
        "assess": {
            **values.get("assess", {}),
            "every": 1,
            "assessors": ["performance", "fairness", "privacy"],
        },
    }
    values["assess"]["require"] = []
    finished = run(make_config(values), out=tmp_path / "run")
    findings = finished.findings()
    assert not (findings["status"] == "failed").any(), findings["detail"].tolist()
    assert (findings[findings["assessor"] == "performance"]["status"] == "measured").any()
    for claim in finished.claims:
        target = values["privacy"][claim["unit"]]["epsilon"]
        assert claim["epsilon"] is None if math.isinf(target) else claim["epsilon"] <= target
