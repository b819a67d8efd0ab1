"""Names a task: one that is shipped, the user's own table, or a factory by import path."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedsafe.data.adult import load_adult
from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Task
from fedsafe.data.tables import load_table
from fedsafe.errors import ConfigError, DataError
from fedsafe.extensions import call

SHIPPED: Mapping[str, Callable[[], Task]] = {"adult": load_adult}
_TABLE_KEYS = ("path", "schema", "evaluation_fraction", "seed")


def load_task(spec: str | Mapping[str, Any]) -> Task:
    """The task that a configuration names.

    Args:
        spec: One of

            * ``"adult"`` or ``{"name": "adult"}``: a shipped task;
            * ``{"path": "my.csv", "schema": "my.schema.toml"}`` with, optionally, ``"evaluation_fraction"``
              (0.2) and ``"seed"`` (0): a CSV or Parquet file;
            * ``"package.module:factory"`` or ``{"name": "package.module:factory", **options}``: a callable
              that returns a :class:`Task`.

    Raises:
        ConfigError: If the name or a key is unknown, or the factory cannot be imported.
        DataError: If the records cannot be used, or the factory fails or returns something else than
            a task.
    """
    if isinstance(spec, str):
        return _named(spec, {})
    if not isinstance(spec, Mapping):
        raise ConfigError(f"task = {spec!r} is neither a name nor a table with `name` or `path`.")
    if "path" in spec:
        return _table(spec)
    if not isinstance(spec.get("name"), str):
        raise ConfigError(f"task = {dict(spec)!r} needs `name`, or `path` and `schema`.")
    return _named(spec["name"], {key: value for key, value in spec.items() if key != "name"})


def _table(spec: Mapping[str, Any]) -> Task:
    for key in spec:
        if key not in _TABLE_KEYS:
            hint = nearest(key, _TABLE_KEYS)
            raise ConfigError(f"task has the unknown key {key!r}.{hint} Keys: {', '.join(_TABLE_KEYS)}.")
    if "schema" not in spec:
        raise ConfigError(f"task names the file {spec['path']!r} but no `schema`: a public schema is needed.")
    for key in ("path", "schema"):
        if not isinstance(spec[key], str | Path):
            raise ConfigError(f"task.{key} = {spec[key]!r} is not a path.")
    fraction, seed = spec.get("evaluation_fraction"), spec.get("seed", 0)
    if fraction is not None and (isinstance(fraction, bool) or not isinstance(fraction, int | float)):
        raise ConfigError(f"task.evaluation_fraction = {fraction!r} is not a number in (0, 1).")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"task.seed = {seed!r} is not a whole number.")
    return load_table(Path(spec["path"]), Path(spec["schema"]), fraction, seed)


def _named(name: str, options: Mapping[str, Any]) -> Task:
    if ":" in name:
        return _from_factory(name, options)
    if name not in SHIPPED:
        hint = nearest(name, SHIPPED)
        raise ConfigError(
            f"There is no task {name!r}.{hint} Tasks: {', '.join(SHIPPED)}; or a table with `path` and "
            f"`schema`; or an import path, 'package.module:factory'."
        )
    if options:
        raise ConfigError(f"The task {name!r} takes no options: got {', '.join(options)}.")
    return SHIPPED[name]()


def _from_factory(name: str, options: Mapping[str, Any]) -> Task:
    task = call(name, "task", **options)
    if not isinstance(task, Task):
        raise DataError(f"The factory {name!r} returned {type(task).__name__}, not a fedsafe.data.Task.")
    return task
