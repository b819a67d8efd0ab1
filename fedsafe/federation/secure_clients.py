"""The clients of a simulation under secure aggregation: they train as ever, and mask what they would have sent.

A worker holds the key of the whole simulation, and with it every client's secrets: it plays all of them. What it sends
to the server is what real clients would send, byte for byte. A real client is ``fedsafe.deploy.secure``.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from flwr.app import Context, Message

from fedsafe.aggregation import DistributedMean
from fedsafe.aggregation.secure import (
    RoundId,
    SecureClient,
    SecureParameters,
    VerifyingKey,
    require_stage,
    simulated_identities,
    simulated_seed,
)
from fedsafe.errors import ConfigError, EngineError, PlanViolation, SecureAggregationError
from fedsafe.extensions import one_line
from fedsafe.federation.client_app import ClientRuntime
from fedsafe.federation.messages import TRAIN, read_instruction
from fedsafe.federation.secure_messages import (
    ENDS,
    TRAINS,
    StageReply,
    StageRequest,
    read_stage,
    stage_reply,
)
from fedsafe.params import input_digest
from fedsafe.privacy.mechanisms import Grid

# Clients of a chunk that train together: what each sends is in memory at once.
_TOGETHER = 64


# Signatures that one key of a simulation remembers: those of a round or two.
_REMEMBERED = 64


class RememberingKey(Ed25519PublicKey):
    """A verifying key that looks at no good signature twice.

    A worker plays many clients, and each is shown the signatures that the others are shown.

    Args:
        key: What verifies.
    """

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self._good: set[bytes] = set()

    def verify(self, signature: Any, data: Any) -> None:
        """See there; a bad signature is never remembered."""
        seen = hashlib.sha256(len(signature).to_bytes(8, "big") + signature + data).digest()
        if seen in self._good:
            return
        self._key.verify(signature, data)
        if len(self._good) >= _REMEMBERED:
            self._good.clear()
        self._good.add(seen)

    def public_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PublicFormat,  # noqa: A002 - as in the base
    ) -> bytes:
        """The key in some encoding."""
        return self._key.public_bytes(encoding, format)

    def public_bytes_raw(self) -> bytes:
        """32 bytes."""
        return self._key.public_bytes_raw()

    def __eq__(self, other: object) -> bool:
        """Of the same key, whatever was remembered."""
        return self._key == (other._key if isinstance(other, RememberingKey) else other)

    def __copy__(self) -> "RememberingKey":
        """Itself: a key does not change."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "RememberingKey":
        """Itself."""
        return self


class SimulatedKeys(Mapping[int, VerifyingKey]):
    """The public keys of simulated nodes, each made when it is asked for.

    Args:
        key: Secret of the simulation.
        clients: How many there are.
    """

    def __init__(self, key: bytes, clients: int) -> None:
        self._key, self._clients = key, clients
        self._signing = lru_cache(maxsize=1 << 14)(self._made)
        self._verifying = lru_cache(maxsize=1 << 14)(
            lambda of: RememberingKey(self._signing(of).public_key())
        )

    def signing(self, client: int) -> Ed25519PrivateKey:
        """The private key of a node."""
        return self._signing(client)

    def __getitem__(self, client: int) -> VerifyingKey:
        if client not in self:
            raise KeyError(client)
        return self._verifying(client)

    def __contains__(self, client: object) -> bool:
        return isinstance(client, int) and 0 <= client < self._clients

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._clients))

    def __len__(self) -> int:
        return self._clients

    def _made(self, client: int) -> Ed25519PrivateKey:
        made = simulated_identities(self._key, [client]).signing[client]
        if not isinstance(made, Ed25519PrivateKey):
            raise EngineError("a simulated node has a key of another kind")
        return made


