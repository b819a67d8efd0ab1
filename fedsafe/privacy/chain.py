"""The chain of events on the disk: SQLite, every event hashed together with the one before it."""

import hmac
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsafe.errors import LedgerError

TABLES = """
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY, kind TEXT NOT NULL, round INTEGER NOT NULL, body TEXT NOT NULL,
    previous TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE release (kind TEXT, round INTEGER, digest TEXT NOT NULL, PRIMARY KEY (kind, round)) WITHOUT ROWID;
"""


# Of an event that takes the one before it back.
CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest event: its sequence number and chained hash."""

    sequence: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the ledger."""

    sequence: int
    kind: str
    round: int
    body: dict[str, Any]
    hash: str


def read_events(path: Path) -> list[Event]:
    """Every event of a ledger, after checking its chain.

    Raises:
        LedgerError: The file is missing or damaged, or the chain does not hold.
    """
    database = existing(path)
    try:
        return list(read_chain(database))
    finally:
        database.close()


def existing(path: Path) -> sqlite3.Connection:
    """Open a ledger that is there.

    Raises:
        LedgerError: There is none.
    """
    if not path.is_file():
        raise LedgerError(f"{path} is missing: a run cannot go on without its ledger")
    return connect(path)


def connect(path: Path) -> sqlite3.Connection:
    """Open or make a file in which every commit waits for the disk.

    Raises:
        LedgerError: It is no database.
    """
    # The strategy may run in another thread than the one that opened the run; calls never overlap.
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path} cannot be read as a ledger: {error}; restore it from a backup") from error
    return database


@contextmanager
def damage_reported() -> Iterator[None]:
    """Whatever SQLite or the content says is wrong, as one LedgerError."""
    try:
        yield
    except (sqlite3.DatabaseError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise LedgerError(
            f"the ledger is damaged, truncated, full or in use by another process: {error}; free the disk, or "
            "restore the ledger from a backup"
        ) from error


def read_chain(database: sqlite3.Connection) -> Iterator[Event]:
    """Every event, oldest first, each checked against the one before it and against its release.

    Raises:
        LedgerError: The chain does not hold.
    """
    with damage_reported():
        rows_of_release = database.execute("SELECT kind, round, digest FROM release").fetchall()
        releases = {(kind, round): digest for kind, round, digest in rows_of_release}
    events = chained(database)
    with damage_reported():
        cancelled = {event.body["of"] for event in events if event.kind == CANCELLED}
        for event in events:
            # Nothing but the newest event is ever taken back.
            if event.kind == CANCELLED and event.body["of"] != event.sequence - 1:
                raise LedgerError(
                    f"event {event.sequence} cancels another than the one before it: the ledger was edited"
                )
    for event in events:
        with damage_reported():
            held = event.kind not in ("plan", CANCELLED) and event.sequence not in cancelled
            if held and releases.pop((event.kind, event.round), None) != event.body["digest"]:
                raise LedgerError(f"round {event.round} has no matching release: the ledger was edited")
        yield event
    if releases:
        raise LedgerError(
            f"rounds {sorted({number for _, number in releases})} have a release but no event: the ledger was cut "
            "or edited"
        )


def chained(database: sqlite3.Connection) -> list[Event]:
    """Every event, oldest first, each checked against the one before it.

    Raises:
        LedgerError: The chain does not hold.
    """
    with damage_reported():
        rows = database.execute("SELECT * FROM event ORDER BY sequence").fetchall()
        salt = str(json.loads(rows[0][3])["salt"]) if rows else ""
    previous, events = "", []
    for expected, (sequence, kind, round, body, before, digest) in enumerate(rows):
        with damage_reported():
            computed = _hash(salt, sequence, kind, round, body, before)
        if sequence != expected or before != previous or digest != computed:
            raise LedgerError(f"the chain of the ledger breaks at event {sequence}: it was edited or cut")
        with damage_reported():
            content = json.loads(body)
        previous = digest
        events.append(Event(sequence=sequence, kind=kind, round=round, body=content, hash=digest))
    return events


def append(
    database: sqlite3.Connection,
    salt: str,
    *,
    kind: str,
    round: int,
    body: dict[str, Any],
    previous: Event | None,
) -> Event:
    """Write one more event; the caller commits.

    Args:
        database: Of the ledger.
        salt: Secret of its hashes.
        kind: Of the event.
        round: That it is about.
        body: What it says.
        previous: The newest event; None for the first.
    """
    sequence = 0 if previous is None else previous.sequence + 1
    before = "" if previous is None else previous.hash
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    digest = _hash(salt, sequence, kind, round, text, before)
    database.execute(
        "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?)", (sequence, kind, round, text, before, digest)
    )
    return Event(sequence=sequence, kind=kind, round=round, body=body, hash=digest)


def sync_folder(folder: Path) -> None:
    """Make sure that names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(salt: str, sequence: int, kind: str, round: int, body: str, previous: str) -> str:
    """Chained and keyed: without the salt, which stays in the ledger, a head tells nothing about its event."""
    content = json.dumps([sequence, kind, round, body, previous]).encode()
    return hmac.digest(salt.encode(), content, "sha256").hex()
