"""Reads a public schema from a TOML file.

The format, every key::

    format = "fedsafe.schema/1"
    missing = ["?"]                # texts that mean "no value", besides an empty cell
    evaluation = "private"         # or "public": whether the evaluation records are public
    note = ""                      # what was left out and why
    holders = []                   # columns that say who holds a record: clients of a natural partition

    [label]
    column = "income"
    classes = ["<=50K", ">50K"]    # as written in the file; with two, the second is the positive one

    # [target]                     # in place of [label]: a number is predicted
    # column = "income"
    # low = 0                      # public bounds; values outside are clamped
    # high = 100000
    # unit = "dollars"             # may be left out

    [split]                        # only if a column says which records are for evaluation
    column = "split"
    train = "train"
    evaluation = "test"

    [columns.hours-per-week]       # one table per column that is used, in the order of the features
    kind = "numeric"
    low = 10                       # public bounds; values outside are clamped
    high = 70
    transform = "none"             # or "log1p"
    fill = 40                      # what a missing value becomes; by default the middle of the bounds
    encoded = [0, 1]               # what the bounds are encoded to: the feature's own units
    encoding = "linear"            # or "bins": one-hot intervals
    bins = []                      # inner edges of these intervals
    unknown = ""                   # with "bins": name of one more interval, for missing values
    group = false                  # true: a group column for fairness, by intervals
    group_bins = []                # inner edges of the groups; by default those of bins
    immutable = false              # true: the person cannot change it

    [columns.native-country]
    kind = "categorical"
    categories = ["United-States", "Asia"]
    merge = { Asia = ["India", "Japan"] }   # raw values that count as a listed category
    unknown = "unknown"            # the category of missing and unlisted values
    group = false
    immutable = true

An unknown key is an error. Every bound, edge and category must be public knowledge, written down without
looking at the records that are to be protected.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fedsafe.data.columns import Categorical, Label, Numeric, nearest
from fedsafe.data.dataset import Target
from fedsafe.data.schema import Column, Schema, Split
from fedsafe.errors import DataError

FORMAT = "fedsafe.schema/1"

_Number = (int, float)
_TOP: dict[str, Any] = {
    "format": str, "missing": [str], "evaluation": str, "note": str, "holders": [str],
    "label": Mapping, "target": Mapping, "split": Mapping, "columns": Mapping,
}  # fmt: skip
_LABEL: dict[str, Any] = {"column": str, "classes": [str]}
_TARGET: dict[str, Any] = {"column": str, "low": _Number, "high": _Number, "unit": str}
_SPLIT: dict[str, Any] = {"column": str, "train": str, "evaluation": str}
_NUMERIC: dict[str, Any] = {
    "kind": str, "low": _Number, "high": _Number, "transform": ("none", "log1p"), "fill": _Number,
    "encoded": [_Number], "encoding": ("linear", "bins"), "bins": [_Number], "unknown": str,
    "group": bool, "group_bins": [_Number], "immutable": bool,
}  # fmt: skip
_CATEGORICAL: dict[str, Any] = {
    "kind": str, "categories": [str], "merge": Mapping, "unknown": str, "group": bool, "immutable": bool,
}  # fmt: skip

_Built = TypeVar("_Built")


def read_schema(path: Path) -> Schema:
    """The schema in a TOML file.

    Raises:
        DataError: If the file is missing, is not TOML, or breaks the format; it names file, table and key.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"The schema {path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"The schema {path} is not UTF-8 text: {error.reason}.") from error
    return parse_schema(content, str(path))


