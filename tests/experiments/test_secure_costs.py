"""The cost study of secure aggregation: its README shows what was recorded, and its measurements can be made."""

import json
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
sys.path.insert(0, str(FOLDER))

import commands as readme_commands  # noqa: E402
import secure_costs  # noqa: E402
import secure_shown  # noqa: E402
from tables import with_block  # noqa: E402

README = (FOLDER / "secure" / "README.md").read_text(encoding="utf-8")
RESULTS = json.loads((FOLDER / "secure" / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", secure_shown.PARTS)
def test_the_block_is_what_the_recorded_results_give(part):
    assert with_block(README, part, secure_shown.block(part, RESULTS[part])) == README


def test_figures_of_the_answer_stand_in_the_tables():
    answer = README.partition("## Answer")[2].partition("\n## ")[0]
    figures = re.findall(r"\d+\.\d+", answer)
    assert len(figures) >= 4
    known = set(
        re.findall(r"\d+\.\d+", "".join(secure_shown.block(p, RESULTS[p]) for p in secure_shown.PARTS))
    )
    assert [figure for figure in figures if figure not in known] == []


def test_the_commands_are_the_two_scripts():
    scripts = [words[1] for words in readme_commands.commands(FOLDER / "secure" / "README.md")]
    assert scripts == ["experiments/secure_costs.py", "experiments/secure_shown.py"]
    assert all((FOLDER.parent / script).is_file() for script in scripts)


def test_the_picture_is_there_and_small():
    content = (FOLDER / "secure" / "costs.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000


def test_a_round_is_measured_beside_the_plain_average():
    row = secure_costs.cost(12, 100)
    assert row["exchanges"] == 5
    assert row["client_seconds"] > row["plain"]["client_seconds"] > 0.0
    assert row["plain"]["up_bytes"] == 800
    # The values themselves are the least that a client sends.
    assert row["up_bytes"] > 4 * row["values"] * 0.9
