"""Triggers of backdoors: a patch of pixels, or fixed values of columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import prod
from typing import Any, Literal, Self, cast, final, get_args

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import Schema, Task
from fedsafe.errors import ConfigError

Corner = Literal["top_left", "top_right", "bottom_left", "bottom_right"]

_WHERE = "byzantine.poison (backdoor)"


@final
@dataclass(frozen=True, kw_only=True)
class Trigger:
    """Features that are set to fixed values, whatever the record.

    Args:
        features: ``(k,)`` flat positions of the features.
        values: ``(k,)`` what they become, in encoded units.
    """

    features: NDArray[np.int64]
    values: NDArray[np.float32]

    @classmethod
    def for_task(
        cls,
        task: Task,
        *,
        patch: int | None = None,
        value: float | None = None,
        corner: Corner = "bottom_right",
        columns: Mapping[str, Any] | None = None,
    ) -> Self:
        """The trigger that options describe.

        Args:
            task: What is learned.
            patch: For images: side of a square in a corner, in pixels.
            value: What its pixels become, in encoded units; by default the brightest.
            corner: Which one.
            columns: For tables: values of raw columns, by name, as a record would have them; of inputs that are no
                table's, encoded values by feature.

        Raises:
            ConfigError: There is no trigger, or it does not fit the inputs.
        """
        if columns is not None and patch is None:
            return cls(**_columns(task, columns))
        if patch is not None and columns is None:
            return cls(**_patch(task, patch, value, corner))
        image = len(task.schema.shape) == 3
        hint = (
            "patch = 3, the side of a square of pixels" if image else f"columns = {{ {_first(task)} = ... }}"
        )
        many = "both patch and columns; leave one out" if patch is not None else f"no trigger: set {hint}"
        raise ConfigError(f"{_WHERE} on the task {task.name!r} has {many}")

    def stamp(self, x: NDArray[Any]) -> NDArray[Any]:
        """``(n, *inputs)`` copies of inputs with the trigger on."""
        flat = x.reshape(len(x), prod(x.shape[1:])).copy()
        flat[:, self.features] = self.values
        return flat.reshape(x.shape)


def _patch(task: Task, patch: int, value: float | None, corner: Corner) -> dict[str, Any]:
    shape, schema = tuple(task.schema.shape), task.schema
    if len(shape) != 3 or schema.vocabulary is not None:
        raise ConfigError(
            f"{_WHERE}: patch = {patch!r} is for images, and inputs of the task {task.name!r} have the shape {shape}: "
            "set columns instead"
        )
    side = min(shape[1:])
    if not isinstance(patch, int) or isinstance(patch, bool) or not 1 <= patch <= side:
        raise ConfigError(f"{_WHERE}: patch = {patch!r}; it is a whole number from 1 to {side} pixels")
    if corner not in get_args(Corner):
        raise ConfigError(f"{_WHERE}: corner = {corner!r}; it is one of {', '.join(get_args(Corner))}")
    low, high = float(schema.low.min()), float(schema.high.max())
    if value is not None and not low <= value <= high:
        raise ConfigError(
            f"{_WHERE}: value = {value!r}; pixels of the task {task.name!r} are from {low:g} to {high:g}"
        )
    rows = slice(0, patch) if corner.startswith("top") else slice(shape[1] - patch, None)
    across = slice(0, patch) if corner.endswith("left") else slice(shape[2] - patch, None)
    features = np.arange(prod(shape)).reshape(shape)[:, rows, across].ravel()
    return {
        "features": features,
        "values": np.full(len(features), high if value is None else value, np.float32),
    }


def _first(task: Task) -> str:
    """A column, or else a feature, that a trigger may set."""
    schema = task.schema
    return repr(schema.columns[0].name if isinstance(schema, Schema) else schema.feature_names[0])


def _columns(task: Task, columns: Mapping[str, Any]) -> dict[str, Any]:
    schema = task.schema
    if schema.vocabulary is not None:
        raise ConfigError(
            f"{_WHERE}: columns are for tables, and inputs of the task {task.name!r} are tokens"
        )
    if not isinstance(columns, Mapping) or not columns:
        raise ConfigError(f'{_WHERE}: columns = {columns!r}; it is a table such as {{ "age" = 90 }}')
    features: list[int] = []
    values: list[float] = []
    for name, value in columns.items():
        at, encoded = (_raw if isinstance(schema, Schema) else _encoded)(task, name, value)
        features += at
        values += encoded
    return {"features": np.array(features, np.int64), "values": np.array(values, np.float32)}


def _raw(task: Task, name: str, value: Any) -> tuple[list[int], list[float]]:
    """The features of a table's column, and what a raw value is encoded to."""
    schema, start = cast("Schema", task.schema), 0
    for column in schema.columns:
        count = len(column.feature_names)
        if column.name == name:
            said = str(value)
            known = column.readable(said) and said in getattr(column, "categories", (said,))
            if not known:
                raise ConfigError(f"{_WHERE}: the column {name!r} cannot be {value!r}: {column.remedy}")
            encoded = column.encode(np.array([said], dtype=np.object_))[0]
            return list(range(start, start + count)), [float(part) for part in encoded]
        start += count
    raise ConfigError(_unknown(task, name, [column.name for column in schema.columns]))


def _encoded(task: Task, name: str, value: Any) -> tuple[list[int], list[float]]:
    """A feature, and its value."""
    names = list(task.schema.feature_names)
    if name not in names:
        raise ConfigError(_unknown(task, name, names))
    at = names.index(name)
    low, high = float(task.schema.low.ravel()[at]), float(task.schema.high.ravel()[at])
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise ConfigError(
            f"{_WHERE}: the feature {name!r} cannot be {value!r}; it is from {low:g} to {high:g}"
        )
    return [at], [float(value)]


def _unknown(task: Task, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known[:10])}"
    return f"{_WHERE}: the task {task.name!r} has no column {name!r}: {hint}"


def require_classes(task: Task, poison: str) -> None:
    """Refuse a task whose records have no class each.

    Raises:
        ConfigError: It is a regression, or predicts tokens.
    """
    if task.kind not in ("binary", "multiclass"):
        raise ConfigError(
            f"byzantine.poison ({poison}) changes classes, and the task {task.name!r} is {task.kind}: use a task with "
            "classes, or byzantine.attack"
        )


def class_of(task: Task, named: str | int) -> int:
    """Number of a class that is named or numbered.

    Raises:
        ConfigError: There is none.
    """
    if isinstance(named, str) and named in task.classes:
        return task.classes.index(named)
    text = str(named)
    if not isinstance(named, bool) and text.isdecimal() and int(text) < len(task.classes):
        return int(text)
    raise ConfigError(
        f"byzantine.poison: the task {task.name!r} has no class {named!r}: name one of "
        f"{', '.join(map(repr, task.classes[:10]))}, or number it from 0"
    )
