"""The client's side of a secure sum: five answers, each given once, each after everything it rests on was checked.

Source: Bonawitz et al. (2017), figure 4, with the graph of :mod:`fedsafe.aggregation.secure.graph`.
"""

from collections.abc import Callable, Mapping
from typing import Self, final

import numpy as np

from fedsafe.aggregation.secure.client_state import ClientState, Dealt, Stage
from fedsafe.aggregation.secure.dealing import deal_to, neighbours_of, open_share
from fedsafe.aggregation.secure.encoding import SERVER, Header, decode, encode, statement
from fedsafe.aggregation.secure.graph import Graph
from fedsafe.aggregation.secure.identity import SigningKey, VerifyingKey, sign, signed_by
from fedsafe.aggregation.secure.keys import SEED_BYTES, RoundSecrets, commitment, mask_key, public_bytes
from fedsafe.aggregation.secure.lists import (
    receipt_statement,
    roster_digest,
    sharing_digest,
    survivors_digest,
)
from fedsafe.aggregation.secure.masks import add_mask, to_residues, trimmed
from fedsafe.aggregation.secure.messages import (
    Abort,
    Advertisement,
    Confirmation,
    Confirmations,
    Deliveries,
    Entry,
    Masked,
    Message,
    Revealed,
    Roster,
    Survivors,
)
from fedsafe.aggregation.secure.parameters import RoundId, SecureParameters
from fedsafe.aggregation.secure.roster import require_client, require_header, require_roster
from fedsafe.errors import ConfigError, FedSafeError, RoundAborted, SecureAggregationError
from fedsafe.privacy.mechanisms import Grid


