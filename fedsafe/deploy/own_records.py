"""A client's own records, where its ``data.toml`` says that they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsafe.data import Task
from fedsafe.data.deployed import own_task
from fedsafe.data.source_file import read_source
from fedsafe.errors import DataError


def load_own(folder: Path, client: str, spec: Mapping[str, Any]) -> Task:
    """The task with this client's records.

    Args:
        folder: Of the client.
        client: Whose policy it is.
        spec: The experiment's table of the task.

    Raises:
        DataError: They cannot be read, are another client's, or not what the experiment says.
    """
    source = read_source(folder / "data.toml")
    if source.client != client:
        raise DataError(
            f"data.toml is of {source.client!r}, policy.toml of {client!r}: give both the same client"
        )
    training, validation = source.load()
    return own_task(
        spec, client=source.client, schema=source.schema_path, own=training, validation=validation
    )


def secret_paths(folder: Path) -> list[Path]:
    """What uploaded code must not find: a client's folder, and its records where they lie elsewhere."""
    try:
        records = read_source(folder / "data.toml").files()
    except DataError:
        records = ()
    return [folder, *records]
