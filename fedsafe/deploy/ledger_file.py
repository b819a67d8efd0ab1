"""The file of a client's ledger, before anything is in it."""

import secrets
from pathlib import Path

from fedsafe.privacy.chain import append, connect, sync_folder

_TABLES = """
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, round INTEGER NOT NULL, body TEXT NOT NULL,
    previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE release (
    run TEXT, kind TEXT, round INTEGER, digest TEXT NOT NULL, PRIMARY KEY (run, kind, round)) WITHOUT ROWID;
"""


def new_ledger_file(path: Path, client: str) -> None:
    """Write a client's empty ledger.

    Args:
        path: Of the file.
        client: Whose it is.
    """
    # Made whole under another name: a process that is killed here leaves no ledger, not a half one.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    database = connect(draft)
    draft.chmod(0o600)
    salt = secrets.token_hex(32)
    try:
        with database:
            database.executescript(_TABLES)
            append(
                database, salt, kind="opened", round=0, body={"client": client, "salt": salt}, previous=None
            )
    finally:
        database.close()
    draft.rename(path)
    sync_folder(path.parent)
