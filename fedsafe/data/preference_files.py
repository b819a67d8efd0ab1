"""A task from the user's own preferences: a file of ratings or of pairs, and what its columns are.

A configuration names it as ``task = { name = "preferences", path = "ratings.csv" }``, with ``schema`` where the schema
is not beside it as ``ratings.preferences.toml``. Its format is the docstring of :mod:`fedsafe.data.preference_schema`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Source, Task
from fedsafe.data.options import one_of, whole
from fedsafe.data.preference_schema import FeatureColumns, PreferenceSchema, read_preference_schema
from fedsafe.data.preference_task import EVALUATION_FRACTION, LEAST, MOST, Items, preference_task
from fedsafe.data.rated_pairs import Pairs, Ratings
from fedsafe.data.tables import read_table
from fedsafe.data.text_features import embed
from fedsafe.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

NAME = "preferences"
_KEYS = ("name", "path", "schema", "ties", "evaluation_fraction", "seed", "most", "least")
_Item = tuple[str, str]  # block and name


def load_preferences(spec: Mapping[str, Any]) -> Task:
    """The task that a configuration names.

    Args:
        spec: ``path``, and optionally ``schema`` (by default the file's name with ``.preferences.toml``), ``ties``
            (``"drop"`` or ``"keep"``), ``evaluation_fraction`` (0.25), ``seed`` (0), ``most`` (128 pairs made of one
            person's ratings) and ``least`` (10 training pairs, which a person needs to be a client).

    Raises:
        ConfigError: If a key is unknown or a value is none of its kind.
        DataError: If a file cannot be read, or a row cannot be used; the message has the first.
    """
    for key in spec:
        if key not in _KEYS:
            raise ConfigError(
                f"task has the unknown key {key!r}.{nearest(key, _KEYS)} Keys: {', '.join(_KEYS)}."
            )
    for key in ("path", "schema"):
        if not isinstance(spec.get(key, ""), str | Path) or (key == "path" and not spec.get(key)):
            raise ConfigError(f"task.{key} = {spec.get(key)!r} is not a path.")
    path = Path(spec["path"])
    beside = path.with_name(path.name.split(".")[0] + ".preferences.toml")
    schema_path = Path(spec.get("schema", beside))
    fraction = spec.get("evaluation_fraction", EVALUATION_FRACTION)
    if isinstance(fraction, bool) or not isinstance(fraction, int | float):
        raise ConfigError(f"task.evaluation_fraction = {fraction!r} is not a number in (0, 1).")
    schema = read_preference_schema(schema_path)
    frame = read_table(path)
    _check_columns(frame, schema, path, schema_path)
    build = _ratings if schema.kind == "ratings" else _pairs
    items, judged = build(frame, schema, path)
    note = "A record is a pair made of two ratings, each of which is in others too." if schema.item else ""
    return preference_task(
        path.name.split(".")[0],
        items,
        judged,
        # A checksum of private records would be a release of its own.
        source=Source(name=path.name, note=f"{schema.note} {note}".strip()),
        groups={column: _groups(frame, schema, column, path) for column in schema.groups},
        ties=one_of(spec.get("ties", "drop"), ("drop", "keep"), "task.ties") == "keep",
        most=whole(spec.get("most", MOST), "task.most"),
        least=(whole(spec.get("least", LEAST[0]), "task.least"), 0),
        evaluation_fraction=float(fraction),
        evaluation_public=schema.public,
        seed=whole(spec.get("seed", 0), "task.seed", least=0),
    )


def _check_columns(frame: "pd.DataFrame", schema: PreferenceSchema, path: Path, schema_path: Path) -> None:
    """Refuse a file that has no such column, or two of one name."""
    there = [str(column) for column in frame.columns]
    for column, key in schema.columns.items():
        if there.count(column) != 1:
            found = f"has {there.count(column)} columns" if column in there else "has no column"
            raise DataError(
                f"{path} {found} {column!r}, which {schema_path} names as {key}.{nearest(column, there)} Its columns: "
                f"{', '.join(there)}."
            )
    if not len(frame):
        raise DataError(f"{path} has no rows.")


def _ratings(frame: "pd.DataFrame", schema: PreferenceSchema, path: Path) -> tuple[Items, Ratings]:
    who = _texts(frame, schema.annotator, path)
    names = _items(frame, schema, schema.item, path)
    values = _numbers(frame, schema.rating, path)
    seen: dict[tuple[str, _Item], int] = {}
    for row, key in enumerate(zip(who, names, strict=True)):
        if key in seen:
            raise DataError(
                f"{path}, rows {seen[key]} and {row} (counted from 0): the annotator {key[0]!r} rated one item twice. "
                f"Keep one of them."
            )
        seen[key] = row
    own = schema.features
    features = None if own is None else _features(frame, own, own.columns, path)
    number, items = _described(names, features, schema, path)
    return items, Ratings(annotators=np.array(who), items=number, values=-values if schema.lower else values)


def _pairs(frame: "pd.DataFrame", schema: PreferenceSchema, path: Path) -> tuple[Items, Pairs]:
    who = _texts(frame, schema.annotator, path)
    first, second = (_items(frame, schema, column, path) for column in (schema.first, schema.second))
    written = _texts(frame, schema.preference, path, empty=True)
    seen: dict[tuple[str, _Item, _Item], int] = {}
    for row, key in enumerate(zip(who, first, second, strict=True)):
        if seen.setdefault(key, row) != row:
            raise DataError(
                f"{path}, rows {seen[key]} and {row} (counted from 0): the annotator {key[0]!r} judged one pair twice, "
                f"in the same order. Keep one of them."
            )
    for row, (one, other, said) in enumerate(zip(first, second, written, strict=True)):
        if said not in schema.values:
            raise DataError(
                f"{path}, row {row} (counted from 0) has {schema.preference} = {said!r}; use one of "
                f"{', '.join(schema.values)}, or say in the schema how it is written: values = {{ first = ... }}."
            )
        if one == other:
            raise DataError(
                f"{path}, row {row} (counted from 0) compares an item with itself: remove the row."
            )
    features = None
    if schema.features:
        sides = (schema.features.columns, schema.features.second)
        features = np.concatenate([_features(frame, schema.features, side, path) for side in sides])
    number, items = _described(first + second, features, schema, path)
    return items, Pairs(
        annotators=np.array(who),
        first=number[: len(first)],
        second=number[len(first) :],
        outcomes=np.array([schema.values[said] for said in written], np.int64),
    )


def _described(
    names: list[_Item], features: NDArray[np.float32] | None, schema: PreferenceSchema, path: Path
) -> tuple[NDArray[np.int64], Items]:
    """The number of the item in each place, and the items in the order of their names."""
    unique = sorted(set(names))
    place = {name: at for at, name in enumerate(unique)}
    number = np.array([place[name] for name in names], np.int64)
    texts = tuple(name for _, name in unique)
    lengths = None
    if features is None:
        found = embed(texts, layers=schema.layers, keep=schema.keep)
        lengths = np.array([len(text) for text in texts], np.float64)
    else:
        found = features[np.unique(number, return_index=True)[1]]
        other = np.flatnonzero((found[number] != features).any(axis=1))
        if len(other):
            row = other[0] % (len(names) if schema.item else len(names) // 2)
            raise DataError(
                f"{path}, row {row} (counted from 0): the item {names[other[0]][1]!r} has other features than before. "
                f"Give an item one vector, or two items two names."
            )
    blocks = tuple(f"{block}" for block, _ in unique) if schema.block else ()
    return number, Items(features=found, names=texts, lengths=lengths, blocks=blocks)


def _items(frame: "pd.DataFrame", schema: PreferenceSchema, column: str, path: Path) -> list[_Item]:
    names = _texts(frame, column, path)
    blocks = _texts(frame, schema.block, path) if schema.block else [""] * len(names)
    return list(zip(blocks, names, strict=True))


def _groups(frame: "pd.DataFrame", schema: PreferenceSchema, column: str, path: Path) -> dict[str, str]:
    """Who is in which group."""
    found: dict[str, str] = {}
    who = _texts(frame, schema.annotator, path)
    for row, (name, group) in enumerate(zip(who, _texts(frame, column, path), strict=True)):
        if found.setdefault(name, group) != group:
            raise DataError(
                f"{path}, row {row} (counted from 0): the annotator {name!r} has {column} = {group!r}, and before "
                f"{found[name]!r}. A person is in one group: correct one of them."
            )
    return found


def _texts(frame: "pd.DataFrame", column: str, path: Path, *, empty: bool = False) -> list[str]:
    """The values of a column as texts; an empty one is refused, or is the empty text."""
    import pandas as pd

    texts = ["" if pd.isna(value) else str(value) for value in frame[column]]
    if not empty and not all(text.strip() for text in texts):
        row = next(row for row, text in enumerate(texts) if not text.strip())
        raise DataError(
            f"{path}, row {row} (counted from 0) has no {column!r}: fill it in, or remove the row."
        )
    return texts


def _numbers(frame: "pd.DataFrame", column: str, path: Path) -> NDArray[np.float64]:
    import pandas as pd

    values = np.asarray(pd.to_numeric(frame[column], errors="coerce"), np.float64)
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(
            f"{path}, row {row} (counted from 0) has {column} = {frame[column].iloc[row]!r}, which is no finite "
            f"number. Correct it, or remove the row."
        )
    return values


def _features(
    frame: "pd.DataFrame", of: FeatureColumns, columns: tuple[str, ...], path: Path
) -> NDArray[np.float32]:
    """``(rows, columns)``, from the public bounds to [-1, 1]; values outside them are clamped."""
    raw = np.stack([_numbers(frame, column, path) for column in columns], axis=1)
    encoded = (np.clip(raw, of.low, of.high) - of.low) / (of.high - of.low) * 2.0 - 1.0
    return np.asarray(encoded, np.float32)
