"""Writes the folder of a new federation: everything that each side needs, and a page that says who does what."""

import os
import secrets
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Final

import tomli_w

import fedsafe
from fedsafe.data.deployed import schema_digest
from fedsafe.data.schema_file import read_schema
from fedsafe.deploy.bundle import bundle_digest
from fedsafe.deploy.certificates import make_authority, new_key, write_certificate, write_key
from fedsafe.deploy.client_folder import first_policy, write_client
from fedsafe.deploy.federation import Client, Federation
from fedsafe.deploy.pages import fill, write_pages, write_server_commands
from fedsafe.deploy.registration import make_keys, write_server_certificate
from fedsafe.deploy.signing import write_peers
from fedsafe.deploy.thin_app import build_thin_app
from fedsafe.errors import ConfigError
from fedsafe.runs.config import make_config

UNKNOWN_RECORDS: Final = 1000
"""What an experiment says of a client of whom nobody has said how many records it trains on."""
_EXPERIMENT: Final[Mapping[str, Any]] = {
    "model": "logistic",
    "rounds": 20,
    "federation": {"cohort": {"name": "poisson", "rate": 1.0}},
    "client": {"optimizer": {"name": "sgd", "lr": 2.0}, "steps": 1, "rate": 1.0},
    "server": {"aggregator": "fedavg", "optimizer": {"name": "sgd", "lr": 1.0, "momentum": 0.5}},
    "privacy": {"record": {"epsilon": 3.0, "delta": 1e-5, "clip": 0.3}, "client": {"epsilon": float("inf")}},
}
"""The setting of ``experiments/heart.toml``: few clients, each protecting its records; none can be hidden."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a new federation is to be like.

    Args:
        name: Its name.
        clients: Its clients.
        host: Where clients reach the server.
        port: The server's.
        config: An experiment, as for ``fedsafe run``; None for a small default.
        schema: The public schema; None for the one of the experiment's task, where that ships.
        evaluation: Public records that the server judges the model on; None where there are none.
        records: How many records each client trains on.
        keys_at_clients: Leave out the clients' keys: each makes its own.
    """

    name: str
    clients: tuple[Client, ...]
    host: str = "127.0.0.1"
    port: int = 9092
    config: Path | None = None
    schema: Path | None = None
    evaluation: Path | None = None
    records: Mapping[str, int] = field(default_factory=dict)
    keys_at_clients: bool = False


def write_federation(folder: Path, wanted: Wanted) -> Federation:
    """Write the whole folder, or nothing.

    Args:
        folder: It must not be there.
        wanted: What it is to be like.

    Raises:
        ConfigError: The folder is there, or what is wanted contradicts itself.
    """
    if os.path.lexists(folder):
        raise ConfigError(f"{folder} is there already: choose another DIR; nothing was written")
    _require_consistent(wanted)
    sibling = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.new")
    try:
        sibling.mkdir(parents=True)
        _write(_federation(sibling, wanted), wanted)
        sibling.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}; choose another DIR") from error
    finally:
        shutil.rmtree(sibling, ignore_errors=True)
    return _federation(folder, wanted)


def _write(federation: Federation, wanted: Wanted) -> None:
    folder, server = federation.folder, federation.server
    for path in ("ca", "server/nodes", "server/state", "clients", "app"):
        (folder / path).mkdir(parents=True, exist_ok=True)
    for path in ("ca", "server", "server/state"):
        (folder / path).chmod(0o700)
    federation.write()
    values, schema = _experiment(wanted)
    (folder / "schema.toml").write_bytes(schema)
    if wanted.evaluation is not None:
        shutil.copy(wanted.evaluation, folder / values["task"]["evaluation"])
    values["task"]["schema_sha256"] = schema_digest(folder / "schema.toml")
    (folder / "experiment.toml").write_text(tomli_w.dumps(values), encoding="utf-8")
    (folder / "app" / "pyproject.toml").write_text(
        fill("app.toml", version=fedsafe.__version__), encoding="utf-8"
    )
    authority_key = new_key()
    authority = make_authority(federation.name, authority_key)
    write_key(folder / "ca" / "ca.key", authority_key)
    write_certificate(folder / "ca" / "ca.pem", authority)
    write_key(server / "server.key", new_key())
    write_certificate(server / "ca.pem", authority)
    write_server_certificate(federation, authority, authority_key)
    write_server_commands(federation)
    config, digest = make_config(values), bundle_digest(build_thin_app(folder / "app"))
    for name in federation.names:
        write_client(federation, name, first_policy(config, name, digest))
        if not wanted.keys_at_clients:
            make_keys(federation, name, authority, authority_key)
    write_peers(federation)
    evaluation = values["task"].get("evaluation")
    write_pages(federation, keys_at_clients=wanted.keys_at_clients, evaluation=evaluation)


def _experiment(wanted: Wanted) -> tuple[dict[str, Any], bytes]:
    """The experiment as it is written, and the bytes of its schema."""
    values, named = _values(wanted), "heart"
    task = values.get("task", "heart")
    if isinstance(task, str):
        named = task
    elif isinstance(task, dict) and task.get("name"):
        named = str(task["name"])
    if wanted.schema is not None:
        read_schema(wanted.schema)
        schema = wanted.schema.read_bytes()
    else:
        shipped = resources.files("fedsafe.data") / "files" / f"{named}.schema.toml"
        if not shipped.is_file():
            raise ConfigError(
                f"the task {named!r} has no schema that ships: name the public schema with --schema FILE"
            )
        schema = shipped.read_bytes()
    counts = {client.name: wanted.records.get(client.name, UNKNOWN_RECORDS) for client in wanted.clients}
    deployed: dict[str, Any] = {"name": "deployed", "schema": "schema.toml", "clients": counts}
    if wanted.evaluation is not None:
        deployed["evaluation"] = f"public{wanted.evaluation.suffix}"
    else:
        # Nothing can be required of a model that nobody measures.
        values["assess"] = {**values.get("assess", {}), "require": []}
    federation = {key: value for key, value in values.get("federation", {}).items() if key != "clients"}
    values["federation"] = {**federation, "partition": {"name": "natural", "by": "client"}}
    values.pop("engine", None)
    values = {"task": deployed, **{key: value for key, value in values.items() if key != "task"}}
    make_config(values)
    return values, schema


def _values(wanted: Wanted) -> dict[str, Any]:
    if wanted.config is None:
        return dict(_EXPERIMENT)
    try:
        return tomllib.loads(wanted.config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{wanted.config} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{wanted.config} is not valid TOML: {error}") from error


def _require_consistent(wanted: Wanted) -> None:
    names = [client.name for client in wanted.clients]
    if len(set(names)) < len(names):
        raise ConfigError(f"two clients have one name: {', '.join(names)}")
    for name, count in wanted.records.items():
        if name not in names:
            raise ConfigError(f"--records names {name!r}, which is no client: {', '.join(names)}")
        if count < 1:
            raise ConfigError(f"--records {name}={count}: a client needs records")
    if wanted.evaluation is not None and not wanted.evaluation.is_file():
        raise ConfigError(
            f"{wanted.evaluation} is not there: name the public evaluation records, a CSV or Parquet file"
        )


def _federation(folder: Path, wanted: Wanted) -> Federation:
    clients = tuple(sorted(wanted.clients, key=lambda client: client.name))
    return Federation(folder=folder, name=wanted.name, host=wanted.host, port=wanted.port, clients=clients)
