"""The guard over a file: a decision for each row, in their order, whatever is wrong with single ones."""

import csv
import json

import pandas as pd
import pytest
from tiny_guard import EVERYTHING_ANSWERED, guard, rows

from fedsafe.errors import ConfigError, DataError
from fedsafe.serve import read_log
from fedsafe.serve.decision_log import DecisionLog
from fedsafe.serve.table_guard import guard_file

GIVEN = rows(25)
RIGHT = ["yes" if 2 * row["a0"] + row["a1"] > 0 else "no" for row in GIVEN]


def decisions(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(tmp_path, name, given=GIVEN):
    source = tmp_path / name
    if name.endswith(".csv"):
        pd.DataFrame(given).to_csv(source, index=False)
    elif name.endswith(".parquet"):
        pd.DataFrame(given).to_parquet(source)
    else:
        source.write_text("".join(json.dumps(row) + "\n" for row in given))
    return source


@pytest.mark.parametrize("name", ["in.csv", "in.parquet", "in.jsonl"])
def test_every_format_gives_the_same_decisions_and_the_log_has_each(tmp_path, name):
    log = DecisionLog(tmp_path / "log", b"k" * 32, model="m")
    told = []
    found = guard_file(
        guard(log=log),
        written(tmp_path, name),
        tmp_path / "out.jsonl",
        batch=10,
        on_rows=lambda *n: told.append(n),
    )
    log.close()
    lines = decisions(tmp_path / "out.jsonl")
    assert [line["label"] for line in lines] == RIGHT
    assert [line["row"] for line in lines] == list(range(1, 26))
    assert (found.rows, found.answered, found.refused) == (25, 25, 0)
    assert told == [(10, 25), (20, 25), (25, 25)]
    logged = [line["id"] for line in read_log(tmp_path / "log") if line["kind"] == "decision"]
    assert logged == [line["id"] for line in lines]


def test_a_row_that_is_no_record_is_said_and_stops_no_other(tmp_path):
    source = written(tmp_path, "in.jsonl")
    lines = source.read_text().splitlines()
    lines[3], lines[5], lines[7] = "{", "[1, 2]", json.dumps({**GIVEN[7], "sex": "Mal"})
    lines[9] = lines[9].replace("{", '{"zz": NaN, ', 1)
    source.write_text("\n".join(lines) + "\n\n")
    log = DecisionLog(tmp_path / "log", b"k" * 32, model="m")
    counted = guard(log=log)
    found = guard_file(counted, source, tmp_path / "out.jsonl")
    log.close()
    out = decisions(tmp_path / "out.jsonl")
    wrong = [3, 5, 7, 9]
    assert [line["row"] for line in out] == list(range(1, 26))
    assert [at for at, line in enumerate(out) if "instance:" in "".join(line["reasons"])] == wrong
    assert (found.rows, found.answered, found.abstained, found.refused) == (25, 21, 0, 4)
    assert "no category" in out[7]["reasons"][0]
    assert [line["label"] for line in out if line["answered"]] == [
        label for at, label in enumerate(RIGHT) if at not in wrong
    ]
    assert counted.figures.totals == {True: 21, False: 4}
    # All are in the log: these by the hash of their text, and without what they hold.
    logged = {line["id"]: line for line in read_log(tmp_path / "log") if line["kind"] == "decision"}
    assert sorted(logged) == sorted(line["id"] for line in out)
    told = [logged[out[at]["id"]] for at in wrong]
    assert [line["input"] for line in told] == [log.keyed(lines[at].encode()) for at in wrong]
    assert [line["reasons"] for line in told] == [
        ["instance:no JSON"], ["instance:not of the schema"], ["instance:sex"], ["instance:no JSON"]
    ]  # fmt: skip
    assert "Mal" not in (tmp_path / "log").read_text()


def test_a_table_may_have_more_columns_and_gaps(tmp_path):
    frame = pd.DataFrame(GIVEN).assign(id=range(25))
    frame.loc[2, "a2"] = None
    frame.to_csv(tmp_path / "in.csv", index=False)
    found = guard_file(guard(), tmp_path / "in.csv", tmp_path / "out.csv")
    assert found.answered == 25
    with (tmp_path / "out.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == RIGHT


def test_explanations_are_there_where_they_are_asked_for(tmp_path):
    guard_file(
        guard(EVERYTHING_ANSWERED),
        written(tmp_path, "in.jsonl", GIVEN[:2]),
        tmp_path / "o.jsonl",
        explain=True,
    )
    assert set(decisions(tmp_path / "o.jsonl")[0]["explanation"]) == {"a0", "a1", "a2", "sex"}


def test_rows_of_json_lines_are_numbered_as_the_lines_are(tmp_path):
    first, second, third = (json.dumps(row) for row in GIVEN[:3])
    odd = json.dumps({**GIVEN[0], "sex": "a\u2028b"}, ensure_ascii=False)  # a break of lines in a text
    twice = third[:-1] + ', "a0": 1}'
    (tmp_path / "in.jsonl").write_text(f"\n{first}\n\n{odd}\n{twice}\n{second}\n", encoding="utf-8")
    found = guard_file(guard(), tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    lines = decisions(tmp_path / "out.jsonl")
    assert [line["row"] for line in lines] == [2, 4, 5, 6]
    assert [bool(line["answered"]) for line in lines] == [True, False, False, True]
    assert "'a0' twice" in lines[2]["reasons"][0]
    assert (found.rows, found.refused) == (4, 2)


def test_a_cell_that_holds_a_list_is_no_value(tmp_path):
    given = [{**GIVEN[0], "a0": [1.0, 2.0]}, {**GIVEN[1], "a0": [3.0]}]
    found = guard_file(guard(), written(tmp_path, "in.parquet", given), tmp_path / "out.jsonl")
    assert found.refused == 2
    assert "a list, not a number" in decisions(tmp_path / "out.jsonl")[0]["reasons"][0]


def test_decimals_are_numbers_and_dates_are_said_to_be_none(tmp_path):
    from datetime import date
    from decimal import Decimal

    given = [{**GIVEN[0], "a0": Decimal(str(GIVEN[0]["a0"]))}]
    assert guard_file(guard(), written(tmp_path, "in.parquet", given), tmp_path / "o.jsonl").answered == 1
    given = [{**GIVEN[0], "a0": date(2020, 1, 1)}]
    assert guard_file(guard(), written(tmp_path, "two.parquet", given), tmp_path / "o2.jsonl").refused == 1
    assert "of the type date, not a number" in decisions(tmp_path / "o2.jsonl")[0]["reasons"][0]


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_file_without_rows_gives_one_without_decisions(tmp_path, name):
    (tmp_path / "in.jsonl").touch()
    assert guard_file(guard(), tmp_path / "in.jsonl", tmp_path / name).rows == 0
    assert len((tmp_path / name).read_text().splitlines()) == (name == "out.csv")


def test_nothing_is_decided_that_could_not_be_written(tmp_path):
    decided = guard()
    with pytest.raises(ConfigError, match=r"make .*none first"):
        guard_file(decided, written(tmp_path, "in.csv"), tmp_path / "none" / "out.csv")
    assert decided.figures.totals == {True: 0, False: 0}


def test_wrong_files_are_one_clear_line(tmp_path):
    source = written(tmp_path, "in.csv")
    with pytest.raises(ConfigError, match=r"neither \*.jsonl nor \*.csv"):
        guard_file(guard(), source, tmp_path / "out.txt")
    (tmp_path / "there.csv").touch()
    with pytest.raises(ConfigError, match="is there already"):
        guard_file(guard(), source, tmp_path / "there.csv")
    with pytest.raises(DataError, match="cannot be read"):
        guard_file(guard(), tmp_path / "none.jsonl", tmp_path / "out.csv")
    (tmp_path / "bad.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match="not in UTF-8"):
        guard_file(guard(), tmp_path / "bad.jsonl", tmp_path / "out.csv")
    pd.DataFrame(GIVEN).drop(columns="a1").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(DataError, match="lacks the columns a1"):
        guard_file(guard(), tmp_path / "less.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
