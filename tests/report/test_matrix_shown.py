"""The page and the card show what is claimed against whom, and why nothing is."""

import json
import re

import pytest
from tiny_federation import config

from fedsafe.report import write_report
from fedsafe.runs import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("shown") / "run"
    path = run(config(privacy__noise_key="seed"), out=out).path
    write_report(path)
    return path


def cells(path):
    return json.loads((path / "record.jsonl").read_text().splitlines()[0])["matrix"]


def test_the_page_shows_every_cell(finished):
    page = (finished / "report.html").read_text()
    table = re.search(r'<table class="matrix">.*?</table>', page, flags=re.DOTALL)[0]
    for cell in cells(finished):
        assert cell["adversary"] in table
        assert cell["reason"].replace("'", "&#39;") in table
    assert table.count("<td") == 6
    assert "<strong>none</strong>" in table


def test_the_card_has_a_table_that_ends(finished):
    lines = (finished / "card.md").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| adversary |"))
    assert [line.split("|")[1].strip() for line in lines[first + 2 : first + 5]] == [
        "server",
        "other clients",
        "outsider",
    ]
    assert lines[first + 5] == ""


def test_a_record_without_a_matrix_is_still_read(finished, tmp_path):
    """One of an earlier version."""
    import shutil

    shutil.copytree(finished, tmp_path / "old")
    record = tmp_path / "old" / "record.jsonl"
    first, *others = record.read_text().splitlines()
    line = json.loads(first)
    del line["matrix"]
    record.write_text("\n".join([json.dumps(line), *others]) + "\n")
    write_report(tmp_path / "old")
    assert 'class="matrix"' not in (tmp_path / "old" / "report.html").read_text()
