"""What a client has released of its own records, in every run it ever took part in: on its own disk, and its own.

An SQLite file with ``synchronous=FULL`` whose events are chained by a keyed hash (`fedsafe.privacy.chain`):
``opened``, ``agreement`` (a run, its plan and what it may cost), ``release`` (before anything is trained), ``reply``
(before anything is sent), ``again`` (one of an earlier period is asked for), ``confirmed`` (the list of survivors of a
secure sum, before it is signed for anybody), ``ended`` (a server says that a secure sum has, and why) and ``refusal``.
``audit.jsonl`` beside it repeats them for people, and witnesses its head.

Composition. Within a run, what is planned is fixed before its first release, and the planned epsilon is the privacy
loss distribution of the plan. A run is charged whole at its first release, however early it stops: when it stops may
depend on what it released, for which the figure of the rounds done is no bound. Over runs whose plans may follow from
what earlier ones released, epsilons and deltas add up (basic composition holds for adaptively chosen parameters that
never pass a fixed sum; Rogers et al., 2016, section 3).

Guarantees:
    ==========================================  ========================================================
    case                                        result
    ==========================================  ========================================================
    killed before ``release`` is on the disk    nothing was released, nothing is counted
    killed after it                             counted; the same inputs are the same release, once
    same run, kind and round, other inputs      refused
    another list of survivors for a round       refused
    a round or participation beyond the plan    refused, before anything is written
    a run that the budget does not pay for      refused at its first release, and at each later one that
                                                finds others in its period
    a clock that is set back                    time stands still until it has caught up
    an older or edited ledger                   detected, by the chain or by the head in ``audit.jsonl``
    ==========================================  ========================================================
"""

import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsafe.deploy.agreement import Agreement, agreement_of, plain
from fedsafe.deploy.ledger_file import new_ledger_file
from fedsafe.deploy.policy import RecordBudget
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.errors import LedgerError
from fedsafe.privacy.chain import (
    Event,
    Head,
    append,
    chained,
    damage_reported,
    existing,
    sync_folder,
)
from fedsafe.store.lines import append_lines, read_lines

