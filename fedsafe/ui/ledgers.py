"""The owner's ledger, as ``fedsafe ui --private`` shows it: opened for reading alone."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedsafe.errors import LedgerError
from fedsafe.privacy.chain import CANCELLED
from fedsafe.privacy.choices import NOISE
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import Start
from fedsafe.report import formats

# Each number of participations that occurs is accounted for apart, which takes about a second.
MOST_SPENDS = 40
MOST_CLIENTS = 2_000


@dataclass(frozen=True, kw_only=True)
class LedgerView:
    """A ledger.

    Attributes:
        head: Hash of the newest event.
        sequence: Its number.
        faults: What is wrong with the events; "" where they stay inside the plan.
        events: Number, kind, round, what was reserved, and the first of the hash; the newest first.
        cap: Rounds that a client may take part in.
        counts: Participations, and how many clients have so many; the most first.
        clients: Client, its participations, and its epsilon ("" where it was not asked for); the most first.
        left_out: Clients beyond those.
        spends: Record-level epsilon of so many participations; {} where it was not asked for.
    """

    head: str
    sequence: int
    faults: str
    events: tuple[tuple[int, str, int, str, str], ...]
    cap: int
    counts: tuple[tuple[int, int], ...]
    clients: tuple[tuple[int, int, str], ...]
    left_out: int
    spends: dict[int, str]


_KNOWN: dict[tuple[str, int], str] = {}


def read_ledger(run: Path, start: Start, *, spends: bool) -> LedgerView:
    """The ledger of a run.

    Args:
        run: The run folder.
        start: Of its record.
        spends: Whether to account for each client, which takes seconds.

    Raises:
        LedgerError: It is missing, damaged or edited.
        PlanViolation: It is of another plan.
    """
    plan = PrivacyPlan.from_numbers(start.plan)
    with _opened(run / "private" / "ledger.sqlite") as database:
        ledger = Ledger(run, database, plan)
        try:
            ledger.verify_events()
        except LedgerError as error:
            faults = str(error)
        else:
            faults = ""
        held = {client: ledger.participations[client] for client in range(plan.clients)}
        counts = Counter(held.values())
        trained = max((event.round for event in ledger.trained), default=0)
        asked = sorted(counts)[-MOST_SPENDS:] if spends else []
        known = {count: _epsilon(plan, trained, count) for count in asked}
        most = sorted(held, key=lambda client: (-held[client], client))
        return LedgerView(
            head=ledger.head.hash,
            sequence=ledger.head.sequence,
            faults=faults,
            events=tuple(
                (event.sequence, event.kind, event.round, _what(event.kind, event.body), event.hash[:12])
                for event in reversed(ledger.events)
            ),
            cap=plan.record.max_participations,
            counts=tuple(sorted(counts.items(), reverse=True)),
            clients=tuple(
                (client, held[client], known.get(held[client], "")) for client in most[:MOST_CLIENTS]
            ),
            left_out=max(0, len(most) - MOST_CLIENTS),
            spends=known,
        )


def _epsilon(plan: PrivacyPlan, rounds: int, count: int) -> str:
    """What so many participations cost a record, rounded up."""
    if count == 0:
        return "0"
    place = (plan.hash, count)
    if place not in _KNOWN:
        epsilon = plan.record_epsilon(max(rounds, count), count) if plan.record.private else None
        _KNOWN[place] = formats.epsilon(epsilon)
    return _KNOWN[place]


def _what(kind: str, body: dict[str, object]) -> str:
    if kind == "plan":
        return f"plan {str(body['plan'])[:12]}"
    if kind == CANCELLED:
        return f"event {body['of']} cancelled: no message of it had left"
    cohort = body.get("cohort")
    said = f"{len(cohort) if isinstance(cohort, list) else 0} clients reserved"
    return f"{said}, noise multiplier {body[NOISE]} chosen" if NOISE in body else said


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, for reading: SQLite then refuses to write even what a crash left to undo."""
    if not path.is_file() or path.is_symlink() or path.parent.is_symlink():
        raise LedgerError(f"{path} is missing: a shared copy of a run has no ledger")
    try:
        database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)
    except sqlite3.DatabaseError as error:
        raise LedgerError(f"{path} cannot be opened: {error}") from error
    try:
        yield database
    finally:
        database.close()
