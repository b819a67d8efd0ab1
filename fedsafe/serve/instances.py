"""Instances of a request as encoded inputs: rows of a table with its raw columns, or arrays; held to the public schema.

A row is encoded as `fedsafe.data.Schema` encodes a record, value by value, since one record in a data frame takes
milliseconds: the tests hold the two to each other. What is no category or no number is refused and not encoded as
unknown: training may do that with what it finds, but who asks for a decision can be told.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import Categorical, InputSchema, Numeric, Schema
from fedsafe.data.columns import nearest
from fedsafe.serve.described import array_schema, row_schema

MOST_PROBLEMS: Final = 10
"""More are not listed."""
_SHOWN = 60
# What an encoded row is made of: where, and the value there.
_Cell = tuple[int, float]


@dataclass(frozen=True)
class Problem:
    """What is wrong with an instance: its position, the field or "" for all of it, and one sentence."""

    instance: int
    field: str
    message: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"instance": self.instance, "field": self.field, "message": self.message}


class WrongInstance(Exception):
    """Instances are not of the schema.

    Args:
        problems: What is wrong, at most `MOST_PROBLEMS` of them.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems[:MOST_PROBLEMS])
        first = self.problems[0]
        about = f" {first.field!r}:" if first.field else ""
        super().__init__(f"instance {first.instance}:{about} {first.message}")


class Instances:
    """Reads instances of a task.

    Args:
        schema: Of its inputs.
        loose: Whether further columns are left aside, as in a file; in a request they are refused.
    """

    def __init__(self, schema: InputSchema, *, loose: bool = False) -> None:
        self._shape, self._loose = tuple(schema.shape), loose
        self._read: tuple[tuple[str, Callable[[Any], _Cell]], ...] = ()
        self._width = int(np.prod(self._shape))
        if isinstance(schema, Schema):
            self._read = _readers(schema)
            self.described = row_schema(schema)
        else:
            self.described = array_schema(schema)
        self.names = frozenset(name for name, _ in self._read)
        """Columns of a table."""

    def encode(self, instances: Sequence[Any]) -> NDArray[np.float32]:
        """``(n, *inputs)`` encoded instances.

        Raises:
            WrongInstance: One is not of the schema.
        """
        return self._rows(instances) if self._read else self._arrays(instances)

    def _rows(self, instances: Sequence[Any]) -> NDArray[np.float32]:
        out = np.zeros((len(instances), self._width), np.float32)
        problems: list[Problem] = []
        for at, instance in enumerate(instances):
            row = out[at]
            if not isinstance(instance, dict):
                problems.append(Problem(at, "", f"it is {_kind(instance)}, not an object of columns"))
            else:
                begun = len(problems)
                for name, read in self._read:
                    try:
                        where, value = read(instance[name])
                        row[where] = value
                    except KeyError:
                        problems.append(
                            Problem(at, name, "it is missing; null says that the value is not known")
                        )
                    except ValueError as error:
                        hint = "" if problems or not isinstance(error, _Unlisted) else error.hint()
                        problems.append(Problem(at, name, f"{error}{hint}"))
                if not self._loose and (len(instance) > len(self.names) or len(problems) > begun):
                    # A column that is not known is often the wrong name of one that is missing.
                    problems[begun:begun] = self._strange(at, instance, hinted=begun > 0)
            if len(problems) >= MOST_PROBLEMS:
                break
        if problems:
            raise WrongInstance(problems)
        return out

    def _strange(self, at: int, instance: Mapping[str, Any], *, hinted: bool) -> list[Problem]:
        # Looking for the nearest name takes long: it is done once in a request.
        strange = [_short(name) for name in instance if name not in self.names][:MOST_PROBLEMS]
        hints = ["" if number or hinted else nearest(name, self.names) for number, name in enumerate(strange)]
        return [
            Problem(at, name, f"it is no column.{hint}") for name, hint in zip(strange, hints, strict=True)
        ]

    def _arrays(self, instances: Sequence[Any]) -> NDArray[np.float32]:
        out = np.empty((len(instances), *self._shape), np.float32)
        wanted = "numbers in " + " x ".join(map(str, self._shape))
        problems = []
        for at, instance in enumerate(instances):
            try:
                found = np.asarray(instance)
                if found.dtype.kind not in "iuf" or _flags(instance):
                    raise ValueError
            except (ValueError, OverflowError):
                problems.append(Problem(at, "", f"it is no array of numbers; give {wanted}"))
                continue
            if found.shape != self._shape:
                shape = " x ".join(map(str, found.shape)) or "one number"
                problems.append(Problem(at, "", f"it has the shape {shape}; give {wanted}"))
                continue
            with np.errstate(over="ignore"):
                out[at] = found
            if not np.isfinite(out[at]).all():
                problems.append(Problem(at, "", "it holds a number that is not finite"))
        if problems:
            raise WrongInstance(problems)
        return out