LEDGER, AUDIT = "ledger.sqlite", "audit.jsonl"
_DAY = 86400.0
# Sums of planned epsilons are rounded up by less than this part, which no budget is written to.
_ROUNDING = 1.0 + 1e-12


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What counts at this moment.

    Args:
        epsilon: Sum of the planned epsilons of the runs that count.
        delta: Sum of their deltas.
        runs: These runs.
        ever: Sum of the planned epsilons of all runs that released anything, whenever.
    """

    epsilon: float
    delta: float
    runs: tuple[str, ...]
    ever: float


@dataclass
class _Release:
    digest: str
    reply: str | None = None


@dataclass
class _Run:
    agreement: Agreement
    releases: dict[tuple[str, int], _Release] = field(default_factory=dict)
    last: float | None = None
    confirmed: dict[int, str] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)


class ClientLedger:
    """Create or open it with :meth:`open`; one process at a time.

    Args:
        folder: The client's state.
        database: Of the ledger.
        clock: Seconds since 1970.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._folder, self._database, self._clock = folder, database, clock
        self._events: list[Event] = []
        self._runs: dict[str, _Run] = {}
        self._latest = 0.0
        for event in chained(database):
            self._take(event)
        if not self._events or self._events[0].kind != "opened":
            raise LedgerError(
                f"{folder / LEDGER} does not begin as a client's ledger: it was cut; restore it"
            )
        self._salt = str(self._events[0].body["salt"])
        self._check_releases()

    @classmethod
    def open(cls, folder: Path, client: str, *, clock: Callable[[], float] = time.time) -> "ClientLedger":
        """The ledger of a client's state, which is made where there is none.

        Args:
            folder: The client's state, which exists.
            client: Its name: a ledger belongs to one.
            clock: Seconds since 1970.

        Raises:
            LedgerError: It is damaged, edited or older than the audit file, belongs to another client, or is missing
                where something was released.
        """
        path = folder / LEDGER
        witnessed = read_lines(folder / AUDIT)
        if not path.exists():
            if witnessed:
                raise LedgerError(
                    f"{path} is missing, and {AUDIT} says that something happened: restore the ledger; a new one would "
                    "forget what was spent"
                )
            new_ledger_file(path, client)
        database = existing(path)
        try:
            ledger = cls(folder, database, clock)
            ledger._require(client, witnessed)
        except BaseException:
            database.close()
            raise
        return ledger

    @property
    def head(self) -> Head:
        """The newest event."""
        return Head(sequence=self._events[-1].sequence, hash=self._events[-1].hash)

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, oldest first."""
        return tuple(self._events)

    @property
    def runs(self) -> tuple[str, ...]:
        """Every run that was agreed to, oldest first."""
        return tuple(self._runs)

    def agreement(self, run: str) -> Agreement | None:
        """What was agreed to in a run."""
        found = self._runs.get(run)
        return None if found is None else found.agreement

    def released(self, run: str, kind: str = "train") -> tuple[int, ...]:
        """The rounds of a run that were released."""
        found = self._runs.get(run)
        return () if found is None else tuple(sorted(r for k, r in found.releases if k == kind))

    def answered(self, run: str) -> bool:
        """Whether something was released in a run, and each release has its reply."""
        found = self._runs.get(run)
        return found is not None and bool(found.releases) and all(r.reply for r in found.releases.values())

    def agree(self, agreement: Agreement) -> None:
        """Write down a run's plan and inputs; nothing is spent by it.

        Raises:
            Refused: Another plan or experiment was agreed to in this run, or other records or another key.
        """
        known = self.agreement(agreement.run)
        if known is None:
            self._write("agreement", 0, agreement.run, plain(agreement))
            return
        if (known.plan.hash, known.experiment) != (agreement.plan.hash, agreement.experiment):
            raise Refused(
                Refusal.EXPERIMENT_NOT_ALLOWED,
                f"another experiment was agreed to in run {agreement.run[:12]}: the same round of both would meet the "
                "same noise",
            )
        if (known.data, known.key) != (agreement.data, agreement.key):
            raise Refused(
                Refusal.DATA_NOT_AS_AGREED,
                f"the records or the noise key are not those that run {agreement.run[:12]} began with",
            )

    def require_paid(self, agreement: Agreement, budget: RecordBudget) -> None:
        """Refuse a run that does not fit into what the others of the period leave.

        Raises:
            Refused: With what is spent, and what the run would cost.
        """
        spent = self.spent(budget, but=agreement.run)
        epsilon, delta = spent.epsilon + agreement.epsilon, spent.delta + agreement.delta
        if not epsilon <= budget.epsilon * _ROUNDING or not delta <= budget.delta * _ROUNDING:
            raise Refused(
                Refusal.BUDGET_SPENT,
                f"epsilon {spent.epsilon:.6g} at delta {spent.delta:g} is spent in {budget.period_days:g} days, and "
                f"the run would cost {agreement.epsilon:.6g} at {agreement.delta:g}: more than {budget.epsilon:g} at "
                f"{budget.delta:g}",
            )

    def spent(self, budget: RecordBudget, *, but: str | None = None) -> Spent:
        """What runs have spent that released something in the period that ends now.

        Args:
            budget: Says how long a period is.
            but: A run that is left out.
        """
        begin = self._now() - budget.period_days * _DAY
        ever = {name: run for name, run in self._runs.items() if run.last is not None and name != but}
        counted = {name: run for name, run in ever.items() if run.last is not None and run.last > begin}
        return Spent(
            epsilon=sum(run.agreement.epsilon for run in counted.values()),
            delta=sum(run.agreement.delta for run in counted.values()),
            runs=tuple(counted),
            ever=sum(run.agreement.epsilon for run in ever.values()),
        )

    def release(
        self, run: str, kind: str, round: int, digest: bytes, *, most: int, apart: int, budget: RecordBudget
    ) -> str | None:
        """Write down a release before it is made. The same one again is a repetition, and counts once.

        Args:
            run: One that was agreed to.
            kind: ``"train"`` or ``"evaluate"``.
            round: From 1.
            digest: Of everything that the release depends on besides records and key.
            most: Releases of this kind that the plan allows; 0 where it has none in this round.
            apart: The least distance of two rounds that it allows.
            budget: What all runs of a period may spend.

        Returns:
            SHA-256 of the reply that was made of it, in hexadecimal; None where none was made yet.

        Raises:
            Refused: The round was released with other inputs, the plan allows no more, or the budget does not pay.
        """
        found = self._runs[run]
        known = found.releases.get((kind, round))
        if known is not None:
            if known.digest != digest.hex():
                raise Refused(
                    Refusal.ROUND_ALREADY_RELEASED,
                    f"round {round} was released with other inputs: a second answer under one noise would reveal their "
                    "difference",
                )
            if run not in self.spent(budget).runs:
                # Nobody knows whether its reply ever arrived: it may be news in this period.
                self.require_paid(found.agreement, budget)
                self._write("again", round, run, {"kind": kind})
            return known.reply
        rounds = self.released(run, kind)
        if len(rounds) >= most:
            raise Refused(
                Refusal.OUTSIDE_PLAN, f"{kind} {round}: the plan has {most} of them, {len(rounds)} done"
            )
        if any(abs(round - other) < apart for other in rounds):
            raise Refused(
                Refusal.OUTSIDE_PLAN, f"{kind} {round}: at most one in {apart} rounds, {rounds} are done"
            )
        self.require_paid(found.agreement, budget)
        self._write("release", round, run, {"kind": kind, "digest": digest.hex()})
        return None

    def replied(self, run: str, kind: str, round: int, sha256: str) -> None:
        """Write down the reply of a release, before it is sent; its bytes are on the disk already."""
        self._write("reply", round, run, {"kind": kind, "sha256": sha256})

    def confirmed(self, run: str, round: int, lists: str) -> None:
        """Write down which list of survivors is signed in a round, before the signature is sent.

        Args:
            run: One that was agreed to.
            round: Of it.
            lists: Digest of the lists, in hexadecimal.

        Raises:
            Refused: Another one was signed.
        """
        known = self._runs[run].confirmed.get(round)
        if known is None:
            self._write("confirmed", round, run, {"lists": lists})
        elif known != lists:
            raise Refused(
                Refusal.ROUND_ALREADY_RELEASED,
                f"another list of survivors of round {round} was signed: with two, one client's values could be told "
                "from the others'",
            )

    def ended(self, run: str, round: int, reason: str) -> None:
        """Write down, once, that the server says that a round has ended without a sum, and why."""
        if round not in self._runs[run].ended:
            self._write("ended", round, run, {"reason": reason[:2000]})

    def refuse(self, reason: Refusal, detail: str, run: str = "") -> None:
        """Write down that nothing was answered, and why."""
        self._write("refusal", 0, run, {"reason": reason.value, "detail": detail[:2000]})

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def _now(self) -> float:
        """A clock that never goes back: what was spent cannot become older than it is by setting the clock."""
        return max(self._clock(), self._latest)

    def _write(self, kind: str, round: int, run: str, body: Mapping[str, Any]) -> None:
        content = {"run": run, "time": self._now(), **body}
        with damage_reported(), self._database:
            if kind == "release":
                values = (run, body["kind"], round, body["digest"])
                self._database.execute("INSERT INTO release VALUES (?, ?, ?, ?)", values)
            last = self._events[-1]
            event = append(self._database, self._salt, kind=kind, round=round, body=content, previous=last)
        # SQLite syncs its file, not the removal of its journal: without this a power failure could undo the commit.
        sync_folder(self._folder)
        self._take(event)
        shown = {name: value for name, value in content.items() if name not in ("plan", "key", "data")}
        line = {"sequence": event.sequence, "head": event.hash, "event": kind, "round": round, **shown}
        append_lines(self._folder / AUDIT, [line])

    def _take(self, event: Event) -> None:
        self._events.append(event)
        with damage_reported():
            if event.kind == "opened":
                return
            self._latest = max(self._latest, float(event.body["time"]))
            if event.kind == "agreement":
                self._runs[event.body["run"]] = _Run(agreement_of(event.body))
            elif event.kind == "confirmed":
                self._runs[event.body["run"]].confirmed[event.round] = event.body["lists"]
            elif event.kind == "ended":
                self._runs[event.body["run"]].ended.add(event.round)
            elif event.kind in ("release", "reply", "again"):
                run = self._runs[event.body["run"]]
                place = (event.body["kind"], event.round)
                run.last = max(run.last or 0.0, float(event.body["time"]))
                if event.kind == "release":
                    run.releases[place] = _Release(digest=event.body["digest"])
                elif event.kind == "reply":
                    run.releases[place].reply = event.body["sha256"]

    def _check_releases(self) -> None:
        with damage_reported():
            rows = self._database.execute("SELECT run, kind, round, digest FROM release").fetchall()
        held = {
            (name, kind, round, release.digest)
            for name, run in self._runs.items()
            for (kind, round), release in run.releases.items()
        }
        if held != set(rows):
            raise LedgerError(
                f"{self._folder / LEDGER} has releases without events, or the reverse: it was edited"
            )

    def _require(self, client: str, witnessed: list[dict[str, Any]]) -> None:
        own = self._events[0].body["client"]
        if own != client:
            raise LedgerError(f"{self._folder / LEDGER} is the ledger of {own!r}, not of {client!r}")
        for line in witnessed[-1:]:
            sequence = int(line["sequence"])
            if sequence >= len(self._events) or self._events[sequence].hash != line["head"]:
                raise LedgerError(
                    f"{self._folder / LEDGER} is older than {AUDIT}, or another one: it would forget what was spent; "
                    "restore the newest copy"
                )