@dataclass(frozen=True, kw_only=True)
class SecureClients:
    """Clients that a worker plays; a drop-in for :class:`fedsafe.federation.ClientRuntime`.

    Args:
        runtime: Trains and evaluates.
        parameters: Of the secure sums.
        key: Secret of the simulation.
        clients: How many there are.

    Guarantees:
        An update never leaves in the clear: a message that asks for one is refused.
    """

    runtime: ClientRuntime
    parameters: SecureParameters
    key: bytes = field(repr=False)
    clients: int
    _keys: SimulatedKeys = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.runtime.aggregator, DistributedMean):
            raise ConfigError(
                f"aggregation.secure = true needs clients that add noise together, and {self.runtime.aggregator.name} "
                "has none: use distributed_mean"
            )
        object.__setattr__(self, "_keys", SimulatedKeys(self.key, self.clients))

    def answer(self, message: Message, context: Context) -> Message:
        """One client's part of one stage; an evaluation as without secure aggregation."""
        if message.metadata.message_type != TRAIN:
            return self.runtime.answer(message, context)
        return self.answer_chunk([message], [context])

    def answer_chunk(self, messages: Sequence[Message], contexts: Sequence[Context]) -> Message:
        """Many clients' parts of one stage."""
        if messages[0].metadata.message_type != TRAIN:
            return self.runtime.answer_chunk(messages, contexts)
        started = time.process_time()
        requests: dict[int, StageRequest] = {}
        for message, context in zip(messages, contexts, strict=True):
            request = read_stage(message)
            if request is None:
                raise PlanViolation(
                    "the server asks for an update in the clear, and this run sums updates behind masks"
                )
            requests[int(context.node_config["partition-id"])] = request
        values: Callable[[int], Grid] = _none
        if any(request.stage == TRAINS for request in requests.values()):
            values = _Trained(self.runtime, dict(zip(requests, messages, strict=True)), contexts).__getitem__
        reply = self._answered(requests, values)
        return stage_reply(
            StageReply(
                said=reply.said,
                states=reply.states,
                failures=reply.failures,
                error=reply.error,
                cpu_seconds=time.process_time() - started,
            ),
            messages[0],
        )

    def _answered(self, requests: Mapping[int, StageRequest], values: Callable[[int], Grid]) -> StageReply:
        said, states, first = {}, {}, ""
        for client, request in requests.items():
            try:
                answer = self._stage(client, request, values)
            except Exception as error:
                first = first or one_line(error)
                continue
            if answer is not None:
                said[client], states[client] = answer
        ended = request.stage == ENDS
        failures = 0 if ended else len(requests) - len(said)
        return StageReply(said=said, states=states, failures=failures, error=first, cpu_seconds=0.0)

    def _stage(
        self, client: int, request: StageRequest, values: Callable[[int], Grid]
    ) -> tuple[bytes, bytes] | None:
        """What the client says, and keeps; None where it was told that the round has ended."""
        if request.plan != self.runtime.plan:
            raise PlanViolation(
                f"the server follows plan {request.plan[:12]}, this client agreed to {self.runtime.plan[:12]}"
            )
        require_stage(request.stage, request.said)
        # Nothing is trained, whatever the protocol would take, at a stage that is not called the one for it.
        given = values if request.stage == TRAINS else _none
        own = self._own(client, request, lambda: given(client))
        if request.stage == "advertise":
            return own.advertise(), own.state(roster=False)
        try:
            return own.handle(request.said), own.state(roster=False)
        except SecureAggregationError:
            if request.stage == ENDS:
                return None
            raise

    def _own(self, client: int, request: StageRequest, values: Callable[[], Grid]) -> SecureClient:
        """The client as it is at this stage."""
        round, signing = secure_round(request), self._keys.signing(client)
        if request.stage != "advertise":
            return SecureClient.restore(
                request.state,
                client,
                signing_key=signing,
                pinned=self._keys,
                parameters=self.parameters,
                round=round,
                values=values,
                roster=request.roster,
            )
        return SecureClient(
            client,
            signing_key=signing,
            pinned=self._keys,
            parameters=self.parameters,
            round=round,
            values=values,
            seed=simulated_seed(self.key, client, round.round, round.context(self.parameters)),
        )


def secure_round(request: StageRequest) -> RoundId:
    """Which round of which run a request is about: one of another plan, or from other inputs, is another round."""
    return RoundId(run=request.plan, round=request.round, plan=request.plan.encode() + request.inputs)


class _Trained(Mapping[int, Grid]):
    """What each client of a chunk would send without masks; they train together, so many at a time.

    Args:
        runtime: Trains.
        messages: To each client.
        contexts: In the same order.
    """

    def __init__(
        self, runtime: ClientRuntime, messages: Mapping[int, Message], contexts: Sequence[Context]
    ) -> None:
        self._runtime, self._messages = runtime, messages
        self._contexts = dict(zip(messages, contexts, strict=True))
        self._ready: dict[int, Grid] = {}
        self._waiting = list(messages)
        require_inputs(runtime, messages)

    def __getitem__(self, client: int) -> Grid:
        if client not in self._ready:
            place = self._waiting.index(client)
            together = self._waiting[place : place + _TOGETHER]
            try:
                self._train(together)
            except Exception:
                if len(together) == 1:
                    raise
                self._train([client])  # only one of them may be at fault
        return self._ready.pop(client)

    def _train(self, clients: Sequence[int]) -> None:
        messages = [self._messages[client] for client in clients]
        self._ready |= self._runtime.shares(messages, [self._contexts[client] for client in clients])

    def __iter__(self) -> Iterator[int]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)


def require_inputs(runtime: ClientRuntime, messages: Mapping[int, Message]) -> None:
    """Hold the model that came to the digest under which the round began.

    Raises:
        PlanViolation: It is another one: its updates would meet the noise of the announced one.
    """
    seen: set[int] = set()
    for message in messages.values():
        request, arrays = read_stage(message), message.content["arrays"]
        if request is None or id(arrays) in seen:
            continue
        seen.add(id(arrays))
        found = input_digest(read_instruction(message, runtime.trainer.layout).parameters, runtime.plan)
        if found != request.inputs:
            raise PlanViolation(
                "the model that the server sent is not the one that the round of secure aggregation began with"
            )


def _none(client: int) -> Grid:
    raise EngineError(f"client {client} has trained nothing at this stage")
