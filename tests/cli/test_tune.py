"""``fedsafe compare --tune``: what was chosen, what it costs, one line for a wrong request, and going on."""

import json
import signal
import time

import pytest

SMALL = ("--epsilon", "0.1", "--seeds", "1", "--workers", "1")
JUDGED = {"assess__assessors": ["performance"]}


def test_a_tuned_comparison_is_one_object_and_goes_on(start, fedsafe, tiny_toml, tmp_path):
    words = ("compare", tiny_toml(**JUDGED), *SMALL, "--tune", "clip,lr", "--trials", "6", "--stack", "1")
    command = start(*words, "--json")
    cells = tmp_path / "comparisons" / "tiny" / "private" / "cells"
    end = time.monotonic() + 120
    while not (cells.exists() and list(cells.glob("*.json"))) and command.running():
        assert time.monotonic() < end
        time.sleep(0.005)
    command.signal(signal.SIGKILL)  # if it is not done already
    command.wait()
    stamps = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}

    again = fedsafe(*words, "--json")
    assert again.code == 0, again.err
    found = json.loads(again.out, parse_constant=pytest.fail)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    (choice,) = found["tuning"]["choices"]
    assert all(cost["search"] > cost["alone"] for cost in choice["units"])
    assert 'id="tuning"' in (tmp_path / found["page"]).read_text()
    private = tmp_path / "comparisons" / "tiny" / "private"
    assert "Not for publication" in (private / "search.html").read_text()

    kept = {path: path.stat().st_mtime_ns for path in cells.glob("*.json")}
    table = fedsafe(*words)
    assert table.code == 0, table.err
    assert {path: path.stat().st_mtime_ns for path in cells.glob("*.json")} == kept
    for text in ("tuned, 0.1: ", "with the search for its settings, epsilon is", "(0 computed now)"):
        assert text in table.out


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (("--tune", "clib"), "--tune: unknown configuration key 'clib'"),
        (("--tune", "lr=2..1"), "--tune lr=2..1 is empty"),
        (("--tune", "momentum=0.5..2"), "--tune momentum: configuration server.optimizer.momentum = 2.0"),
        (("--tune", "lr", "--trials", "0"), "--trials 0: give a whole number from 1"),
        (("--tune", "lr", "--tune-on", "test"), "--tune-on 'test' is unknown: use held-out or public"),
        (("--tune", "lr", "--paired", "--reproducible"), "leave --paired or --tune out"),
        (("--tune", "lr", "--grid", "client.optimizer.lr=1,2"), "in --grid, too"),
        (("--trials", "4"), "--trials is about a search: add --tune"),
        (("--tune-on", "public"), "--tune-on is about a search: add --tune"),
    ],
)
def test_a_wrong_request_is_one_line(fedsafe, tiny_toml, tmp_path, request_, said):
    command = fedsafe("compare", tiny_toml(), *SMALL, *request_, "--json")
    assert command.code == 1
    assert command.out == ""
    assert command.err.startswith("fedsafe: ")
    assert command.err.count("\n") == 1, command.err
    assert said in command.err
    assert not (tmp_path / "comparisons").exists()