def _flags(instance: Any) -> bool:
    """Whether nested lists hold booleans, which numpy takes for numbers beside numbers."""
    if isinstance(instance, list):
        return any(map(_flags, instance))
    return isinstance(instance, bool)


def _readers(schema: Schema) -> tuple[tuple[str, Callable[[Any], _Cell]], ...]:
    """Column name to what reads one value, in the order of the features."""
    missing = frozenset({"", *schema.missing})
    readers, start = [], 0
    for column in schema.columns:
        read = (
            _category(column, start, missing)
            if isinstance(column, Categorical)
            else _number(column, start, missing)
        )
        readers.append((column.name, read))
        start += len(column.feature_names)
    return tuple(readers)


def _category(column: Categorical, start: int, missing: frozenset[str]) -> Callable[[Any], _Cell]:
    codes = {value: code for code, value in enumerate(column.values)}
    codes |= {value: codes[target] for target, merged in column.merge.items() for value in merged}
    cells = {value: (start + code, 1.0) for value, code in codes.items()}
    unknown = cells[column.unknown]

    def read(value: Any) -> _Cell:
        try:
            return cells[value]
        except (KeyError, TypeError):
            said = _text(value)
            if said is None or said in missing:
                return unknown
            if said not in cells:
                raise _Unlisted(said, column) from None
            return cells[said]

    return read


def _number(column: Numeric, start: int, missing: frozenset[str]) -> Callable[[Any], _Cell]:
    low, high = column.low, column.high
    fill = (low + high) / 2 if column.fill is None else column.fill
    log = column.transform == "log1p"
    bottom, top = (math.log1p(low), math.log1p(high)) if log else (low, high)
    first, last = column.encoded
    bins = list(column.bins) if column.one_hot else None
    absent = start + len(column.bins) + 1 if column.unknown else None

    def read(value: Any) -> _Cell:
        if type(value) is not float and type(value) is not int:
            value = _as_number(value, missing)
            if value is None:
                if absent is not None:
                    return absent, 1.0
                value = fill
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError("it is no finite number")
        number = min(max(number, low), high)
        if bins is not None:
            return start + bisect_right(bins, number), 1.0
        if log:
            number = math.log1p(number)
        unit = min(max((number - bottom) / (top - bottom), 0.0), 1.0)
        return start, first + (last - first) * unit

    return read


def _as_number(value: Any, missing: frozenset[str]) -> float | None:
    """A number that is written as a text, as in a file; None for no value."""
    if value is None:
        return None
    if isinstance(value, str):
        said = value.strip()
        if said in missing:
            return None
        try:
            return float(said)
        except ValueError:
            raise ValueError(f"{_short(said)!r} is no number") from None
    if isinstance(value, np.integer | np.floating | Decimal):
        return float(value)
    raise ValueError(f"it is {_kind(value)}, not a number")


def _text(value: Any) -> str | None:
    """What `fedsafe.data.columns.text` reads of a value."""
    if value is None:
        return None
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        return str(int(number)) if number.is_integer() else repr(number)
    if isinstance(value, list | dict):
        raise ValueError(f"it is {_kind(value)}, not one of the categories")
    return str(value).strip()


class _Unlisted(ValueError):
    """A value is none of a column's categories."""

    def __init__(self, value: str, column: Categorical) -> None:
        listed = ", ".join(column.categories[:5]) + (", ..." if len(column.categories) > 5 else "")
        super().__init__(f"{_short(value)!r} is no category of it ({listed}).")
        self._value, self._column = value[:_SHOWN], column

    def hint(self) -> str:
        """The nearest category, if there is one near."""
        return nearest(self._value, self._column.categories)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if type(value) in kinds:
        return kinds[type(value)]
    return "a number" if isinstance(value, int | float | np.number) else f"of the type {type(value).__name__}"
