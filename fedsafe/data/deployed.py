"""The task of a real federation: each client holds its own records, and nobody else has them.

A configuration names it so, every fact of which is public::

    task = { name = "deployed", schema = "schema.toml", schema_sha256 = "9f", clients = { north = 227, south = 221 } }

``clients`` are the names of the clients and how many records each trains on, ``evaluation`` may name a file of public
records that the server judges the model on. The same text must give the same privacy plan everywhere, so the server and
each client build arrays of the same shape from it: the records that are not theirs are placeholders, which only their
owner's process replaces, and which nothing trains on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.columns import nearest
from fedsafe.data.dataset import Examples, Kind, Source, Task
from fedsafe.data.natural import by_holder
from fedsafe.data.options import whole
from fedsafe.data.schema import Schema
from fedsafe.data.schema_file import read_schema
from fedsafe.data.tables import examples_of, read_table
from fedsafe.errors import ConfigError, DataError

NAME = "deployed"
HOLDER = "client"
NOTHING_TO_JUDGE_ON = "no evaluation records: the server has none"
_KEYS = ("schema", "schema_sha256", "clients", "evaluation")


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What the parties of a federation agree on about its data, all of it public.

    Args:
        schema: File of the public schema, as the server names it.
        schema_sha256: SHA-256 of its bytes, in hexadecimal; None to go without.
        clients: Name of each client to the number of records that it trains on.
        evaluation: File of public records at the server; None where there is none.
    """

    schema: str
    schema_sha256: str | None
    clients: Mapping[str, int]
    evaluation: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """The clients in the order of their numbers."""
        return by_holder(np.array(list(self.clients), dtype=np.str_))[0]


def read_agreed(spec: Mapping[str, Any]) -> Agreed:
    """What ``task = { name = "deployed", ... }`` says.

    Raises:
        ConfigError: A key is missing or unknown, or has a value that it cannot have.
    """
    for key in spec:
        if key not in (*_KEYS, "name"):
            raise ConfigError(
                f"task has the unknown key {key!r}.{nearest(key, _KEYS)} Keys of a deployed task: {', '.join(_KEYS)}."
            )
    clients = spec.get("clients")
    if not isinstance(clients, Mapping) or not clients:
        raise ConfigError(
            f"task.clients = {clients!r}: name each client and its number of records, such as {{ north = 240 }}."
        )
    for key in ("schema", "schema_sha256", "evaluation"):
        if spec.get(key) is not None and not isinstance(spec[key], str):
            raise ConfigError(f"task.{key} = {spec[key]!r} is not a text.")
    if spec.get("schema") is None:
        raise ConfigError(
            "A deployed task needs `schema`: the public schema that every client's records follow."
        )
    return Agreed(
        schema=spec["schema"],
        schema_sha256=spec.get("schema_sha256"),
        clients={name: whole(records, f"task.clients.{name}") for name, records in clients.items()},
        evaluation=spec.get("evaluation"),
    )


def load_deployed(spec: Mapping[str, Any]) -> Task:
    """The task as the server has it: nobody's records.

    Args:
        spec: The table of the configuration.

    Raises:
        ConfigError: The table is not valid.
        DataError: The schema or the evaluation file cannot be used, or is another one than was agreed.
    """
    agreed = read_agreed(spec)
    schema = agreed_schema(Path(agreed.schema), agreed.schema_sha256)
    evaluation = None
    if agreed.evaluation is not None:
        path = Path(agreed.evaluation)
        evaluation = examples_of(read_table(path), schema, str(path))
    return _task(agreed, schema, {}, evaluation)


def own_task(
    spec: Mapping[str, Any], *, client: str, schema: Path, own: Examples, validation: Examples
) -> Task:
    """The task as one client has it: its own records at their place, and nobody else's.

    Args:
        spec: The table of the configuration, as the server sent it; no file that it names is opened.
        client: Whose records these are.
        schema: The client's own copy of the public schema.
        own: What it trains on.
        validation: What it judges the model on, for itself; may be empty.

    Raises:
        ConfigError: The table is not valid, or does not name the client.
        DataError: The client's schema or its number of records is another one than was agreed.
    """
    agreed = read_agreed(spec)
    if client not in agreed.clients:
        raise ConfigError(
            f"task.clients does not name {client!r}.{nearest(client, agreed.clients)} It names "
            f"{', '.join(agreed.names)}."
        )
    if len(own) != agreed.clients[client]:
        raise DataError(
            f"{client} has {len(own)} records to train on, and {agreed.clients[client]} were agreed: agree on the new "
            "number, or restore the data; both sides must plan with the same one"
        )
    if agreed.schema_sha256 is None:
        raise ConfigError(
            "task.schema_sha256 is missing: without it nobody knows that all follow one schema."
        )
    return _task(agreed, agreed_schema(schema, agreed.schema_sha256), {client: own}, validation)


def agreed_schema(path: Path, sha256: str | None) -> Schema:
    """The public schema of a deployed task.

    Raises:
        DataError: It cannot be read, or is another one than was agreed.
    """
    schema, found = own_schema(path), schema_digest(path)
    if sha256 is not None and found != sha256:
        raise DataError(
            f"The schema {path} has the SHA-256 {found[:12]}..., and {sha256[:12]}... was agreed: every party needs "
            "the same file"
        )
    return schema


def own_schema(path: Path) -> Schema:
    """A public schema without columns of holders and of a split, which one client's own records do not need.

    Raises:
        DataError: It cannot be read.
    """
    return replace(read_schema(path), holders=(), split=None)


def schema_digest(path: Path) -> str:
    """SHA-256 of a schema's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _task(agreed: Agreed, schema: Schema, own: Mapping[str, Examples], evaluation: Examples | None) -> Task:
    classes = schema.label.classes if schema.label else ()
    kinds: Mapping[int, Kind] = {0: "regression", 2: "binary"}
    holders = np.repeat(
        np.array(agreed.names, dtype=np.str_), [agreed.clients[name] for name in agreed.names]
    )
    # Calloc gives untouched pages: what nobody reads takes no memory.
    x = np.zeros((len(holders), *schema.shape), np.float32)
    y = _placeholders(len(holders), len(classes))
    for name, examples in own.items():
        x[holders == name], y[holders == name] = examples.x, examples.y
    judged = evaluation if evaluation is not None else Examples(x=x[:0], y=y[:0])
    return Task(
        name=NAME,
        kind=kinds.get(len(classes), "multiclass"),
        classes=classes,
        target=schema.target,
        schema=schema,
        train=Examples(x=x, y=y, holders={HOLDER: holders}),
        evaluation=judged,
        evaluation_name=_named(agreed, own, judged),
        source=Source(name=f"{len(agreed.names)} clients, each with its own records", note=schema.note),
        evaluation_public=not own,
        unjudged=not len(judged),
    )


def _named(agreed: Agreed, own: Mapping[str, Examples], judged: Examples) -> str:
    if not len(judged):
        return NOTHING_TO_JUDGE_ON
    return (
        f"own records of {next(iter(own))} (private)"
        if own
        else f"{Path(agreed.evaluation or '').name} (public)"
    )


def _placeholders(n: int, classes: int) -> NDArray[Any]:
    """Targets of records that are not here; unlike ones, since a task has more than one target."""
    return np.arange(n, dtype=np.int64) % classes if classes else (np.arange(n) % 2).astype(np.float32)
