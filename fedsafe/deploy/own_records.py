"""A client's own records, where its ``data.toml`` says that they are."""

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsafe.data import Task
from fedsafe.data.deployed import own_task
from fedsafe.data.source_file import DataSource, read_source
from fedsafe.errors import DataError, LedgerError


def load_own(folder: Path, client: str, spec: Mapping[str, Any]) -> Task:
    """The task with this client's records.

    Args:
        folder: Of the client.
        client: Whose policy it is.
        spec: The experiment's table of the task.

    Raises:
        DataError: They cannot be read, are another client's, or not what the experiment says. It names a row and a
            column, and quotes no value: what a refusal says is kept for ever, in the ledger and the audit file.
    """
    source = read_source(folder / "data.toml")
    if source.client != client:
        raise DataError(
            f"data.toml is of {source.client!r}, policy.toml of {client!r}: give both the same client"
        )
    try:
        training, validation = source.load()
    except DataError:
        raise DataError(_where(source)) from None
    return own_task(
        spec, client=source.client, schema=source.schema_path, own=training, validation=validation
    )


def place_of(error: Exception) -> str:
    """An error by its type and where in the code it was raised; its text only if it cannot be about a record."""
    if isinstance(error, LedgerError):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    at = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{at}; what it says may quote a record, and is not kept"


def _where(source: DataSource) -> str:
    """What is wrong with the records, by row and column."""
    more = "`fedsafe deploy check` in this client's folder says more"
    try:
        found = source.problems(source.read())
    except DataError:
        found = []
    if not found:
        return f"the records cannot be read; {more}"
    at = f"row {found[0].row}, " if found[0].row is not None else ""
    return f"{at}column {found[0].column!r} is not as the schema says; {more}"


def secret_paths(folder: Path) -> list[Path]:
    """What uploaded code must not find: a client's folder, and its records where they lie elsewhere."""
    try:
        records = read_source(folder / "data.toml").files()
    except DataError:
        records = ()
    return [folder, *records]
