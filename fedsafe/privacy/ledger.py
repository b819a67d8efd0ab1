"""The durable ledger: what a run has released, written before it is released.

An SQLite file in ``RUN/private/`` with ``synchronous=FULL``. Every event is chained to the one before it by a
hash under a secret salt, so that the heads printed outside ``private/`` let nobody test a guess of a cohort. A crash
may leave a reservation that was never used (over-counted); it cannot lose one that was.

Guarantees:
    ``reserve`` returns only after the event is on the disk, and what is reserved is spent. ``cancel`` takes it back,
    and refuses once a message may have left: after ``departs``, or in another process than the one that reserved. A
    round outside the plan or beyond its budget, a client beyond its cap, or the same round with other inputs or another
    chosen noise is refused and leaves no trace. A truncated, edited or older ledger is detected, by the chain or by the
    head that the run record carries.
"""

import secrets
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedsafe.errors import LedgerError, PlanViolation
from fedsafe.privacy.chain import (
    CANCELLED,
    TABLES,
    Event,
    Head,
    append,
    connect,
    damage_reported,
    existing,
    read_chain,
    sync_folder,
)
from fedsafe.privacy.choices import NOISE, filter_after, is_adaptive, opening, require_filter, require_paid
from fedsafe.privacy.plan import PrivacyPlan


