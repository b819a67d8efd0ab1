"""Where a client has its records: files and databases, all checked here, value by value, in the order they have."""

import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fedsafe.cli import app
from fedsafe.data.source_file import read_source
from fedsafe.errors import DataError

SCHEMA = """
format = "fedsafe.schema/1"
missing = ["?"]
holders = ["hospital"]
[label]
column = "ill"
classes = ["no", "yes"]
[columns.age]
kind = "numeric"
low = 0
high = 100
[columns.pulse]
kind = "numeric"
low = 40
high = 220
fill = 140
[columns.sex]
kind = "categorical"
categories = ["f", "m"]
[columns.pain]
kind = "categorical"
categories = ["none", "some"]
unknown = "not asked"
"""
ROWS = [
    (30, 80, "f", "none", "no"),
    (50, 90, "m", "some", "yes"),
    (70, "?", "f", "?", "yes"),
    (20, 70, "m", "none", "no"),
]
COLUMNS = ["age", "pulse", "sex", "pain", "ill"]


@pytest.fixture
def folder(tmp_path: Path):
    (tmp_path / "schema.toml").write_text(SCHEMA)
    write(tmp_path, 'path = "own.csv"')
    pd.DataFrame(ROWS, columns=COLUMNS).to_csv(tmp_path / "own.csv", index=False)
    return tmp_path


def write(folder: Path, where: str, **more: object) -> None:
    extra = "\n".join(f"{key} = {value!r}" for key, value in more.items())
    first, _, sql = where.partition("[sql]")
    table = f"[sql]{sql}" if sql else ""
    (folder / "data.toml").write_text(
        f'format = "fedsafe.data-source/1"\nclient = "north"\nschema = "schema.toml"\n{first}\n{extra}\n{table}'
    )


def damaged(folder: Path, row: int, column: str, value: object) -> None:
    frame = pd.DataFrame(ROWS, columns=COLUMNS, dtype=object)
    frame.loc[row - 1, column] = value
    frame.to_csv(folder / "own.csv", index=False)


def database(folder: Path, rows: list[tuple[object, ...]]) -> None:
    with sqlite3.connect(folder / "own.db") as made:
        made.execute("CREATE TABLE patients (age, pulse, sex, pain, ill)")
        made.executemany("INSERT INTO patients VALUES (?, ?, ?, ?, ?)", rows)
    made.close()


def test_csv_parquet_and_a_database_give_the_same_records_in_the_same_order(folder, monkeypatch):
    found = [read_source(folder / "data.toml").load()[0]]
    pd.DataFrame(ROWS, columns=COLUMNS).astype({"pulse": str}).to_parquet(folder / "own.parquet")
    write(folder, 'path = "own.parquet"')
    found.append(read_source(folder / "data.toml").load()[0])
    database(folder, ROWS)
    monkeypatch.setenv("OWN_DATABASE", f"sqlite:///{folder / 'own.db'}")
    write(folder, '[sql]\nurl = "env:OWN_DATABASE"\nquery = "SELECT * FROM patients"')
    found.append(read_source(folder / "data.toml").load()[0])
    for other in found[1:]:
        assert np.array_equal(found[0].x, other.x)
        assert np.array_equal(found[0].y, other.y)
    assert len(found[0]) == 4


def test_part_of_the_records_is_kept_to_judge_on_here(folder):
    write(folder, 'path = "own.csv"', validation=0.25)
    training, validation = read_source(folder / "data.toml").load()
    assert (len(training), len(validation)) == (3, 1)


@pytest.mark.parametrize(
    "where", ["path = 'own.csv'", "[sql]\nurl = 'sqlite:///{db}'\nquery = 'SELECT * FROM patients'"]
)
def test_one_record_that_changes_moves_no_other_into_the_training_or_out_of_it(folder, where):
    rows = [(age, 80, "f", "none", "no") for age in range(10, 50)]
    parts = []
    for first in (rows[0], (99, 200, "m", "some", "yes")):  # the youngest becomes the oldest
        own = [first, *rows[1:]]
        pd.DataFrame(own, columns=COLUMNS).to_csv(folder / "own.csv", index=False)
        (folder / "own.db").unlink(missing_ok=True)
        database(folder, own)
        write(folder, where.format(db=folder / "own.db"), validation=0.25)
        parts.append(
            [{tuple(record) for record in part.x} for part in read_source(folder / "data.toml").load()]
        )
    for before, after in zip(*parts, strict=True):
        assert len(before ^ after) in (0, 2)


