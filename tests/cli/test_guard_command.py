"""``fedsafe guard``: the service's decisions over a file, with an exit code for rows that are no records."""

import json

import pytest
from tiny_federation import config, task

from fedsafe.runs import run
from fedsafe.serve import read_log, verify_log
from fedsafe.serve.decision_log import audit_key

ROWS = [{"a0": a / 10, "a1": 0.5, "a2": -2, "sex": "Female"} for a in range(-20, 20)]


def larger_task():
    return task(evaluation=500)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(config(task=f"{__name__}:larger_task"), out=tmp_path_factory.mktemp("runs") / "tiny").path


def test_every_row_is_decided_and_logged(fedsafe, finished, tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    command = fedsafe(
        "guard", finished, "--input", "in.jsonl", "--out", "out.jsonl", "--log", "log.jsonl", "--note-strange",
        "--note-flips", "--json",
    )  # fmt: skip
    assert command.code == 0, command.err
    printed = json.loads(command.out)
    assert (printed["rows"], printed["refused"]) == (40, 0)
    assert printed["answered"] + printed["abstained"] == 40
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sum(line["answered"] for line in lines) == printed["answered"]
    verify_log(tmp_path / "log.jsonl", audit_key(tmp_path / "log.key"))
    logged = [line["id"] for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "decision"]
    assert logged == [line["id"] for line in lines]


def test_rows_that_are_no_records_have_their_own_exit_code(fedsafe, finished, tmp_path):
    (tmp_path / "in.csv").write_text("a0,a1,a2,sex\n1,2,3,Male\n1,two,3,Male\n1,2,3,Mal\n")
    command = fedsafe("guard", finished, "--input", "in.csv", "--out", "out.csv", "--log", "log.jsonl")
    assert command.code == 3
    assert "2 no record of the schema" in command.out
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 4
    assert "instance:a1: 'two' is no number" in lines[2]
    logged = [line for line in read_log(tmp_path / "log.jsonl") if line["kind"] == "decision"]
    assert [line["reasons"] for line in logged[1:]] == [["instance:a1"], ["instance:sex"]]
    assert {line["id"] for line in logged} == {line.rsplit(",", 1)[1] for line in lines[1:]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--input", "in.csv", "--out", "in.csv"), "is there already"),
        (("--input", "none.csv", "--out", "o.csv"), "none.csv cannot be read"),
        (("--input", "in.csv", "--out", "o.txt"), "neither"),
        (("--input", "in.csv"), "--input FILE --out FILE"),
        (("--report", "r.md", "--out", "o.csv"), "leave --input and --out out"),
        (("--report", "r.txt"), "neither"),
        (("--report", "r.md"), "no log of decisions"),
        (("--input", "in.csv", "--out", "o.csv", "--floor", "1"), "least confidence"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(fedsafe, finished, tmp_path, words, said):
    (tmp_path / "in.csv").write_text("a0,a1,a2,sex\n1,2,3,Male\n")
    command = fedsafe("guard", finished, *words, "--log", "log.jsonl")
    assert command.code == 1
    assert said in command.err
    assert len(command.err.strip().splitlines()) == 1


def test_a_report_counts_what_a_verified_log_says(fedsafe, finished, tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    fedsafe("guard", finished, "--input", "in.jsonl", "--out", "out.jsonl", "--log", "log.jsonl")
    command = fedsafe("guard", finished, "--report", "r.md", "--log", "log.jsonl", "--since", "2020-01-01")
    assert command.code == 0, command.err
    assert "40 decisions" in command.out
    assert "Decisions: 40" in (tmp_path / "r.md").read_text()
    lines = (tmp_path / "log.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_text("".join(lines[:5] + lines[6:]))
    broken = fedsafe("guard", finished, "--report", "r2.md", "--log", "log.jsonl")
    assert broken.code == 1
    assert "it was edited" in broken.err
    assert not (tmp_path / "r2.md").exists()
