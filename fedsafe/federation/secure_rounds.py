"""The server's side of secure aggregation over a grid: five exchanges, and the sum that they show."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict

from fedsafe.aggregation.secure import (
    STAGES,
    RoundId,
    SecureParameters,
    SecureServer,
    SecureSum,
    VerifyingKey,
)
from fedsafe.errors import EngineError, RoundAborted, SecureAggregationError
from fedsafe.federation.messages import TRAIN
from fedsafe.federation.outcome import RoundCost
from fedsafe.federation.secure_messages import (
    ENDS,
    TRAINS,
    StageReply,
    StageRequest,
    read_stage_reply,
    with_stage,
)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SecureRounds:
    """What the server needs for the secure sums of a run.

    Args:
        parameters: Of the sums.
        pinned: The verifying keys of all clients.
        own_states: Whether clients keep their state themselves. Simulated ones, whose next message may reach another
            worker, have it sent back to them.
        run: Name of the run that clients draw their noise for; the plan's hash where one plan is one run.
        left_out: Clients that were at fault in an earlier round, for certain. They are not asked any more, and count as
            lost; it is known as long as this process lives.
    """

    parameters: SecureParameters
    pinned: Mapping[int, VerifyingKey]
    own_states: bool
    run: str = ""
    left_out: set[int] = field(default_factory=set)

    def round_id(self, round: int, plan: str, inputs: bytes) -> RoundId:
        """Which round of which run; the clients come to the same."""
        return RoundId(run=self.run or plan, round=round, plan=plan.encode() + inputs)


@dataclass(kw_only=True)
class SecureExchange:
    """One round of one cohort.

    Args:
        rounds: Of the run.
        number: The round, from 1.
        plan: Hash of the privacy plan.
        inputs: Digest of what the releases depend on besides records.
        nodes: Of each client of the cohort, where its messages go.
        content: What a client is sent when it trains.

    After the round it says besides its sum

    * ``cpu_seconds``: processor time of the clients;
    * ``error``: what the first client that failed has said, or nothing;
    * ``refused``: what was not taken, and who is left out from now on, in words: private.
    """

    rounds: SecureRounds
    number: int
    plan: str
    inputs: bytes
    nodes: Mapping[int, int]
    content: RecordDict
    cpu_seconds: float = 0.0
    error: str = ""
    roster: bytes = b""
    refused: tuple[str, ...] = ()
    _all_failed: bool = False
    _failures: int = 0

    def outcome(
        self, send: Callable[[Sequence[Message]], Iterable[Message]]
    ) -> tuple[SecureSum | None, RoundCost]:
        """Play the round, and say what it took; no sum where it was ended without one, which is logged."""
        asked = len(self.nodes)
        try:
            found = self.run(send)
        except RoundAborted as error:
            why = f"{error}" + (f"; the first client said: {self.error}" if self.error else "")
            _LOG.warning("round %d leaves the model as it is: %s", self.number, why)
            return None, RoundCost(self.cpu_seconds, asked, why, self.refused)
        return found, RoundCost(self.cpu_seconds, asked - len(found.clients), None, self.refused)

    def run(self, send: Callable[[Sequence[Message]], Iterable[Message]]) -> SecureSum:
        """Play the round.

        Args:
            send: Delivers messages, and gives the replies that come in time.

        Raises:
            RoundAborted: Too few clients were left. Nothing was unmasked, and those that were left were told.
            EngineError: Clients were asked to begin, or to train, and nothing but failures came.
        """
        # Who has no key takes no part: its client counts as lost.
        known = self.rounds.pinned
        out = self.rounds.left_out
        pinned = {client: known[client] for client in self.nodes if client in known and client not in out}
        server = SecureServer(
            pinned=pinned,
            parameters=self.rounds.parameters,
            round=self.rounds.round_id(self.number, self.plan, self.inputs),
        )
        try:
            self._play(server, dict.fromkeys(pinned, b""), send)
        finally:
            self._remember(server)
        try:
            return server.result()
        except RoundAborted as error:
            if self._all_failed:
                raise EngineError(
                    f"every client of round {self.number} failed; the first said: {self.error}"
                ) from error
            raise

    def _play(
        self,
        server: SecureServer,
        asked: Mapping[int, bytes],
        send: Callable[[Sequence[Message]], Iterable[Message]],
    ) -> None:
        states: dict[int, bytes] = {}
        for stage in STAGES:
            if stage == "share" and not self.rounds.own_states:
                self.roster = next(iter(asked.values()), b"")  # one for all
            taken, failed = 0, self._failures
            for reply in self._asked(stage, asked, states, send):
                taken += sum(self._take(server, client, said) for client, said in reply.said.items())
                if not self.rounds.own_states:
                    states |= reply.states
            # In the others clients refuse what does not fit, such as another cohort after a server was cut off.
            self._all_failed |= stage in (STAGES[0], TRAINS) and taken == 0 and self._failures > failed
            asked = server.advance()
            if server.stage == "aborted":
                for _ in self._asked(ENDS, asked, states, send):
                    pass
                break

    def _remember(self, server: SecureServer) -> None:
        """What the round has shown of clients that do not follow the protocol."""
        said = tuple(f"client {client}: {why}" if client >= 0 else why for client, why in server.refused)
        left = tuple(f"client {client} is left out of later rounds" for client in server.named)
        self.refused = (*said, *left)
        self.rounds.left_out.update(server.named)

    def _asked(
        self,
        stage: str,
        asked: Mapping[int, bytes],
        states: Mapping[int, bytes],
        send: Callable[[Sequence[Message]], Iterable[Message]],
    ) -> Iterable[StageReply]:
        content = self.content if stage == TRAINS else RecordDict()
        messages = [
            Message(
                with_stage(
                    content,
                    StageRequest(
                        stage=stage,
                        round=self.number,
                        plan=self.plan,
                        inputs=self.inputs,
                        said=said,
                        state=states.get(client, b""),
                        roster=self.roster,
                    ),
                ),
                dst_node_id=self.nodes[client],
                message_type=TRAIN,
                group_id=str(self.number),
            )
            for client, said in asked.items()
        ]
        for message in send(messages) if messages else ():
            if message.has_error():
                self._note(message.error.reason or "an error without a reason")
                continue
            try:
                reply = read_stage_reply(message)
            except EngineError as error:  # one client's nonsense is that client's failure
                self._note(str(error))
                continue
            if reply is not None:
                self._note(reply.error)
                self.cpu_seconds += reply.cpu_seconds
                yield reply

    def _take(self, server: SecureServer, client: int, said: bytes) -> bool:
        """One client's message, if it is taken: who it is from is what its signature says."""
        try:
            server.receive(said, client)
        except SecureAggregationError as error:
            self._note(str(error))
            return False
        return True

    def _note(self, error: str) -> None:
        self._failures += bool(error)
        self.error = self.error or error