@pytest.mark.parametrize(
    ("row", "column", "value", "said"),
    [
        (2, "sex", "x", "row 2, column 'sex': 'x' is not in the schema, which lists f, m"),
        (3, "sex", "?", "row 3, column 'sex': is missing, and the schema has no place for that"),
        (1, "age", float("nan"), "row 1, column 'age': is missing"),
        (4, "age", "NaN", "row 4, column 'age': 'NaN' is not a finite number"),
        (4, "age", "inf", "row 4, column 'age': 'inf' is not a finite number"),
        (4, "age", "old", "row 4, column 'age': 'old' is not a finite number"),
        (1, "pulse", 300, "row 1, column 'pulse': '300' lies outside the public bounds"),
        (3, "ill", "maybe", "row 3, column 'ill': 'maybe' is not in the schema"),
    ],
)
def test_a_value_that_is_not_as_the_schema_says_is_named_by_row_and_column(folder, row, column, value, said):
    damaged(folder, row, column, value)
    with pytest.raises(DataError) as caught:
        read_source(folder / "data.toml").load()
    assert said in str(caught.value)
    done = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert done.exit_code == 1
    assert said in done.output
    assert "nothing was sent" in done.output


def test_a_missing_column_comes_with_the_nearest_that_is_there(folder):
    pd.DataFrame(ROWS, columns=[*COLUMNS[:2], "sexe", *COLUMNS[3:]]).to_csv(folder / "own.csv", index=False)
    with pytest.raises(DataError, match=r"column 'sex': is missing. Did you mean 'sexe'\?"):
        read_source(folder / "data.toml").load()


def test_numbers_outside_their_bounds_are_clamped_only_where_that_is_asked_for(folder):
    damaged(folder, 1, "pulse", 300)
    write(folder, 'path = "own.csv"', outside="clamp")
    assert len(read_source(folder / "data.toml").load()[0]) == 4


def test_what_is_right_is_told_with_the_number_to_announce(folder):
    write(folder, 'path = "own.csv"', validation=0.25)
    done = CliRunner().invoke(app, ["data", "check", str(folder / "data.toml")])
    assert done.exit_code == 0
    assert "announce 3" in done.output


@pytest.mark.parametrize(
    ("where", "more", "said"),
    [
        ("", {}, "needs one of `path`"),
        ('path = "own.csv"\n[sql]\nurl = "a"', {}, "needs one of `path`"),
        ('path = "own.csv"', {"outsid": "clamp"}, "unknown key 'outsid'. Did you mean 'outside'"),
        ('path = "own.csv"', {"outside": "drop"}, "use 'refuse' or 'clamp'"),
        ('path = "own.csv"', {"validation": 1}, "validation = 1"),
        ('path = "own.csv"', {"seed": -1}, "seed = -1"),
        ('path = "away.csv"', {}, "cannot be read"),
        ('[sql]\nurl = "env:NOT_SET_ANYWHERE"\nquery = "SELECT 1"', {}, "is not set"),
        ('[sql]\nurl = "nosuch://x"\nquery = "SELECT 1"', {}, "failed"),
        ('[sql]\nurl = "sqlite://"\nquery = "SELECT age FROM nowhere"', {}, "no such table"),
        ('[sql]\nurl = "sqlite://"', {}, "query = None"),
    ],
)
def test_a_wrong_data_source_is_one_clear_line(folder, where, more, said):
    write(folder, where, **more)
    with pytest.raises(DataError) as caught:
        read_source(folder / "data.toml").load()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_told(folder):
    write(folder, '[sql]\nurl = "postgresql+nosuch://me:secret@host/db"\nquery = "SELECT 1"')
    with pytest.raises(DataError) as caught:
        read_source(folder / "data.toml").load()
    assert "secret" not in str(caught.value)


def test_the_files_that_have_the_records_are_known_also_where_they_are_a_database(folder, monkeypatch):
    assert read_source(folder / "data.toml").files() == (folder / "own.csv",)
    database(folder, ROWS)
    (folder / "own.db-wal").touch()
    write(folder, '[sql]\nurl = "env:OWN_DATABASE"\nquery = "SELECT * FROM patients"')
    assert read_source(folder / "data.toml").files() == ()  # the variable is not set
    for url in (f"sqlite:///{folder}/own.db", f"sqlite:///file:{folder}/own.db?mode=ro&uri=true"):
        monkeypatch.setenv("OWN_DATABASE", url)
        assert read_source(folder / "data.toml").files() == (folder / "own.db", folder / "own.db-wal")
    for url in ("postgresql://who:secret@away/patients", "sqlite://", "no url"):
        monkeypatch.setenv("OWN_DATABASE", url)
        assert read_source(folder / "data.toml").files() == ()
