"""Records that differ in one column: every changed record is the encoding of a possible one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.scores import decide
from fedsafe.data import Categorical, Numeric, Schema
from fedsafe.errors import ConfigError

Features = NDArray[np.float32]

# Values of a linear column that are tried, from its lowest to its highest.
_POINTS = 9


@dataclass(frozen=True, kw_only=True)
class Level:
    """One value of a column.

    Attributes:
        name: The category, interval or number.
        features: ``(width,)`` its encoding: one number, or a one-hot group that moves together.
    """

    name: str
    features: Features


def levels(schema: Schema, column: str, order: tuple[str, ...] = ()) -> tuple[Level, ...]:
    """The values of a column that can be tried, from lowest to highest.

    Args:
        schema: The public schema.
        column: Its name.
        order: Categories to try, in this order; all that are listed where empty. For categorical columns only.

    Raises:
        ConfigError: The schema has no such column, or it no such category, or its values are few.
    """
    found, width = _column(schema, column), len(_place(schema, column))
    if isinstance(found, Numeric):
        if order:
            raise ConfigError(
                f"the column {column!r} is numeric: its order is that of numbers, so leave it out"
            )
        if not found.one_hot:
            points = np.linspace(found.low, found.high, _POINTS)
            texts = np.array([repr(float(point)) for point in points], dtype=np.object_)
            encoded = found.encode(texts)
            return tuple(Level(name=f"{p:.6g}", features=row) for p, row in zip(points, encoded, strict=True))
        names: tuple[str, ...] = tuple(name.removeprefix(f"{column}=") for name in found.feature_names)
        codes = list(range(width))
    else:
        names = order or found.categories
        strange = [name for name in names if name not in found.values]
        if strange:
            known = ", ".join(found.values)
            raise ConfigError(f"the column {column!r} has no category {strange[0]!r}; it has {known}")
        codes = [found.values.index(name) for name in names]
    if len(names) < 2:
        raise ConfigError(f"the column {column!r} has one value only: there is nothing to change it to")
    eye = np.eye(width, dtype=np.float32)
    return tuple(Level(name=name, features=eye[code]) for name, code in zip(names, codes, strict=True))


def with_level(schema: Schema, column: str, level: Level, x: Features) -> Features:
    """``(n, features)`` the records with that value of the column."""
    changed = x.copy()
    changed[:, _place(schema, column)] = level.features
    return changed


def flips(
    subject: Subject,
    schema: Schema,
    column: str,
    x: Features,
    *,
    order: tuple[str, ...] = (),
    tolerance: float,
) -> tuple[NDArray[np.bool_], list[dict[str, Any]]]:
    """Which records get another decision with another value of a column, all else equal.

    Args:
        subject: What is judged.
        schema: The public schema.
        column: Its name.
        x: ``(n, features)`` the records.
        order: See `levels`.
        tolerance: Of a predicted number: how far it may move, as a share of the target's range.

    Returns:
        ``(n,)`` whether any other value changes the decision; and for each value the examples that do not have it, and
        the share of them that it flips.

    Raises:
        ConfigError: As `levels`.
    """
    tried = levels(schema, column, order)
    before = subject.logits(x)
    flipped, table = np.zeros(len(x), dtype=bool), []
    for level in tried:
        there = with_level(schema, column, level, x)
        changed, after = (there != x).any(axis=1), subject.logits(there)
        if subject.task.kind == "regression":
            # Encoded targets run over two units.
            moved = np.abs(after - before)[:, 0] > 2 * tolerance
        else:
            moved = decide(before) != decide(after)
        flipped |= moved
        share = float(moved[changed].mean()) if changed.any() else None
        table.append({"to": level.name, "examples": int(changed.sum()), "flipped": share})
    return flipped, table


def below(schema: Schema, column: str, tried: tuple[Level, ...], x: Features) -> NDArray[np.bool_]:
    """``(n, levels)`` whether each record's own value of the column is lower than each level.

    A record whose value is none of the levels of a categorical column is below none.
    """
    own = x[:, _place(schema, column)]
    if own.shape[1] == 1 and not _column(schema, column).one_hot:
        values = np.array([level.features[0] for level in tried])
        # A number that is encoded twice may differ in its last bit.
        return np.asarray(own < values - 1e-6)
    match = np.stack([(own == level.features).all(axis=1) for level in tried], axis=1)
    rank = np.where(match.any(axis=1), match.argmax(axis=1), len(tried))
    return np.asarray(rank[:, None] < np.arange(len(tried)))


def _column(schema: Schema, name: str) -> Numeric | Categorical:
    for column in schema.columns:
        if column.name == name:
            return column
    known = ", ".join(column.name for column in schema.columns)
    raise ConfigError(f"the schema has no column {name!r}; it has {known}")


def _place(schema: Schema, name: str) -> list[int]:
    start = 0
    for column in schema.columns:
        width = len(column.feature_names)
        if column.name == name:
            return list(range(start, start + width))
        start += width
    return []
