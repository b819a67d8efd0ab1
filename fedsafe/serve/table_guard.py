"""The guard over a file: one decision for each row, in their order, and the same log of decisions."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedsafe.data import Schema
from fedsafe.data.tables import read_table
from fedsafe.errors import ConfigError, DataError
from fedsafe.serve.instances import Instances, WrongInstance
from fedsafe.serve.pipeline import Guard
from fedsafe.serve.strict_json import parse
from fedsafe.store.lines import append_lines

BATCH: Final = 1024
_COLUMNS: Final = ("answered", "label", "value", "confidence", "reasons", "notes", "id")


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """Counts of a file: rows, answers, abstentions, and rows that were no record of the schema."""

    rows: int
    answered: int
    abstained: int
    refused: int


def guard_file(
    guard: Guard,
    source: Path,
    out: Path,
    *,
    explain: bool = False,
    caller: str = "",
    batch: int = BATCH,
    on_rows: Callable[[int, int], None] = lambda done, total: None,
) -> Guarded:
    """Decide every row of a file.

    A row that is no record of the schema gets an abstention with the reason ``instance:``, and never reaches the model.
    It is in the log, too, by the keyed hash of its text: its line, or the JSON of a table's row. The log has the column
    that is wrong, and not what was found there.

    Args:
        guard: That decides.
        source: CSV or Parquet with the raw columns of a table, or JSON lines of instances as the service takes them.
        out: What is written: CSV where it is named so, otherwise JSON lines; an existing file is never overwritten.
            Rows are numbered from 1, those of JSON lines as the lines are, of which empty ones are left aside.
        explain: Whether answers come with an explanation.
        caller: Who asks; patterns of queries are not looked for where "".
        batch: Rows decided at once.
        on_rows: Told after each batch how many rows are done, and of how many.

    Raises:
        ConfigError: The files cannot be used like this; nothing was decided then.
        DataError: The source cannot be read, or lacks a column.
    """
    table = out.name.lower().endswith(".csv")
    if not table and not out.name.lower().endswith((".jsonl", ".ndjson")):
        raise ConfigError(f"--out {out} is named neither *.jsonl nor *.csv, and nothing else is written")
    if out.exists():
        raise ConfigError(f"--out {out} is there already: name another file, or remove it first")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out} lies in no folder that is there: make {out.parent} first")
    rows, numbers, texts, loose = _rows(source, guard)
    _begin(out, table)
    reader = Instances(guard.task.schema, loose=loose)
    counts = {"answered": 0, "abstained": 0, "refused": 0}
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        lines, refused = _decided(guard, reader, part, start, texts, explain, caller)
        lines = [{"row": numbers[start + at], **line} for at, line in enumerate(lines)]
        answered = sum(line["answered"] for line in lines)
        counts["answered"] += answered
        counts["abstained"] += len(lines) - answered - refused
        counts["refused"] += refused
        if table:
            _append_csv(out, lines)
        else:
            append_lines(out, lines)
        on_rows(min(start + batch, len(rows)), len(rows))
    return Guarded(rows=len(rows), **counts)


def _decided(
    guard: Guard,
    reader: Instances,
    part: Sequence[Any],
    start: int,
    texts: Callable[[int], str],
    explain: bool,
    caller: str,
) -> tuple[list[dict[str, Any]], int]:
    """The JSON of a batch's decisions, and how many rows were no record."""
    encoded: list[Any] = []
    codes: dict[int, str] = {}
    wrong: dict[int, str] = {}
    for at, row in enumerate(part):
        if isinstance(row, _NoInstance):
            codes[at], wrong[at] = "instance:no JSON", row.reason
            continue
        try:
            encoded.append(reader.encode([row])[0])
        except WrongInstance as error:
            problem = error.problems[0]
            wrong[at] = f"{problem.field}: {problem.message}" if problem.field else problem.message
            # The name of a column that the schema does not have may be anything.
            codes[at] = f"instance:{problem.field if problem.field in reader.names else 'not of the schema'}"
    decided = iter(guard.predict(np.stack(encoded), caller, explain=explain) if encoded else ())
    refused = iter(guard.refuse([texts(start + at) for at in wrong], list(codes.values()), caller))
    lines = []
    for at in range(len(part)):
        line = next(refused if at in wrong else decided).to_json()
        if at in wrong:
            line["reasons"] = [f"instance:{wrong[at]}"]
        lines.append(line)
    return lines, len(wrong)


@dataclass(frozen=True)
class _NoInstance:
    reason: str


def _rows(source: Path, guard: Guard) -> tuple[Sequence[Any], Sequence[int], Callable[[int], str], bool]:
    """Instances of a file, their numbers and texts, and whether columns that are not in the schema are left aside."""
    if source.name.lower().endswith((".jsonl", ".ndjson")):
        lines = _lines(source)
        numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
        texts = [lines[number - 1] for number in numbers]
        return [_json_row(text) for text in texts], numbers, texts.__getitem__, False
    schema = guard.task.schema
    if not isinstance(schema, Schema):
        raise ConfigError(
            f"--input {source} is a table, and {guard.task.name!r} takes arrays: give JSON lines, one instance a line"
        )
    frame = read_table(source)
    names = [column.name for column in schema.columns]
    absent = [name for name in names if name not in frame.columns]
    if absent:
        raise DataError(
            f"{source} lacks the columns {', '.join(absent)}. Columns: {', '.join(map(str, frame.columns))}."
        )
    columns = [frame[name].tolist() for name in names]
    if any(isinstance(column, type(frame)) for column in (frame[name] for name in names)):
        raise DataError(f"{source} has two columns of one name: rename one.")
    rows = [dict(zip(names, map(_value, values), strict=True)) for values in zip(*columns, strict=True)]
    return rows, range(1, len(rows) + 1), lambda at: json.dumps(rows[at], default=str), True


def _value(value: Any) -> Any:
    """Null where a table has no value: NaN, NaT and NA are those that differ from themselves, or compare to nothing."""
    if value is None or isinstance(value, str | list | dict):
        return value
    if isinstance(value, np.ndarray):
        return value.tolist()  # a cell that holds a list is no value of a column, and is said to be none
    try:
        return value if value == value else None
    except TypeError:
        return None


def _lines(source: Path) -> list[str]:
    try:
        return source.read_text(encoding="utf-8").split("\n")  # a text may hold other breaks of lines
    except OSError as error:
        raise DataError(f"--input {source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--input {source} is not in UTF-8: {error}") from error


def _json_row(line: str) -> Any:
    try:
        return parse(line)
    except (ValueError, RecursionError) as error:
        return _NoInstance(f"no JSON: {str(error)[:100]}")


def _begin(out: Path, table: bool) -> None:
    """Make the file, so that what cannot be written is known before anything is decided."""
    try:
        with out.open("x", encoding="utf-8", newline="") as file:
            if table:
                csv.writer(file).writerow(("row", *_COLUMNS))
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written: {error.strerror}") from error


def _append_csv(out: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    with out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        for line in lines:
            cells = [line["row"]]
            for name in _COLUMNS:
                value = line[name]
                cells.append("; ".join(value) if isinstance(value, list) else "" if value is None else value)
            writer.writerow(cells)
