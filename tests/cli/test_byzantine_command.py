"""``fedsafe byzantine``: one object or a short table, a page, an exit code that is not zero for a wrong request."""

import json

import pytest

SMALL = (
    *("--attacks", "sign_flip", "--aggregators", "mean,median", "--shares", "0.25", "--epsilon", "inf,0.5"),
    *("--rounds", "1", "--workers", "1"),
)
WHOLE = {"clients": 12, "cohort": {"rate": 1.0}}


def test_a_grid_is_one_object_and_goes_on(fedsafe, tiny_toml, tmp_path):
    config = tiny_toml(federation=WHOLE)
    command = fedsafe("byzantine", config, *SMALL, "--json")
    assert command.code == 0, command.err
    printed = json.loads(command.out, parse_constant=pytest.fail)
    folder = tmp_path / "byzantine" / "tiny"
    assert (tmp_path / printed["page"]).read_text().startswith("<!DOCTYPE html>")
    assert printed["runs"] == len(list((folder / "cells").iterdir())) == 8
    assert {claim["unit"] for claim in printed["claims"]} == {"record"}
    assert [claim["target"] for claim in printed["claims"]] == [None, 0.5]

    stamps = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    table = fedsafe("byzantine", config, *SMALL, "--attacks", "sign_flip")
    assert table.code == 0, table.err
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == stamps
    for text in ("worst attack", "median", "publishing the 4 runs", "byzantine.html"):
        assert text in table.out


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (("--shares", "1.5"), "18 adversaries of 12 clients"),
        (("--epsilon", "much"), "is not a number"),
        (("--workers", "0"), "from 1"),
        (("--attacks", "backdoor"), "backdoor"),
    ],
)
def test_a_wrong_request_is_one_line(fedsafe, tiny_toml, tmp_path, request_, said):
    command = fedsafe("byzantine", tiny_toml(federation=WHOLE), *request_, "--json")
    assert command.code == 1
    assert command.out == ""
    assert command.err.startswith("fedsafe: ")
    assert command.err.count("\n") == 1
    assert said in command.err
    assert not (tmp_path / "byzantine").exists()


def test_the_folder_is_no_file(fedsafe, tiny_toml, tmp_path):
    (tmp_path / "taken").write_text("")
    command = fedsafe("byzantine", tiny_toml(federation=WHOLE), *SMALL, "--out", "taken")
    assert command.code == 1
    assert "is a file" in command.err


def test_the_report_of_a_run_links_to_its_grid(fedsafe, tiny_toml, tmp_path):
    ran = fedsafe("run", tiny_toml(federation=WHOLE), "--out", "run", "--json")
    assert ran.code == 0, ran.err
    link = 'href="byzantine/byzantine.html"'
    assert link not in (tmp_path / "run" / "report.html").read_text()
    command = fedsafe("byzantine", "run/config.toml", *SMALL, "--out", "run/byzantine", "--json")
    assert command.code == 0, command.err
    assert link in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "run" / "byzantine" / "byzantine.html").is_file()