class Ledger:
    """The ledger of one run. Create it with :meth:`create`, come back to it with :meth:`open`."""

    def __init__(self, path: Path, database: sqlite3.Connection, plan: PrivacyPlan) -> None:
        self._path = path
        self._database = database
        self._plan = plan
        self._events = list(read_chain(database))
        first = self._events[0] if self._events else None
        if first is None or first.kind != "plan":
            raise LedgerError(
                "the ledger has no plan event: it was truncated; restore the run folder from a backup"
            )
        if first.body["plan"] != plan.hash:
            raise PlanViolation(
                f"the ledger was opened for plan {first.body['plan'][:12]}, the configuration gives "
                f"{plan.hash[:12]}: a plan cannot change after the first round; start a new run"
            )
        self._salt = str(first.body["salt"])
        self._reserved_here: int | None = None
        self._participations = Counter(client for event in self.trained for client in event.body["cohort"])

    @classmethod
    def create(
        cls, path: Path, plan: PrivacyPlan, *, key_fingerprint: str, data_fingerprint: str = ""
    ) -> "Ledger":
        """Start a ledger whose first event fixes the plan, the noise key and the data.

        Args:
            path: Where; nothing may be there.
            plan: What may be released.
            key_fingerprint: Recognises the noise key.
            data_fingerprint: Recognises the records, keyed, so that it tells nothing about them.
        """
        if path.exists():
            raise LedgerError(f"{path} exists already: resume the run, or choose another folder")
        database = connect(path)
        path.chmod(0o600)
        salt = secrets.token_hex(32)
        with database:
            database.executescript(TABLES)
            body = {
                "plan": plan.hash,
                "key": key_fingerprint,
                "data": data_fingerprint,
                "salt": salt,
                **opening(plan),
            }
            append(database, salt, kind="plan", round=0, body=body, previous=None)
        return cls(path, database, plan)

    @classmethod
    def open(
        cls, path: Path, plan: PrivacyPlan, *, key_fingerprint: str, data_fingerprint: str | None = None
    ) -> "Ledger":
        """Open an existing ledger for the same plan, key and data.

        Args:
            path: The file.
            plan: What may be released.
            key_fingerprint: Of the noise key.
            data_fingerprint: Of the records; None where the ledger is only read.

        Raises:
            LedgerError: It is missing, damaged, edited, or belongs to another key or to other records.
            PlanViolation: It was opened for another plan.
        """
        database = existing(path)
        try:
            ledger = cls(path, database, plan)
            ledger.verify_events()
        except BaseException:
            database.close()
            raise
        if ledger.events[0].body["key"] != key_fingerprint:
            ledger.close()
            raise LedgerError(
                "the noise key is not the one this ledger was opened with: continuing would release the same "
                "inputs with a second noise; restore private/noise.key"
            )
        if data_fingerprint is not None and ledger.events[0].body["data"] != data_fingerprint:
            ledger.close()
            raise LedgerError(
                "the records or their partition are not the ones this run began with: continuing would release "
                "other inputs under the same noise; restore the data, or start a new run"
            )
        return ledger

    @property
    def plan(self) -> PrivacyPlan:
        """The plan that the ledger was opened for."""
        return self._plan

    @property
    def events(self) -> Sequence[Event]:
        """All events, oldest first."""
        return self._events

    @property
    def trained(self) -> list[Event]:
        """The events of training rounds that were not cancelled."""
        return [event for event in self._spent if event.kind == "round"]

    @property
    def _spent(self) -> list[Event]:
        """All events but the cancelled ones and those that cancel."""
        cancelled = {event.body["of"] for event in self._events if event.kind == CANCELLED}
        return [
            event for event in self._events if event.kind != CANCELLED and event.sequence not in cancelled
        ]

    @property
    def head(self) -> Head:
        """The newest event."""
        return Head(sequence=self._events[-1].sequence, hash=self._events[-1].hash)

    @property
    def participations(self) -> Mapping[int, int]:
        """In how many rounds each client's spend is reserved."""
        return self._participations

    def within_cap(self, cohort: Sequence[int], round: int) -> list[int]:
        """The clients of a cohort whom ``round`` keeps inside their planned cap; the others are left out.

        So are clients that took part too recently, where the plan keeps their rounds apart. Only earlier rounds count,
        so that asking again for a reserved round gives the same clients.
        """
        trained = self.trained
        later = Counter(
            client for event in trained if event.round >= round for client in event.body["cohort"]
        )
        recent = self._recent(round, trained)
        return [
            int(client)
            for client in cohort
            if self._participations[client] - later[client] < self._plan.record.cap_of(client)
            and client not in recent
        ]

    def _recent(self, round: int, trained: Sequence[Event]) -> set[int]:
        """Clients that took part less than the planned separation before ``round``."""
        apart = self._plan.client.separation
        return {
            client
            for event in trained
            if round - apart < event.round < round
            for client in event.body["cohort"]
        }

    def reserve(
        self, *, round: int, digest: bytes, cohort: Sequence[int], noise: float | None = None
    ) -> Head:
        """Write what a round will spend, before any message leaves.

        Asking again for the same round, digest, cohort and noise is the same release, counted once.

        Args:
            round: The round, from 1.
            digest: Digest of the broadcast parameters and the plan.
            cohort: Clients whose update may be used, in ascending order.
            noise: The multiplier that was chosen for the round; None where the plan fixes it.

        Raises:
            PlanViolation: The round is not in the plan, not the next one, or a client is over its cap.
            BudgetSpent: The noise is chosen, and what is left of the budget does not pay for it.
            LedgerError: The round was reserved before with another digest, cohort or noise.
        """
        members = [int(client) for client in cohort]
        if not self._known("round", round, digest, members, noise):
            self._check(round, members)
            self.require_paid(round, noise)
            self._write("round", round, digest, members, noise)
            self._participations.update(members)
        return self.head

    def require_paid(self, round: int, noise: float | None) -> None:
        """Refuse what :meth:`reserve` would refuse of a round's noise: see there."""
        earlier = [event for event in self.trained if event.round < round]
        require_paid(self._plan, earlier, round, noise)

    def departs(self) -> None:
        """A message may leave from here on: what is reserved cannot be taken back."""
        self._reserved_here = None

    def cancel(self) -> Head:
        """Take the newest reservation back, since no message of it left.

        Raises:
            PlanViolation: One may have left, or another process reserved it.
        """
        last = self._events[-1]
        if self._reserved_here != last.sequence:
            raise PlanViolation(
                f"event {last.sequence} cannot be cancelled: a message of it may have left, so it is spent"
            )
        with damage_reported(), self._database:
            self._database.execute(
                "DELETE FROM release WHERE kind = ? AND round = ?", (last.kind, last.round)
            )
            body = {"of": last.sequence}
            event = append(
                self._database, self._salt, kind=CANCELLED, round=last.round, body=body, previous=last
            )
        sync_folder(self._path.parent)
        self._events.append(event)
        if last.kind == "round":
            self._participations.subtract(last.body["cohort"])
        self._reserved_here = None
        return self.head

    def reserve_evaluation(self, *, round: int, digest: bytes, cohort: Sequence[int]) -> Head:
        """Write which clients will be asked for the score of a round's new model, before any message leaves.

        Args:
            round: The round that was just trained.
            digest: Digest of the new parameters and the plan.
            cohort: The clients, in ascending order.

        Raises:
            PlanViolation: The plan has no evaluation after this round, or it is not the newest round.
            LedgerError: The evaluation was reserved before with another digest or cohort.
        """
        members = [int(client) for client in cohort]
        if not self._known("evaluation", round, digest, members):
            if self._plan.evaluation is None or not self._plan.evaluation.due(round):
                raise PlanViolation(f"the plan has no evaluation after round {round}")
            newest = self._spent[-1]
            if newest.kind != "round" or newest.round != round:
                raise PlanViolation(
                    f"an evaluation of round {round} was asked for after event {self.head.sequence}, which is not that "
                    "round's training"
                )
            self._check_clients(members)
            self._write("evaluation", round, digest, members)
        return self.head

    def _known(
        self, kind: str, round: int, digest: bytes, members: list[int], noise: float | None = None
    ) -> bool:
        """Whether exactly this was reserved before.

        Raises:
            LedgerError: It was, with other inputs.
        """
        query = "SELECT digest FROM release WHERE kind = ? AND round = ?"
        with damage_reported():
            known = self._database.execute(query, (kind, round)).fetchone()
        if known is None:
            return False
        event = next((event for event in self._spent if (event.kind, event.round) == (kind, round)), None)
        same = event is not None and (event.body["cohort"], event.body.get(NOISE)) == (members, noise)
        if not same or known[0] != digest.hex():
            raise LedgerError(
                f"round {round} was already released with other inputs: a second release under the same noise "
                "would reveal their difference; start a new run"
            )
        return True

    def _write(
        self, kind: str, round: int, digest: bytes, members: list[int], noise: float | None = None
    ) -> None:
        body = {"digest": digest.hex(), "cohort": members, **({} if noise is None else {NOISE: noise})}
        with damage_reported(), self._database:
            self._database.execute("INSERT INTO release VALUES (?, ?, ?)", (kind, round, digest.hex()))
            last = self._events[-1]
            event = append(self._database, self._salt, kind=kind, round=round, body=body, previous=last)
        # SQLite syncs its file, not the removal of its journal: without this a power failure could undo the commit.
        sync_folder(self._path.parent)
        self._events.append(event)
        self._reserved_here = event.sequence

    def _check(self, round: int, cohort: Sequence[int]) -> None:
        done = self._spent[-1].round
        if round != done + 1:
            raise PlanViolation(
                f"round {round} was asked for after round {done}: rounds are released in order"
            )
        if round > self._plan.rounds:
            raise PlanViolation(
                f"round {round} is outside the plan of {self._plan.rounds} rounds, and was refused; a longer run "
                "needs a new plan"
            )
        self._check_clients(cohort)
        recent = self._recent(round, self.trained)
        for client in cohort:
            cap = self._plan.record.cap_of(client)
            if self._participations[client] >= cap:
                raise PlanViolation(f"client {client} has used its {cap} planned participations")
            if client in recent:
                raise PlanViolation(
                    f"client {client} took part less than {self._plan.client.separation} rounds before round {round}"
                )

    def _check_clients(self, cohort: Sequence[int]) -> None:
        for client in cohort:
            if not 0 <= client < self._plan.clients:
                raise PlanViolation(
                    f"client {client} is not one of the {self._plan.clients} registered clients"
                )
        if len(set(cohort)) != len(cohort):
            raise PlanViolation("a client appears twice in the cohort of one round")

    def require_at_least(self, sequence: int, head: str) -> None:
        """Refuse a ledger older than, or different from, what the run record has seen.

        Raises:
            LedgerError: The event is missing or has another hash.
        """
        found = next((event for event in self._events if event.sequence == sequence), None)
        if found is None:
            raise LedgerError(
                f"the ledger ends at event {self.head.sequence}, the run record has seen event {sequence}: it was "
                "truncated, or is an older copy; restore the newer ledger"
            )
        if found.hash != head:
            raise LedgerError(
                f"event {sequence} of the ledger is not the one the run record has seen: it was edited or replaced"
            )

    def verify_events(self) -> None:
        """Check every event against the plan again, from the events alone.

        Raises:
            LedgerError: A round is out of order, outside the plan or beyond its budget, or a client is over its cap.
        """
        require_filter(self._plan, self._events[0])
        if is_adaptive(self._plan):
            filter_after(self._plan, self.trained)
        counts: Counter[int] = Counter()
        trained = self.trained
        for expected, event in enumerate(trained, start=1):
            counts.update(event.body["cohort"])
            if event.round != expected or event.round > self._plan.rounds:
                raise LedgerError(f"event {event.sequence} is for round {event.round}, outside the plan")
            if self._recent(event.round, trained) & set(event.body["cohort"]):
                raise LedgerError(
                    f"a client took part too often before round {event.round}: the plan keeps it apart"
                )
        for client, count in counts.items():
            if count > self._plan.record.cap_of(client):
                raise LedgerError(f"a client took part in {count} rounds, beyond its planned cap")
        evaluation = self._plan.evaluation
        for before, event in zip(self._events, self._events[1:], strict=False):
            if event.kind == CANCELLED:
                if event.body["of"] != before.sequence or before.kind in ("plan", CANCELLED):
                    raise LedgerError(f"event {event.sequence} cancels what is not the event before it")
                continue
            if event.kind != "round" and (evaluation is None or not evaluation.due(event.round)):
                raise LedgerError(f"event {event.sequence} is an evaluation that the plan does not have")

    def realised(self) -> dict[str, float | None]:
        """Epsilon of what was really reserved; never above the plan's."""
        rounds = self._spent[-1].round
        worst = max(self._participations.values(), default=0)
        return self._plan.spend(rounds, worst)

    def close(self) -> None:
        """Release the file."""
        self._database.close()