def parse_schema(content: str, origin: str) -> Schema:
    """The schema in a TOML text.

    Args:
        content: The text.
        origin: What to call it in messages, usually its path.

    Raises:
        DataError: If the text is not TOML or breaks the format; the message names the table and key.
    """
    try:
        document = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{origin} is not valid TOML: {error}.") from error
    _check(document, _TOP, required=("format", "columns"), where=origin)
    if document["format"] != FORMAT:
        raise DataError(f"{origin} has format {document['format']!r}; this version reads {FORMAT!r}.")
    evaluation = document.get("evaluation", "private")
    if evaluation not in ("public", "private"):
        raise DataError(f"{origin} has evaluation = {evaluation!r}; use 'public' or 'private'.")
    split = None
    if "split" in document:
        split = _build(Split, document["split"], _SPLIT, ("column",), f"{origin}, [split]")
    if ("label" in document) == ("target" in document):
        raise DataError(f"{origin} needs one of [label] and [target]: classes, or a number with its bounds.")
    label, target = None, None
    if "label" in document:
        label = _build(Label, document["label"], _LABEL, ("column", "classes"), f"{origin}, [label]")
    else:
        target = _target(document["target"], f"{origin}, [target]")
    return Schema(
        label=label,
        target=target,
        holders=tuple(document.get("holders", ())),
        columns=tuple(
            _column(n, table, f"{origin}, [columns.{n}]") for n, table in document["columns"].items()
        ),
        missing=tuple(document.get("missing", ())),
        split=split,
        evaluation_public=evaluation == "public",
        note=document.get("note", ""),
    )


def _target(table: Mapping[str, Any], where: str) -> Target:
    _check(table, _TARGET, ("column", "low", "high"), where)
    rest = {key: value for key, value in table.items() if key != "column"}
    return _build(Target, rest, _TARGET, (), where, name=table["column"])


def _column(name: str, table: Any, where: str) -> Column:
    if not isinstance(table, Mapping):
        raise DataError(f"{where} must be a table, got {table!r}.")
    kind = table.get("kind")
    rest = {key: value for key, value in table.items() if key != "kind"}
    if kind == "numeric":
        return _build(Numeric, rest, _NUMERIC, ("low", "high"), where, name=name)
    if kind == "categorical":
        _check(rest, _CATEGORICAL, ("categories",), where)
        merge = {
            target: _texts(values, f"{where}, merge") for target, values in rest.get("merge", {}).items()
        }
        return _build(Categorical, rest | {"merge": merge}, _CATEGORICAL, ("categories",), where, name=name)
    raise DataError(f"{where} has kind = {kind!r}; use 'numeric' or 'categorical'.")


def _texts(values: Any, where: str) -> tuple[str, ...]:
    _check({"merge": values}, {"merge": [str]}, (), where)
    return tuple(values)


def _build(
    kind: type[_Built],
    table: Mapping[str, Any],
    keys: Mapping[str, Any],
    required: tuple[str, ...],
    where: str,
    **more: Any,
) -> _Built:
    _check(table, keys, required, where)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        return kind(**values, **more)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def _check(table: Mapping[str, Any], keys: Mapping[str, Any], required: tuple[str, ...], where: str) -> None:
    for key, value in table.items():
        if key not in keys:
            raise DataError(
                f"{where} has the unknown key {key!r}.{nearest(key, keys)} Keys: {', '.join(keys)}."
            )
        if not _fits(value, keys[key]):
            raise DataError(f"{where} has {key} = {value!r}; expected {_describe(keys[key])}.")
    for key in required:
        if key not in table:
            raise DataError(f"{where} lacks the key {key!r}.")


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(value, list | tuple) and all(_fits(item, kind[0]) for item in value)
    if kind is _Number:
        return isinstance(value, _Number) and not isinstance(value, bool)
    if isinstance(kind, tuple):
        return value in kind
    return isinstance(value, kind)


def _describe(kind: Any) -> str:
    if isinstance(kind, list):
        return f"a list, each item {_describe(kind[0])}"
    if kind is _Number:
        return "a number"
    if isinstance(kind, tuple):
        return " or ".join(map(repr, kind))
    return {str: "a text", bool: "true or false", Mapping: "a table"}[kind]
