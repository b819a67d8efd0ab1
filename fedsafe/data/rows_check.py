"""Holds each value of a raw table to the public schema, for a client that must not send what it should not.

Training elsewhere forgives more: an unreadable number counts as missing and an unlisted category as unknown. A client
of a real federation finds out here, alone, before its first round.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedsafe.data.columns import Categorical, Label, Numeric, Texts, nearest, numbers, text
from fedsafe.data.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One value, or one column, that is not as the schema says.

    Args:
        row: Record, counted from 1; None for a whole column.
        column: Its name.
        what: What is wrong with it and what it should be.
    """

    row: int | None
    column: str
    what: str

    def __str__(self) -> str:
        """One line."""
        where = (
            f"row {self.row}, column {self.column!r}" if self.row is not None else f"column {self.column!r}"
        )
        return f"{where}: {self.what}"


def problems_of(frame: "pd.DataFrame", schema: Schema, origin: str, *, outside: str) -> list[Problem]:
    """All that is not as a schema says, whole columns first and then by row.

    Args:
        frame: Raw records, one a row; columns that the schema does not name are ignored.
        schema: The public schema.
        origin: What to call the frame.
        outside: ``"refuse"`` or ``"clamp"``: whether a number outside its public bounds is a problem.
    """
    present = Counter(str(name) for name in frame.columns)
    columns = _wrong_columns(present, schema)
    if not len(frame):
        columns.append(Problem(row=None, column=schema.answer, what=f"{origin} has no records"))
    missing = {"", *schema.missing}
    rows = [
        problem
        for column in (*schema.columns, _answer_of(schema))
        if present[column.name] == 1
        for problem in _wrong_values(column, text(frame[column.name], missing), outside)
    ]
    return columns + sorted(rows, key=lambda problem: problem.row or 0)


@dataclass(frozen=True)
class _Answer:
    """The column that is predicted, as far as it is checked."""

    name: str
    label: Label | None
    low: float
    high: float


def _answer_of(schema: Schema) -> _Answer:
    target = schema.target
    low, high = (target.low, target.high) if target is not None else (-np.inf, np.inf)
    return _Answer(schema.answer, schema.label, low, high)


def _wrong_columns(present: Counter[str], schema: Schema) -> list[Problem]:
    found = []
    for name in (*(column.name for column in schema.columns), schema.answer):
        if not present[name]:
            found.append(Problem(row=None, column=name, what=f"is missing.{nearest(name, present)}"))
        elif present[name] > 1:
            found.append(Problem(row=None, column=name, what=f"is there {present[name]} times"))
    return found


def _wrong_values(column: Column | _Answer, values: Texts, outside: str) -> Iterator[Problem]:
    judge = _judge(column, outside)
    for row, value in enumerate(values, start=1):
        what = judge(value)
        if what:
            yield Problem(row=row, column=column.name, what=what)


def _judge(column: Column | _Answer, outside: str) -> Callable[[str | None], str]:
    """Says what is wrong with a value; nothing if it is right."""
    if isinstance(column, Categorical):
        fits = column.unknown != "unknown" or column.unknown in column.categories
        listed = ", ".join(column.categories)
        return lambda value: _category(value, column.readable, listed, absent=fits)
    if isinstance(column, Numeric):
        fits = column.fill is not None or bool(column.unknown)
        return lambda value: _number(value, column.low, column.high, outside, absent=fits)
    if column.label is not None:
        classes = column.label.classes
        return lambda value: _category(value, classes.__contains__, ", ".join(classes), absent=False)
    return lambda value: _number(value, column.low, column.high, outside, absent=False)


def _category(value: str | None, listed: Callable[[str], bool], names: str, *, absent: bool) -> str:
    if value is None:
        return "" if absent else f"is missing, and the schema has no place for that; it lists {names}"
    return "" if listed(value) else f"{_short(value)} is not in the schema, which lists {names}"


def _number(value: str | None, low: float, high: float, outside: str, *, absent: bool) -> str:
    if value is None:
        return "" if absent else "is missing (or NaN), and the schema has no `fill` for that"
    read = float(numbers(np.array([value], dtype=np.object_))[0])
    if not np.isfinite(read):
        return f"{_short(value)} is not a finite number"
    if outside == "refuse" and not low <= read <= high:
        return f"{_short(value)} lies outside the public bounds [{low:g}, {high:g}]"
    return ""


def _short(value: str) -> str:
    return repr(value if len(value) <= 30 else value[:27] + "...")
