"""The guard over a file: one decision for each row, in their order, and the same log of decisions."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedsafe.data import Schema
from fedsafe.data.tables import read_table
from fedsafe.errors import ConfigError, DataError
from fedsafe.serve.instances import Instances, WrongInstance
from fedsafe.serve.pipeline import Guard
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

    Args:
        guard: That decides.
        source: CSV or Parquet with the raw columns of a table, or JSON lines of instances as the service takes them.
        out: What is written: CSV where it is named so, otherwise JSON lines; an existing file is never overwritten.
        explain: Whether answers come with an explanation.
        caller: Who asks; patterns of queries are not looked for where "".
        batch: Rows decided at once.
        on_rows: Told after each batch how many rows are done, and of how many.

    Raises:
        ConfigError: The files cannot be used like this.
        DataError: The source cannot be read, or lacks a column.
    """
    table = out.name.lower().endswith(".csv")
    if not table and not out.name.lower().endswith((".jsonl", ".ndjson")):
        raise ConfigError(f"--out {out} is named neither *.jsonl nor *.csv, and nothing else is written")
    if out.exists():
        raise ConfigError(f"--out {out} is there already: name another file, or remove it first")
    rows, loose = _rows(source, guard)
    reader = Instances(guard.task.schema, loose=loose)
    counts = {"answered": 0, "abstained": 0, "refused": 0}
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        lines = list(_decided(guard, reader, part, start, explain, caller))
        for line in lines:
            kind = "refused" if line["id"] is None else "answered" if line["answered"] else "abstained"
            counts[kind] += 1
        if table:
            _append_csv(out, lines, first=start == 0)
        else:
            append_lines(out, lines)
        on_rows(min(start + batch, len(rows)), len(rows))
    return Guarded(rows=len(rows), **counts)


def _decided(
    guard: Guard, reader: Instances, part: Sequence[Any], start: int, explain: bool, caller: str
) -> Iterator[dict[str, Any]]:
    encoded: list[Any] = []
    wrong: dict[int, str] = {}
    for at, row in enumerate(part):
        if isinstance(row, _NoInstance):
            wrong[at] = row.reason
            continue
        try:
            encoded.append(reader.encode([row])[0])
        except WrongInstance as error:
            problem = error.problems[0]
            wrong[at] = f"{problem.field}: {problem.message}" if problem.field else problem.message
    decisions = iter(guard.predict(np.stack(encoded), caller, explain=explain) if encoded else ())
    for at in range(len(part)):
        if at in wrong:
            yield {
                "row": start + at + 1,
                "id": None,
                "answered": False,
                "label": None,
                "value": None,
                "confidence": None,
                "reasons": [f"instance:{wrong[at]}"],
                "notes": [],
                "p_values": {},
            }
        else:
            yield {"row": start + at + 1, **next(decisions).to_json()}


@dataclass(frozen=True)
class _NoInstance:
    reason: str


def _rows(source: Path, guard: Guard) -> tuple[Sequence[Any], bool]:
    """The instances of a file, and whether columns that the schema does not name are left aside."""
    if source.name.lower().endswith((".jsonl", ".ndjson")):
        return _json_rows(source), False
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
    return [dict(zip(names, map(_value, values), strict=True)) for values in zip(*columns, strict=True)], True


def _value(value: Any) -> Any:
    """Null where a table has no value: NaN, NaT and NA are those that differ from themselves, or compare to nothing."""
    if value is None or isinstance(value, str):
        return value
    try:
        return value if value == value else None
    except TypeError:
        return None


def _json_rows(source: Path) -> list[Any]:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(f"--input {source} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--input {source} is not in UTF-8: {error}") from error
    rows: list[Any] = []
    for line in lines:
        if line.strip():
            try:
                rows.append(json.loads(line, parse_constant=_no_constant))
            except (ValueError, RecursionError) as error:
                rows.append(_NoInstance(f"no JSON: {str(error)[:100]}"))
    return rows


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _append_csv(out: Path, lines: Sequence[Mapping[str, Any]], *, first: bool) -> None:
    import csv

    with out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if first:
            writer.writerow(("row", *_COLUMNS))
        for line in lines:
            cells = [line["row"]]
            for name in _COLUMNS:
                value = line[name]
                cells.append("; ".join(value) if isinstance(value, list) else "" if value is None else value)
            writer.writerow(cells)
