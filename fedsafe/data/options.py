"""Checks of the options that a task or a partition is named with."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from fedsafe.data.columns import nearest
from fedsafe.errors import ConfigError
from fedsafe.extensions import entry_points, resolve


def known(spec: Any, keys: Mapping[str, Sequence[str]], where: str) -> str:
    """The name in a table ``{"name": ..., **options}``, once name and options are known ones.

    Args:
        spec: The table.
        keys: The names, each with its keys.
        where: Where the table is in the configuration, to name it in a message.

    Raises:
        ConfigError: If it is no table, or its name or one of its keys is unknown.
    """
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        shown = dict(spec) if isinstance(spec, Mapping) else spec
        raise ConfigError(f"{where} = {shown!r} needs a `name`: {', '.join(keys)}.")
    name = str(spec["name"])
    if name not in keys:
        raise ConfigError(
            f"{where}.name = {name!r} is unknown.{nearest(name, keys)} Names: {', '.join(keys)}."
        )
    for key in spec:
        if key not in keys[name]:
            hint = nearest(key, keys[name])
            raise ConfigError(
                f"{where} ({name}) has the unknown key {key!r}.{hint} Keys: {', '.join(keys[name])}. To replace a "
                f'table, set the whole of it: {where} = {{ name = "{name}" }}.'
            )
    return name


def positive(value: Any, where: str) -> float:
    """A positive, finite number.

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{where} = {value!r} is not a positive number.")
    return float(value)


def whole(value: Any, where: str, *, least: int = 1) -> int:
    """A whole number of at least ``least``.

    Raises:
        ConfigError: If it is none.
    """
    import numpy as np

    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{where} = {value!r} is not a whole number of at least {least}.")
    return int(value)


def number(value: Any, where: str) -> float:
    """A finite number.

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigError(f"{where} = {value!r} is not a finite number.")
    return float(value)


def share(value: Any, where: str) -> float:
    """A number in [0, 1).

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{where} = {value!r} is not a number in [0, 1).")
    return float(value)


def one_of(value: Any, choices: Sequence[str], where: str) -> str:
    """One of a few texts.

    Raises:
        ConfigError: If it is none of them; the message has the nearest.
    """
    if not isinstance(value, str) or value not in choices:
        hint = nearest(value, choices) if isinstance(value, str) else ""
        raise ConfigError(f"{where} = {value!r} is unknown.{hint} Use one of: {', '.join(choices)}.")
    return value


def plugin_path(kind: str, name: str) -> str | None:
    """The import path of what is not built in: the name itself, or that of an installed package's entry point.

    Args:
        kind: ``"task"`` or ``"partition"``.
        name: ``"package.module:attribute"``, or the name of an entry point.

    Returns:
        The import path, or None if nothing has that name.

    Raises:
        ConfigError: If two packages offer the name, or its entry point cannot be loaded.
    """
    if ":" in name:
        return name
    offered = entry_points(kind)
    if name not in offered:
        return None
    resolve(kind, name, {})
    return offered[name][0].value
