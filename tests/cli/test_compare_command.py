"""``fedsafe compare``: one object or a short table, a page, and one line for a wrong request; finished runs, too."""

import json
import re
import signal
import time

import pytest

SMALL = ("--epsilon", "0.1,inf", "--seeds", "2", "--workers", "1")
JUDGED = {"assess__assessors": ["performance", "fairness"]}


def test_a_comparison_is_one_object_and_goes_on(fedsafe, tiny_toml, tmp_path):
    config = tiny_toml(**JUDGED)
    command = fedsafe("compare", config, *SMALL, "--json")
    assert command.code == 0, command.err
    printed = json.loads(command.out, parse_constant=pytest.fail)
    folder = tmp_path / "comparisons" / "tiny"
    page = (tmp_path / printed["page"]).read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "Who pays for privacy" in page
    assert printed["runs"] == len(list((folder / "cells").iterdir())) == 4
    assert printed["settings"]["units"] == ["record", "client"]
    assert {claim["unit"] for claim in printed["axis"]} == {"record", "client"}
    assert printed["time"]["fresh"] == 4

    table = fedsafe("compare", config, *SMALL, "--epsilon", "0.1,0.2,inf")
    assert table.code == 0, table.err
    said = ("no privacy", "where the time went", "6 runs (2 computed now)", "publishing the 4 runs")
    claims = (
        "epsilon per record at delta",
        "epsilon per client at delta",
        "against an outsider",
        "this is no bound",
    )
    for text in (*said, *claims):
        assert text in table.out


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (("--epsilon", "0"), "--epsilon 0: a budget is above 0"),
        (("--epsilon", "much"), "'much' is not a number"),
        (("--unit", "mixed"), "'mixed' is no unit of privacy: use record, client, both"),
        (("--grid", "privacy.record.clib=1,2"), "did you mean 'privacy.record.clip'"),
        (("--grid", "rounds"), "not of the form a.b=c,d"),
        (("--grid", "unit=record,mixed"), "'mixed' is no unit of privacy"),
        (("--paired",), "add --reproducible"),
        (("--workers", "0"), "from 1"),
        (("--tier", "best"), "assess.tier = 'best'"),
    ],
)
def test_a_wrong_request_is_one_line(fedsafe, tiny_toml, tmp_path, request_, said):
    command = fedsafe("compare", tiny_toml(), "--epsilon", "0.1", *request_, "--json")
    assert command.code == 1
    assert command.out == ""
    assert command.err.startswith("fedsafe: ")
    assert command.err.count("\n") == 1, command.err
    assert said in command.err
    assert not (tmp_path / "comparisons").exists()


def test_an_interrupted_comparison_goes_on(start, fedsafe, tiny_toml, tmp_path):
    slow = tiny_toml(assess__assessors=["performance", "tiny_federation:SlowAssessor"])
    words = (
        "compare",
        slow,
        "--epsilon",
        "0.1,0.2,0.3,inf",
        "--seeds",
        "3",
        "--workers",
        "1",
        "--stack",
        "2",
    )
    command = start(*words)
    cells = tmp_path / "comparisons" / "tiny" / "cells"
    end = time.monotonic() + 60
    while not (cells.exists() and list(cells.glob("*.json"))):
        assert command.running(), command.err
        assert time.monotonic() < end
        time.sleep(0.005)
    command.signal(signal.SIGINT)
    assert command.wait(10.0) == 130
    assert "are kept in comparisons/tiny; the same command goes on" in command.err
    stamps = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    assert 0 < len(stamps) < 12
    again = fedsafe(*words, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["time"]["kept"] == len(stamps)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


# Finished runs.


@pytest.fixture
def runs(fedsafe, tiny_toml, tmp_path):
    for name, epsilon in (("one", 0.1), ("other", 0.3)):
        ran = fedsafe("run", tiny_toml(**JUDGED, privacy__record__epsilon=epsilon), "--out", name, "--json")
        assert ran.code == 0, ran.err
    return tmp_path


def test_finished_runs_are_compared_with_what_their_configurations_have_apart(fedsafe, runs):
    command = fedsafe("compare", "one", "other", "--json")
    assert command.code == 0, command.err
    found = json.loads(command.out, parse_constant=pytest.fail)
    assert found["settings"] == [{"key": "privacy.record.epsilon", "values": ["0.1", "0.3"]}]
    assert [run["name"] for run in found["runs"]] == ["one", "other"]
    accuracy = found["measures"][0]
    assert accuracy["key"] == "accuracy"
    (difference,) = accuracy["differences"]
    assert difference["value"] == pytest.approx(accuracy["values"][1] - accuracy["values"][0])
    assert difference["low"] < difference["value"] < difference["high"]
    assert not any(claim["refused"] for claim in found["claims"])
    page = (runs / found["page"]).read_text()
    for text in ("What their configurations have apart", "privacy.record.epsilon", "Suspicion of one half"):
        assert text in page

    lines = fedsafe("compare", "one", "other")
    assert lines.code == 0, lines.err
    assert re.search(
        r"epsilon per record: one 0\.1\S* at delta 1e-5, other 0\.3\S* at delta 1e-5\n", lines.out
    )
    assert "1 settings differ" in lines.out


def test_unlike_claims_of_finished_runs_are_not_compared(fedsafe, tiny_toml, runs):
    ran = fedsafe("run", tiny_toml(**JUDGED, privacy__record__delta=1e-6), "--out", "third", "--json")
    assert ran.code == 0, ran.err
    command = fedsafe("compare", "one", "third")
    assert command.code == 0, command.err
    assert "record-level epsilons are not compared: " in command.out
    assert "delta (1e-05 against 1e-06)" in command.out
    assert "epsilon per client: one " in command.out


def test_wrong_runs_are_one_line(fedsafe, tiny_toml, runs):
    ran = fedsafe("run", tiny_toml(data={"evaluation": "validation"}), "--out", "elsewhere", "--json")
    assert ran.code == 0, ran.err
    (runs / "empty").mkdir()
    for words, said in (
        (("one", "elsewhere"), "are of different tasks"),
        (("one", "one"), "is named twice"),
        (("one",), "is one run folder: name another"),
        (("one", "absent"), "is not a run folder"),
        (("one", "empty"), "empty"),
        (("one", "other", "--epsilon", "1"), "--epsilon is about runs to make"),
    ):
        command = fedsafe("compare", *words)
        assert command.code == 1, words
        assert command.err.count("\n") == 1, command.err
        assert said in command.err