@final
class SecureClient:
    """One client in one round.

    It answers each stage once. A message that comes out of turn, or is of another round, is refused and changes
    nothing. Whatever is wrong with one that comes in turn ends the round for it: its secrets are dropped.

    Args:
        client: Its number.
        signing_key: Of its node.
        pinned: The verifying keys of all clients, itself included, as it has known them since before the run.
        parameters: Of the run.
        round: Which round of which run; a client takes part once in each.
        values: Gives ``(values,)`` whole numbers, modulo ``2^modulus``, with its share of the noise; called once.
        seed: 32 secret bytes that are used for nothing else, ever: from the operating system, or, where a simulation is
            to be repeated, from a stream of the noise key.

    Guarantees:
        * What leaves a client is masked, but for shares of its neighbours' secrets.
        * Of one neighbour, it gives away a share of the own mask or of the masks with others, never both.
        * Before it gives any, more than half of all clients, the corrupt ones not counted, and at least the minimum,
          have signed the same lists as it has; and each neighbour that is unmasked was masked under these lists, with
          enough survivors of its own choice.
    """

    def __init__(
        self,
        client: int,
        *,
        signing_key: SigningKey,
        pinned: Mapping[int, VerifyingKey],
        parameters: SecureParameters,
        round: RoundId,
        values: Callable[[], Grid],
        seed: bytes,
    ) -> None:
        if len(seed) != SEED_BYTES:
            raise ConfigError(f"the seed of a secure sum has {SEED_BYTES} bytes, not {len(seed)}")
        require_client(client, pinned)
        self._client, self._key, self._pinned = client, signing_key, pinned
        self._parameters, self._values = parameters, values
        self._context = round.context(parameters)
        self._header = Header(run=round.run_digest, round=round.round, context=self._context, sender=client)
        self._state = ClientState(seed=seed)

    @classmethod
    def restore(
        cls,
        state: bytes,
        client: int,
        *,
        signing_key: SigningKey,
        pinned: Mapping[int, VerifyingKey],
        parameters: SecureParameters,
        round: RoundId,
        values: Callable[[], Grid],
        roster: bytes = b"",
    ) -> Self:
        """The client as it was when it gave this state, in another process.

        Args:
            state: What it gave.
            client: See above, as all that follow.
            signing_key: Its own.
            pinned: Of all.
            parameters: Of the run.
            round: Which round.
            values: To be masked.
            roster: The server's message that the client was asked to share with; of a state without its roster.

        Raises:
            SecureAggregationError: It is no state of this client and round.
        """
        made = cls(
            client,
            signing_key=signing_key,
            pinned=pinned,
            parameters=parameters,
            round=round,
            values=values,
            seed=bytes(SEED_BYTES),
        )
        given = decode(roster)[1] if roster else None
        entries = given.entries if isinstance(given, Roster) else ()
        made._state = ClientState.decode(state, made._owner(), entries)
        return made

    def state(self, *, roster: bool = True) -> bytes:
        """What this client must keep between two messages: secret, and of no use once the round is over.

        Args:
            roster: Whether the roster is in it. Who plays many clients keeps it once for all of them.
        """
        return self._state.encode(self._owner(), roster=roster)

    @property
    def finished(self) -> bool:
        """Whether nothing more is answered, since all was or since something was refused."""
        return self._state.stage == "over"

    def advertise(self) -> bytes:
        """Stage 0: two public keys, and a commitment to the own mask.

        Raises:
            SecureAggregationError: It has advertised before.
        """
        self._expect("advertise")
        self._state.stage = "share"
        return encode(self._header, self._own_keys(), self._key)

    def handle(self, data: bytes) -> bytes:
        """The answer to the server's next message.

        Raises:
            RoundAborted: The server says that the round has ended and that nothing was unmasked.
            SecureAggregationError: The message breaks the protocol, or comes out of turn.
        """
        message = self._read(data)
        stage, answer = self._answers(message)
        self._expect(stage)
        try:
            return answer()
        except BaseException:
            # Also where training failed: what was begun is not begun again.
            self._state = ClientState(stage="over")
            raise

    def _answers(self, message: Message) -> tuple[Stage, Callable[[], bytes]]:
        if isinstance(message, Roster):
            return "share", lambda: self._share(message)
        if isinstance(message, Deliveries):
            return "mask", lambda: self._mask(message)
        if isinstance(message, Survivors):
            return "confirm", lambda: self._confirm(message)
        if isinstance(message, Confirmations):
            return "reveal", lambda: self._reveal(message)
        raise SecureAggregationError(
            f"client {self._client} was sent {type(message).__name__}, which only clients send"
        )

    def _read(self, data: bytes) -> Message:
        header, message, _, _ = decode(data)
        require_header(header, self._header)
        if header.sender != SERVER:
            raise SecureAggregationError(
                f"a message of client {header.sender} was sent to client {self._client}"
            )
        if isinstance(message, Abort):
            self._state = ClientState(stage="over")
            raise RoundAborted(
                f"the server says that it has ended round {header.round} of secure aggregation, that nothing was "
                f"unmasked, and why: {message.reason}"
            )
        return message

    def _expect(self, stage: Stage) -> None:
        if self._state.stage != stage:
            now = (
                "is over for it"
                if self.finished
                else f"has it wait for what comes before {self._state.stage!r}"
            )
            raise SecureAggregationError(
                f"client {self._client} was asked to {stage}, and round {self._header.round} {now}: each stage is "
                "answered once, in order"
            )

    def _own_keys(self) -> Advertisement:
        secrets = self._secrets()
        return Advertisement(
            exchange=public_bytes(secrets.exchange),
            mask=public_bytes(secrets.mask),
            commitment=commitment(secrets.self_mask, self._context, self._client),
        )

    def _share(self, roster: Roster) -> bytes:
        """Stage 1: check the roster, choose neighbours, deal them shares of both secrets."""
        require_roster(roster, self._pinned)
        entries = {entry.client: entry for entry in roster.entries}
        own = entries.get(self._client)
        if own is None or own.keys != self._own_keys():
            raise SecureAggregationError(
                f"the roster has {'not the' if own else 'no'} keys that client {self._client} advertised"
            )
        graph = self._graph(len(entries))
        chosen = neighbours_of(self._client, list(entries), graph, self._secrets())
        for client in chosen:
            self._verify_entry(entries[client])
        state = self._state
        state.roster, state.chosen, state.stage = roster.entries, chosen, "mask"
        state.lists = roster_digest(self._context, graph, roster.entries)
        dealt = deal_to(self._client, chosen, entries, graph, self._secrets(), self._context)
        return encode(self._header, dealt, self._key)

    def _mask(self, deliveries: Deliveries) -> bytes:
        """Stage 2: read what was dealt, and mask with everybody that chose this client or that it chose."""
        state, entries = self._state, {entry.client: entry for entry in self._state.roster}
        graph, sharing = self._graph(len(entries)), set(deliveries.sharing)
        self._require_part(sharing, set(entries), "dealt shares", "are on the roster", graph)
        unreadable: list[int] = []
        for delivered in deliveries.sealed:
            owner = delivered.owner
            if owner == self._client or owner not in sharing:
                raise SecureAggregationError(f"the server delivers shares of client {owner}, who dealt none")
            self._verify_entry(entries[owner])
            dealt = open_share(delivered, self._client, entries, graph, self._secrets(), self._context)
            if dealt is None:
                unreadable.append(owner)
            else:
                state.dealt[owner] = dealt
        state.lists = sharing_digest(state.lists, deliveries.sharing)
        peers = (set(state.chosen) & sharing) | {delivered.owner for delivered in deliveries.sealed}
        state.sharing, state.stage = deliveries.sharing, "confirm"
        masked = Masked(
            receipt=sign(self._key, receipt_statement(self._header, state.lists)),
            unreadable=tuple(unreadable),
            values=self._masked(sorted(peers), entries),
        )
        return encode(self._header, masked, self._key)

    def _masked(self, peers: list[int], entries: Mapping[int, Entry]) -> bytes:
        given, wanted = self._values(), (self._parameters.values,)
        if given.dtype != np.int64 or given.shape != wanted:
            raise SecureAggregationError(
                f"client {self._client} has values of shape {given.shape} and type {given.dtype} to mask, and the "
                f"round sums int64 values of shape {wanted}"
            )
        values, secrets = to_residues(given, self._parameters.modulus), self._secrets()
        add_mask(values, secrets.self_mask, 1)
        for peer in peers:
            first, second = min(self._client, peer), max(self._client, peer)
            key = mask_key(secrets.mask, entries[peer].keys.mask, self._context, first, second)
            add_mask(values, key, 1 if self._client == first else -1)
        return trimmed(values, self._parameters.modulus).tobytes()

    def _confirm(self, survivors: Survivors) -> bytes:
        """Stage 3: sign the only list of survivors that this client will ever help with."""
        state, clients = self._state, set(survivors.clients)
        graph = self._graph(len(state.roster))
        self._require_part(clients, set(state.sharing), "survived", "dealt shares", graph)
        receipts = dict(survivors.receipts)
        for owner, dealt in state.dealt.items():
            if owner in clients:
                self._require_safe(owner, dealt, clients, receipts.get(owner, b""), graph)
        state.survivors, state.stage = survivors.clients, "reveal"
        state.lists = survivors_digest(state.lists, survivors.clients)
        return encode(self._header, Confirmation(lists=state.lists), self._key)

    def _require_safe(
        self, owner: int, dealt: Dealt, survivors: set[int], receipt: bytes, graph: Graph
    ) -> None:
        """That a neighbour whose own mask will be taken away is hidden by others, under the lists seen here."""
        masked_under = receipt_statement(self._header_of(owner), self._state.lists)
        if not signed_by(self._key_of(owner), receipt, masked_under):
            raise SecureAggregationError(
                f"client {owner} has not signed that it masked under the lists that client {self._client} was shown: "
                "the server tells clients different things, or forwards no signature"
            )
        if len(survivors.intersection(dealt.neighbours)) < graph.threshold:
            raise SecureAggregationError(
                f"of the neighbours of client {owner}, fewer than {graph.threshold} survived: its values are not "
                "unmasked"
            )

    def _reveal(self, confirmations: Confirmations) -> bytes:
        """Stage 4: check that enough others signed the same lists, and give away one share of each neighbour."""
        state, survivors = self._state, set(self._state.survivors)
        graph = self._graph(len(state.roster))
        agreed = Confirmation(lists=state.lists)
        for client, signature in confirmations.signatures:
            if client not in survivors:
                raise SecureAggregationError(f"client {client} confirms a round that it has not survived")
            signed = statement(self._header_of(client), agreed)
            if not signed_by(self._key_of(client), signature, signed):
                raise SecureAggregationError(
                    f"client {client} has not signed the lists that client {self._client} was shown: the server tells "
                    "clients different things about who dropped out"
                )
        if len(confirmations.signatures) < graph.signatures:
            raise SecureAggregationError(
                f"{len(confirmations.signatures)} clients have signed the list of survivors, and nothing is unmasked "
                f"below {graph.signatures}"
            )
        helps = sorted(state.dealt.items())
        revealed = Revealed(
            own=tuple((owner, dealt.of_own) for owner, dealt in helps if owner in survivors),
            masks=tuple((owner, dealt.of_masks) for owner, dealt in helps if owner not in survivors),
        )
        self._state = ClientState(stage="over")
        return encode(self._header, revealed, self._key)

    def _require_part(self, part: set[int], whole: set[int], what: str, of_what: str, graph: Graph) -> None:
        """That a list is of known clients, has this one in it, and enough of all and of its own choice."""
        if not part <= whole:
            raise SecureAggregationError(
                f"client {min(part - whole)} is said to have {what}, and is not among those that {of_what}"
            )
        if self._client not in part:
            raise SecureAggregationError(
                f"client {self._client} is not among those that {what}: it is left out of this round"
            )
        near = len(part.intersection(self._state.chosen))
        for number, needed, whose in (
            (len(part), graph.signatures, "clients"),
            (near, graph.threshold, f"neighbours of client {self._client}"),
        ):
            if number < needed:
                raise SecureAggregationError(
                    f"{number} {whose} {what}, and nothing is unmasked below {needed}: the round is over for it"
                )

    def _verify_entry(self, entry: Entry) -> None:
        if not signed_by(
            self._key_of(entry.client), entry.signature, statement(self._header_of(entry.client), entry.keys)
        ):
            raise SecureAggregationError(
                f"the keys of client {entry.client} on the roster are not signed by the key that client "
                f"{self._client} has pinned for it, for this round"
            )

    def _key_of(self, client: int) -> VerifyingKey:
        require_client(client, self._pinned)  # a key may have been taken back since the round began
        return self._pinned[client]

    def _graph(self, clients: int) -> Graph:
        try:
            return self._parameters.graph(clients)
        except FedSafeError as error:
            raise SecureAggregationError(str(error)) from None

    def _header_of(self, client: int) -> Header:
        return Header(run=self._header.run, round=self._header.round, context=self._context, sender=client)

    def _secrets(self) -> RoundSecrets:
        return RoundSecrets(self._state.seed, self._context)

    def _owner(self) -> bytes:
        return self._context + self._client.to_bytes(4, "big")
