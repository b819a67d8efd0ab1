"""Rounds of secure aggregation with clients under test, among stand-ins that are played here and send zeros.

The stand-ins keep to the protocol and hold shares of everybody's secrets, as neighbours do. So the sum of a round is
what the clients under test have put in, to the last unit of the grid, whatever they are made of.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from flwr.app import Context, Message
from numpy.typing import NDArray

from fedsafe.aggregation import DistributedMean
from fedsafe.aggregation.secure import SecureClient, SecureParameters, simulated_seed
from fedsafe.aggregation.secure.encoding import decode, encode
from fedsafe.aggregation.secure.messages import Confirmations, Masked
from fedsafe.engine.grid import SERVER_NODE, new_context
from fedsafe.errors import ConfigError, FedSafeError, SecureAggregationError
from fedsafe.extensions import one_line
from fedsafe.federation import ClientRuntime, SecureClients, SecureRounds, SimulatedKeys
from fedsafe.federation.messages import TRAIN, instruction_content, pack_parameters
from fedsafe.federation.secure_clients import secure_round
from fedsafe.federation.secure_messages import (
    StageReply,
    StageRequest,
    read_stage,
    read_stage_reply,
    stage_reply,
)
from fedsafe.federation.secure_rounds import SecureExchange
from fedsafe.params import Vector, input_digest
from fedsafe.privacy.mechanisms import DistributedMechanism, Grid
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import new_key
from fedsafe.runs.compose import Parts, aggregator_of
from fedsafe.runs.secure import secure_parameters
from fedsafe.verify.messages import NodesOnly
from fedsafe.verify.scripted import ScriptedCounts, ScriptedTrainer
from fedsafe.verify.server import LAYOUT, ClientReply

Answer = Callable[[Message, Context], Message]

# How many take part in a round here: what one client sends does not depend on how many others there are.
PARTY = 6
_DROPOUTS = 0.25


@dataclass(frozen=True, kw_only=True)
class Played:
    """What a round has shown.

    Args:
        total: ``(values,)`` the sum, around zero; None if there is none.
        said: For each stage, what each client under test has answered.
        error: Why there is no sum, or why the first client stopped.
    """

    total: Grid | None
    said: Mapping[str, Mapping[int, bytes]]
    error: str

    def masked(self, client: int, modulus: int) -> NDArray[np.uint64] | None:
        """``(values,)`` what a client sent in the place of its values, from 0; None if it sent none."""
        said = self.said.get("mask", {}).get(client)
        if said is None:
            return None
        words = "<u" + str(next(width for width in (1, 2, 4, 8) if 8 * width >= modulus))
        try:
            message = decode(said)[1]
        except SecureAggregationError:
            return None
        return np.frombuffer(message.values, words).astype(np.uint64) if isinstance(message, Masked) else None


@dataclass(kw_only=True)
class MaskedRounds:
    """Rounds of a plan.

    Args:
        mechanism: What a client does to its update.
        parameters: Of the sums.
        plan: Hash of the plan that clients agreed to.
        population: How many clients there are.
        key: Secret of the keys of all nodes.
        training: Gives clients under test their updates.
        answer: The clients under test.
        own_states: Whether they keep what they need between two messages, as real ones do.
    """

    mechanism: DistributedMechanism
    parameters: SecureParameters
    plan: str
    population: int
    key: bytes
    training: ScriptedTrainer
    answer: Answer
    own_states: bool = False
    _number: int = 0
    _grid: NodesOnly = field(init=False)

    def __post_init__(self) -> None:
        """Nodes to send to, and their keys."""
        self._grid = NodesOnly(clients=self.population)
        self.keys = SimulatedKeys(self.key, self.population)

    @classmethod
    def of_plan(cls, parts: Parts, plan: PrivacyPlan) -> "MaskedRounds | None":
        """Of FedSafe's own clients; None if they send their updates without masks."""
        rule = aggregator_of(parts, plan)
        if not parts.config.aggregation.secure or not isinstance(rule, DistributedMean):
            return None
        whole = secure_parameters(parts.config.aggregation, rule, LAYOUT.total)
        # Of so few clients no graph may be safe under the run's own numbers; no client's share depends on them.
        parameters = replace(whole, minimum=min(whole.minimum, PARTY - 2), corrupt=0, dropouts=_DROPOUTS)
        training, key = ScriptedTrainer(layout=LAYOUT), new_key()
        runtime = ClientRuntime(
            trainer=training, aggregator=rule, records=ScriptedCounts(training), key=key, plan=plan.hash
        )
        clients = SecureClients(runtime=runtime, parameters=parameters, key=key, clients=plan.clients)
        return cls(
            mechanism=rule.client,
            parameters=parameters,
            plan=plan.hash,
            population=plan.clients,
            key=key,
            training=training,
            answer=clients.answer,
        )

    def party(self, tested: Sequence[int], rng: np.random.Generator) -> list[int]:
        """As many clients as take part in a round here, those under test among them.

        Raises:
            ConfigError: There are too few clients.
        """
        others = [client for client in range(self.population) if client not in tested]
        wanted = max(PARTY, len(tested)) - len(tested)
        if len(others) < wanted:
            raise ConfigError(f"{self.population} clients are too few for rounds of {PARTY}")
        return sorted([*tested, *rng.permutation(others)[:wanted].tolist()])

    def next_round(self) -> int:
        """A round that nobody has been asked for."""
        self._number += 1
        return self._number

    def play(
        self,
        tested: Collection[int],
        party: Sequence[int],
        model: Vector,
        *,
        round: int,
        reply: ClientReply,
        lost: Mapping[str, Collection[int]] | None = None,
        forged: Callable[[str, bytes], bytes] | None = None,
    ) -> Played:
        """One round.

        Args:
            tested: Clients under test.
            party: All that take part.
            model: The broadcast model.
            round: Its number.
            reply: What training gives each client under test.
            lost: For a stage, who drops out before it.
            forged: What a lying server sends clients under test in the place of its message of a stage.
        """
        self.training.reply = reply
        stand_ins: dict[int, SecureClient] = {}
        said: dict[str, dict[int, bytes]] = {}

        def answered(message: Message) -> Message | None:
            client = message.metadata.dst_node_id - SERVER_NODE - 1
            request = read_stage(message)
            if request is None or client in (lost or {}).get(request.stage, ()):
                return None
            if client not in tested:
                return self._stand_in(client, request, stand_ins, message)
            if forged is not None:
                message.content.config_records["secure"]["said"] = forged(request.stage, request.said)
            return self._tested(message, client, request.stage, said)

        def send(messages: Sequence[Message]) -> Iterator[Message]:
            self._grid.push_messages(messages)
            return (reply for message in messages if (reply := answered(message)) is not None)

        inputs = input_digest(model, self.plan)
        exchange = SecureExchange(
            rounds=SecureRounds(parameters=self.parameters, pinned=self.keys, own_states=self.own_states),
            number=round,
            plan=self.plan,
            inputs=inputs,
            nodes={client: client + SERVER_NODE + 1 for client in party},
            content=instruction_content(pack_parameters(model, LAYOUT), round=round, plan=self.plan),
        )
        try:
            total = exchange.run(send).total
        except FedSafeError as error:
            return Played(total=None, said=said, error=exchange.error or str(error))
        return Played(total=total, said=said, error=exchange.error)

    def in_the_clear(self, client: int, model: Vector, reply: ClientReply) -> Message | None:
        """What a client answers to a server that asks for its update without masks; None if it refuses."""
        self.training.reply = reply
        content = instruction_content(pack_parameters(model, LAYOUT), round=self.next_round(), plan=self.plan)
        message = Message(content, dst_node_id=client + SERVER_NODE + 1, message_type=TRAIN)
        self._grid.push_messages([message])
        try:
            found: Message = self.answer(message, self._context(client))
        except Exception:  # however it refuses
            return None
        return None if found.has_error() else found

    def _tested(
        self, message: Message, client: int, stage: str, said: dict[str, dict[int, bytes]]
    ) -> Message | None:
        try:
            found = self.answer(message, self._context(client))
            reply = read_stage_reply(found)
        except Exception as error:  # the clients under test may raise anything: they are lost to the round
            return stage_reply(_nothing(one_line(error)), message)
        if reply is not None:
            for answer in reply.said.values():
                said.setdefault(stage, {})[client] = answer
        return found

    def _context(self, client: int) -> Context:
        return new_context(client + SERVER_NODE + 1, self.population, {}, {})

    def _stand_in(
        self, client: int, request: StageRequest, known: dict[int, SecureClient], message: Message
    ) -> Message:
        round = secure_round(request)
        if request.stage == "advertise":
            known[client] = SecureClient(
                client,
                signing_key=self.keys.signing(client),
                pinned=self.keys,
                parameters=self.parameters,
                round=round,
                values=lambda: np.zeros(self.parameters.values, np.int64),
                seed=simulated_seed(self.key, client, round.round, round.context(self.parameters)),
            )
        own = known[client]
        try:
            answer = own.handle(request.said) if request.said else own.advertise()
        except SecureAggregationError as error:
            return stage_reply(_nothing(str(error)), message)
        said = StageReply(said={client: answer}, states={client: b""}, failures=0, error="", cpu_seconds=0.0)
        return stage_reply(said, message)


def with_few_signatures(stage: str, said: bytes) -> bytes:
    """A lie: one signature, as if it were enough, in the place of those that most clients have given."""
    if stage != "reveal":
        return said
    header, message, _, _ = decode(said)
    signatures = cast("Confirmations", message).signatures
    return encode(header, Confirmations(signatures=signatures[:1]))


def _nothing(error: str) -> StageReply:
    return StageReply(said={}, states={}, failures=1, error=error, cpu_seconds=0.0)


def words_of(played: Iterable[Played], client: int, modulus: int) -> list[NDArray[np.uint64]]:
    """What a client sent in the place of its values in each round, where it did."""
    found = (each.masked(client, modulus) for each in played)
    return [words for words in found if words is not None]
