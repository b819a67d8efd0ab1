"""The server's side of a secure sum: it collects a stage, checks it, and hands out the next one.

It need not be trusted for anybody's privacy. What it checks, it checks for the sum: that a client which sends garbage
is left out of the round, or named.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, final

import numpy as np

from fedsafe.aggregation.secure.answers import blamed, require_masked, require_shares
from fedsafe.aggregation.secure.encoding import SERVER, Header, decode, encode
from fedsafe.aggregation.secure.graph import Graph
from fedsafe.aggregation.secure.identity import VerifyingKey, signed_by
from fedsafe.aggregation.secure.lists import (
    receipt_statement,
    roster_digest,
    sharing_digest,
    survivors_digest,
)
from fedsafe.aggregation.secure.masks import Residues, word_type
from fedsafe.aggregation.secure.messages import (
    Abort,
    Advertisement,
    Confirmation,
    Confirmations,
    Delivered,
    Deliveries,
    Entry,
    Masked,
    Message,
    Revealed,
    Roster,
    Shares,
    Survivors,
)
from fedsafe.aggregation.secure.parameters import RoundId, SecureParameters
from fedsafe.aggregation.secure.roster import require_client, require_header, require_keys
from fedsafe.aggregation.secure.unmasking import Received, unmasked
from fedsafe.errors import ConfigError, RoundAborted, SecureAggregationError
from fedsafe.privacy.mechanisms import Grid

Stage = Literal["advertise", "share", "mask", "confirm", "reveal", "done", "aborted"]

_ASKED: dict[Stage, type[Message]] = {
    "advertise": Advertisement,
    "share": Shares,
    "mask": Masked,
    "confirm": Confirmation,
    "reveal": Revealed,
}


@dataclass(frozen=True, kw_only=True)
class SecureSum:
    """What a round gives.

    Args:
        total: ``(values,)`` the sum modulo ``2^modulus``, around zero.
        clients: Whose values it is of, in ascending order.
        refused: ``(client, reason)`` of every message that was not taken, and of every share that did not fit; -1 where
            it is not certain who is at fault, or who sent it.
        named: Clients that are at fault for certain; see :attr:`SecureServer.named`.
        received: Bytes from clients, for each stage.
        sent: Bytes to clients, for each stage.
    """

    total: Grid
    clients: tuple[int, ...]
    refused: tuple[tuple[int, str], ...]
    named: tuple[int, ...]
    received: Mapping[str, int]
    sent: Mapping[str, int]


@dataclass(kw_only=True)
class _Heard:
    """What has come in."""

    adverts: dict[int, Entry] = field(default_factory=dict)
    shares: dict[int, Shares] = field(default_factory=dict)
    masked: dict[int, Masked] = field(default_factory=dict)  # without the values
    total: Residues | None = None  # of all masked values
    confirmed: dict[int, bytes] = field(default_factory=dict)
    revealed: dict[int, Revealed] = field(default_factory=dict)


@final
class SecureServer:
    """One round. Take what comes with :meth:`receive`; close the stage with :meth:`advance`; send what it gives.

    Args:
        pinned: The verifying keys of the clients that may take part.
        parameters: Of the run.
        round: Which round of which run.
    """

    def __init__(
        self, *, pinned: Mapping[int, VerifyingKey], parameters: SecureParameters, round: RoundId
    ) -> None:
        self._pinned, self._parameters = pinned, parameters
        self._context = round.context(parameters)
        self._header = Header(run=round.run_digest, round=round.round, context=self._context, sender=SERVER)
        self._stage: Stage = "advertise"
        self._heard = _Heard()
        self._graph: Graph | None = None
        self._keys: dict[bytes, int] = {}
        self._lists = b""  # digest of the last list that was closed, and so of all before
        self._sharing: tuple[int, ...] = ()
        self._survivors: tuple[int, ...] = ()
        self._total: Grid | None = None
        self._refused: list[tuple[int, str]] = []
        self._received: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._held: dict[int, list[int]] = {}
        self._named: set[int] = set()
        self._why = ""

    @property
    def stage(self) -> Stage:
        """What clients are asked for now; ``"done"`` or ``"aborted"`` at the end."""
        return self._stage

    @property
    def refused(self) -> tuple[tuple[int, str], ...]:
        """``(client, reason)`` of what was not taken so far; client -1 where it may be one of several."""
        return tuple(self._refused)

    @property
    def named(self) -> tuple[int, ...]:
        """Clients that are at fault for certain, and had better be left out of later rounds.

        One whose shares fit what it signed and give another secret than it had committed itself to; and one that more
        clients are at odds with than the round could tolerate, so that an honest one is among them.
        """
        return tuple(sorted(self._named))

    @property
    def waiting(self) -> tuple[int, ...]:
        """Clients that may still answer in this stage; empty in the first one, whose clients the caller has asked."""
        asked = {
            "share": self._heard.adverts.keys() - self._heard.shares.keys(),
            "mask": set(self._sharing) - self._heard.masked.keys(),
            "confirm": set(self._survivors) - self._heard.confirmed.keys(),
            "reveal": self._heard.confirmed.keys() - self._heard.revealed.keys(),
        }
        return tuple(sorted(asked.get(self._stage, ())))

    def receive(self, data: bytes, client: int | None = None) -> None:
        """Take the answer of a client, or refuse it and go on as if it had not come.

        Args:
            data: The message.
            client: Who sent it, where the transport knows.

        Raises:
            SecureAggregationError: It is refused: its form, signature, round, turn or content is wrong.
        """
        sender = -1 if client is None else client
        try:
            header, message, signature, body = decode(data)
            require_header(header, self._header)
            sender = header.sender
            if client is not None and client != sender:
                raise SecureAggregationError(f"client {client} sent a message in the name of client {sender}")
            require_client(sender, self._pinned)
            if not signed_by(self._pinned[sender], signature, body):
                raise SecureAggregationError(
                    f"{type(message).__name__} in the name of client {sender} is not signed by its key"
                )
            if not isinstance(message, _ASKED.get(self._stage, ())):
                raise SecureAggregationError(
                    f"client {sender} sent {type(message).__name__} out of turn: the round is at {self._stage!r}"
                )
            self._take(sender, message, signature)
        except SecureAggregationError as error:
            self._refused.append((sender, str(error)))
            raise
        self._received[self._stage] += len(data)

    def advance(self) -> dict[int, bytes]:
        """Close the stage: the next message for each client that goes on, or the reason why nobody does.

        Where too few are left, the round is aborted, :meth:`result` says why, and what is returned tells every client
        that advertised keys. After the last stage nothing is returned.
        """
        closing: dict[Stage, Callable[[], dict[int, Message]]] = {
            "advertise": self._close_roster,
            "share": self._close_sharing,
            "mask": self._close_masked,
            "confirm": self._close_confirmed,
            "reveal": self._close_revealed,
        }
        if self._stage not in closing:
            raise SecureAggregationError(f"the secure sum is {self._stage}: there is no stage to close")
        try:
            messages = closing[self._stage]()
        except (RoundAborted, ConfigError) as error:
            self._named.update(getattr(error, "named", ()))
            return self.abort(str(error))
        return self._encoded(messages)

    def abort(self, reason: str) -> dict[int, bytes]:
        """End the round without a sum: a message for every client that advertised keys.

        Args:
            reason: Why, for the clients and the log.
        """
        self._stage, self._why = "aborted", reason
        clients = tuple(self._heard.adverts)
        # What would have been unmasked is of no further use.
        self._heard = _Heard(adverts=self._heard.adverts)
        return self._encoded(dict.fromkeys(clients, Abort(reason=reason)))

    def result(self) -> SecureSum:
        """The sum.

        Raises:
            RoundAborted: There is none: too few clients were left.
            SecureAggregationError: The round is not over.
        """
        if self._stage == "aborted":
            raise RoundAborted(
                f"round {self._header.round} of secure aggregation has no sum, and nothing was unmasked: "
                f"{self._why}",
                named=self.named,
            )
        if self._total is None:
            raise SecureAggregationError(f"the secure sum is at {self._stage!r}: there is none yet")
        return SecureSum(
            total=self._total,
            clients=self._survivors,
            refused=tuple(self._refused),
            named=self.named,
            received=dict(self._received),
            sent=dict(self._sent),
        )

    def _take(self, client: int, message: Message, signature: bytes) -> None:
        if isinstance(message, Advertisement):
            self._require_first(client, self._heard.adverts)
            require_keys(client, message)
            keys = (message.exchange, message.mask, message.commitment)
            for other in (self._keys[key] for key in keys if key in self._keys):
                raise SecureAggregationError(
                    f"client {client} advertised a key of client {other}: one of them copied the other's"
                )
            self._keys.update(dict.fromkeys(keys, client))
            self._heard.adverts[client] = Entry(client=client, keys=message, signature=signature)
        elif isinstance(message, Shares):
            self._require_first(client, self._heard.shares)
            require_shares(client, message, self._numbers(), self._heard.adverts.keys())
            self._heard.shares[client] = message
        elif isinstance(message, Masked):
            self._require_first(client, self._heard.masked, self._sharing)
            require_masked(client, message, self._parameters, self._held[client])
            self._require_receipt(client, message)
            self._add(client, message)
        elif isinstance(message, Confirmation):
            self._require_first(client, self._heard.confirmed, self._survivors)
            if message.lists != self._lists:
                raise SecureAggregationError(
                    f"client {client} signed other lists than it was shown: it is not counted"
                )
            self._heard.confirmed[client] = signature
        elif isinstance(message, Revealed):
            self._require_first(client, self._heard.revealed, self._heard.confirmed)
            self._heard.revealed[client] = message

    def _add(self, client: int, masked: Masked) -> None:
        """To the sum of what arrived: nothing more is needed of the values of one client."""
        words = np.frombuffer(masked.values, dtype=word_type(self._parameters.modulus))
        total = self._heard.total
        self._heard.total = words.copy() if total is None else np.add(total, words, out=total)
        self._heard.masked[client] = replace(masked, values=b"")

    def _require_first(self, client: int, heard: Mapping[int, object], among: object = None) -> None:
        if client in heard:
            raise SecureAggregationError(
                f"client {client} answered {self._stage!r} twice: the first answer stays"
            )
        known = self._heard.adverts if among is None else among
        if self._stage != "advertise" and client not in known:  # type: ignore[operator]
            raise SecureAggregationError(
                f"client {client} answers {self._stage!r}, and was lost before: it is not asked any more"
            )

    def _require_receipt(self, client: int, masked: Masked) -> None:
        header = Header(run=self._header.run, round=self._header.round, context=self._context, sender=client)
        if not signed_by(self._pinned[client], masked.receipt, receipt_statement(header, self._lists)):
            raise SecureAggregationError(
                f"client {client} did not sign the lists that it was shown: its values are not taken"
            )

    def _close_roster(self) -> dict[int, Message]:
        clients = sorted(self._heard.adverts)
        self._require_enough(len(clients), max(self._parameters.minimum, 2), "advertised keys")
        self._graph = self._parameters.graph(len(clients))
        self._stage = "share"
        roster = Roster(entries=tuple(self._heard.adverts[client] for client in clients))
        self._lists = roster_digest(self._context, self._graph, roster.entries)
        self._heard.adverts = {entry.client: entry for entry in roster.entries}
        return dict.fromkeys(clients, roster)

    def _close_sharing(self) -> dict[int, Message]:
        self._require_enough(len(self._heard.shares), self._numbers().signatures, "dealt shares")
        self._sharing = tuple(sorted(self._heard.shares))
        self._lists = sharing_digest(self._lists, self._sharing)
        self._stage = "mask"
        sealed: dict[int, list[Delivered]] = {client: [] for client in self._sharing}
        for owner in self._sharing:
            for dealt in self._heard.shares[owner].dealt:
                if dealt.holder in sealed:
                    sealed[dealt.holder].append(dealt.delivered(owner))
        self._held = {client: [delivered.owner for delivered in found] for client, found in sealed.items()}
        return {
            client: Deliveries(sharing=self._sharing, sealed=tuple(found)) for client, found in sealed.items()
        }

    def _close_masked(self) -> dict[int, Message]:
        masked, numbers = self._heard.masked, self._numbers()
        self._require_enough(len(masked), numbers.signatures, "sent masked values")
        unreadable = {(owner, holder) for holder in masked for owner in masked[holder].unreadable}
        found = blamed(unreadable, numbers.tolerates)
        self._refused += found
        self._named.update(client for client, _ in found if client >= 0)
        self._survivors = tuple(sorted(masked))
        for owner in self._sharing:
            able = sum(
                sealed.holder in masked and (owner, sealed.holder) not in unreadable
                for sealed in self._heard.shares[owner].dealt
            )
            if able < numbers.threshold:
                raise RoundAborted(
                    f"{able} clients are left that say that they can read what client {owner} dealt, and "
                    f"{numbers.threshold} are needed: it or some of them sent garbage, or too many of its neighbours "
                    "dropped out"
                )
        self._lists = survivors_digest(self._lists, self._survivors)
        self._stage = "confirm"
        held = self._held
        return {
            client: Survivors(
                clients=self._survivors,
                receipts=tuple((owner, masked[owner].receipt) for owner in held[client] if owner in masked),
            )
            for client in self._survivors
        }

    def _close_confirmed(self) -> dict[int, Message]:
        confirmed, wanted = self._heard.confirmed, self._numbers().signatures
        self._require_enough(len(confirmed), wanted, "signed the list of survivors")
        self._stage = "reveal"
        # As many as are needed: more would cost every client more verifying.
        signatures = tuple(sorted(confirmed.items())[:wanted])
        return dict.fromkeys(sorted(confirmed), Confirmations(signatures=signatures))

    def _close_revealed(self) -> dict[int, Message]:
        total = self._heard.total
        if total is None:
            raise SecureAggregationError("the secure sum has no masked values")
        received = Received(
            entries=self._heard.adverts,
            shares=self._heard.shares,
            survivors=self._survivors,
            total=total,
            revealed=self._heard.revealed,
        )
        found, refused = unmasked(received, self._numbers(), self._parameters, self._context)
        self._refused += refused
        self._total, self._stage = found, "done"
        self._heard = _Heard(adverts=self._heard.adverts)
        return {}

    def _require_enough(self, found: int, needed: int, what: str) -> None:
        if found < needed:
            raise RoundAborted(
                f"{found} clients {what}, and {needed} are needed: let more clients take part, or plan for more "
                "dropouts or a smaller minimum"
            )

    def _numbers(self) -> Graph:
        if self._graph is None:
            raise SecureAggregationError("the roster of the secure sum is not closed yet")
        return self._graph

    def _encoded(self, messages: Mapping[int, Message]) -> dict[int, bytes]:
        made: dict[int, bytes] = {}
        known: dict[int, bytes] = {}  # one roster for all is written once
        for client, message in messages.items():
            if id(message) not in known:
                known[id(message)] = encode(self._header, message)
            made[client] = known[id(message)]
            self._sent[self._stage] += len(made[client])
        return made
