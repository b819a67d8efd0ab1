"""What ``flwr run . --run-config`` asks for."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsafe.errors import ConfigError
from fedsafe.runs import Config, read_config
from fedsafe.runs.config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A run as Flower was asked for it.

    Args:
        config: The configuration, whose engine is Flower.
        out: The run folder; a new one under ``runs/`` if None.
        wait_for_nodes: Seconds until every client must be connected.
        wait_for_replies: Seconds until a round goes on without the clients that have not replied.
        resume: Whether to go on with the run in ``out``, whose configuration counts then.
        peers: File of the keys that clients sign with in secure aggregation; None where there is none.
    """

    config: Config
    out: Path | None
    wait_for_nodes: float
    wait_for_replies: float
    resume: bool = False
    peers: Path | None = None


def read_settings(run_config: Mapping[str, Any], bundle: Callable[[], Path]) -> Settings:
    """Read a run configuration with the keys of ``[tool.flwr.app.config]``.

    Args:
        run_config: The values, all of them given.
        bundle: Where Flower has put the uploaded bundle: a relative ``config`` is a file in it.

    Raises:
        ConfigError: The configuration is wrong, or cannot work where processes run in other folders.
    """
    named, out = str(run_config["config"]).strip(), str(run_config["out"]).strip()
    again = run_config.get("resume", False)
    if not isinstance(again, bool):
        raise ConfigError(f"run configuration resume = {again!r}: give true or false")
    peers = str(run_config.get("peers", "")).strip()
    if again and not out:
        raise ConfigError("run configuration resume = true needs out, the run folder to go on with")
    source = Path(named).expanduser() if named else None
    if source is not None and not source.is_absolute():
        source = _bundled(source, bundle())
    config = read_config(source, _words(str(run_config["overrides"])))
    _require_absolute_paths(config)
    return Settings(
        config=for_flower(config),
        out=Path(out).expanduser() if out else None,
        wait_for_nodes=_seconds(run_config, "wait-for-nodes"),
        wait_for_replies=_seconds(run_config, "wait-for-replies"),
        resume=again,
        peers=Path(peers) if peers else None,
    )


def for_flower(config: Config) -> Config:
    """The same configuration with Flower as its engine, which cannot change a result."""
    return config.model_copy(update={"engine": EngineConfig(name="flower", workers=1)})


def _bundled(source: Path, bundle: Path) -> Path:
    path = bundle / source
    if not path.is_file():
        there = sorted(str(found.relative_to(bundle)) for found in bundle.glob("*/*.toml"))
        raise ConfigError(
            f"config = {str(source)!r} is not in the uploaded bundle, which has {', '.join(there) or 'no such files'}: "
            "name one of these, or the absolute path of a file on the server's machine"
        )
    return path


def _words(overrides: str) -> list[str]:
    try:
        return shlex.split(overrides)
    except ValueError as error:
        raise ConfigError(
            f"overrides = {overrides!r} cannot be split into words: {error}; write a.b=c words, quoted as in a shell"
        ) from error


def _require_absolute_paths(config: Config) -> None:
    """Flower's processes run in folders that the user does not see."""
    named = {f"task.{key}": value for key, value in _strings(config.task) if key in ("path", "schema")}
    if isinstance(config.assess.require, str):
        named["assess.require"] = config.assess.require
    for key, value in named.items():
        if not Path(value).is_absolute():
            raise ConfigError(
                f"{key} = {value!r} is a relative path, and Flower's processes run in other folders: give an absolute "
                "one, which must lead to the same file on every machine"
            )


def _strings(table: str | dict[str, Any]) -> list[tuple[str, str]]:
    items = table.items() if isinstance(table, dict) else ()
    return [(key, value) for key, value in items if isinstance(value, str)]


def _seconds(run_config: Mapping[str, Any], key: str) -> float:
    try:
        seconds = float(run_config[key])
    except ValueError:
        seconds = 0.0
    if not seconds > 0.0:
        raise ConfigError(f"run configuration {key} = {run_config[key]!r}: give seconds above 0")
    return seconds
