"""The codec of a round of secure aggregation: one stage in one Flower message, bytes that neither side trusts inside.

Every stage is a message of the type ``"train"``, so that whoever carries, counts or refuses those does so here too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedsafe.aggregation.secure import ENDS
from fedsafe.errors import EngineError
from fedsafe.federation.arrays import values_of

__all__ = [
    "ENDS",
    "SECURE",
    "TRAINS",
    "StageReply",
    "StageRequest",
    "read_stage",
    "read_stage_reply",
    "stage_content",
    "stage_reply",
    "with_stage",
]

SECURE = "secure"
# The stage at which a client trains, and whose messages carry the model.
TRAINS = "mask"

_NOT_SENT = (KeyError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """What a client is asked for.

    Args:
        stage: One of ``fedsafe.aggregation.secure.STAGES``, or ``ENDS``.
        round: The round, from 1.
        plan: Hash of the privacy plan that the server follows.
        inputs: Digest of what the round's releases depend on besides records; the model that comes later must have it.
        said: The server's message of the protocol; empty where it says nothing yet.
        state: What a simulated client has kept; a real one keeps its own, and sends none.
        roster: The protocol's roster, which simulated clients keep once for all of them.
    """

    stage: str
    round: int
    plan: str
    inputs: bytes
    said: bytes = b""
    state: bytes = b""
    roster: bytes = b""


@dataclass(frozen=True, kw_only=True)
class StageReply:
    """What comes back from one client, or from a chunk of them.

    Args:
        said: The clients' messages of the protocol.
        states: What simulated clients keep until they are asked again.
        failures: Clients that failed or refused, and are lost to the round.
        error: What the first of them said, or nothing.
        cpu_seconds: Processor time that it took.
    """

    said: Mapping[int, bytes]
    states: Mapping[int, bytes]
    failures: int
    error: str
    cpu_seconds: float


def with_stage(content: RecordDict, request: StageRequest) -> RecordDict:
    """A message's content with a stage in it; its other records stay shared.

    Args:
        content: Of an instruction where the client trains, else of nothing.
        request: What the client is asked for.
    """
    return RecordDict(
        {
            **content,
            SECURE: ConfigRecord(
                {
                    "stage": request.stage,
                    "round": request.round,
                    "plan": request.plan,
                    "inputs": request.inputs,
                    "said": request.said,
                    "state": request.state,
                    # Real clients, which keep their own, know no such part of a message.
                    **({"roster": request.roster} if request.roster else {}),
                }
            ),
        }
    )


def read_stage(message: Message) -> StageRequest | None:
    """The stage that a message asks for; None for a message of another kind.

    Raises:
        EngineError: It is one, and not well-formed.
    """
    record = message.content.config_records.get(SECURE)
    if record is None:
        return None
    try:
        request = StageRequest(
            stage=cast("str", record["stage"]),
            round=cast("int", record["round"]),
            plan=cast("str", record["plan"]),
            inputs=cast("bytes", record["inputs"]),
            said=cast("bytes", record["said"]),
            state=cast("bytes", record.get("state", b"")),
            roster=cast("bytes", record.get("roster", b"")),
        )
    except KeyError as error:
        raise EngineError(f"a message of secure aggregation lacks {error}") from error
    texts, numbers = (
        (request.stage, request.plan),
        (request.inputs, request.said, request.state, request.roster),
    )
    if (
        not all(isinstance(value, str) for value in texts)
        or not all(isinstance(value, bytes) for value in numbers)
        or type(request.round) is not int
    ):
        raise EngineError("a message of secure aggregation has values of other types")
    return request


def stage_reply(reply: StageReply, to: Message) -> Message:
    """A reply as a Flower message."""
    return Message(stage_content(reply), reply_to=to)


def stage_content(reply: StageReply) -> RecordDict:
    """The content of a reply."""
    arrays = ArrayRecord(
        {
            "clients": Array(np.array(sorted(reply.said), np.int64)),
            **_joined("said", reply.said),
            **_joined("states", reply.states if reply.states else dict.fromkeys(reply.said, b"")),
        }
    )
    info = MetricRecord({"failures": reply.failures, "cpu-seconds": reply.cpu_seconds})
    return RecordDict({SECURE: arrays, "info": info, "error": ConfigRecord({"text": reply.error})})


def read_stage_reply(message: Message) -> StageReply | None:
    """The reply that a message carries; None for one that only carries an error.

    Raises:
        EngineError: It carries neither.
    """
    if message.has_error():
        return None
    try:
        arrays = {name: values_of(array) for name, array in message.content.array_records[SECURE].items()}
        info = message.content.metric_records["info"]
        clients = [int(client) for client in arrays["clients"].tolist()]
        return StageReply(
            said=dict(zip(clients, _cut(arrays, "said", len(clients)), strict=True)),
            states=dict(zip(clients, _cut(arrays, "states", len(clients)), strict=True)),
            failures=int(cast("int", info["failures"])),
            error=str(message.content.config_records["error"]["text"]),
            cpu_seconds=float(cast("float", info["cpu-seconds"])),
        )
    except _NOT_SENT as error:
        raise EngineError(
            f"a client sent something else than its part of a secure sum ({type(error).__name__})"
        ) from error


def _joined(name: str, pieces: Mapping[int, bytes]) -> dict[str, Array]:
    ordered = [pieces[client] for client in sorted(pieces)]
    ends = np.cumsum([len(piece) for piece in ordered], dtype=np.int64)
    return {name: Array(np.frombuffer(b"".join(ordered), np.uint8)), f"{name} ends": Array(ends)}


def _cut(arrays: Mapping[str, NDArray[np.generic]], name: str, count: int) -> Iterator[bytes]:
    whole, ends = arrays[name], arrays[f"{name} ends"]
    if whole.dtype != np.uint8 or whole.ndim != 1 or ends.shape != (count,) or ends.dtype != np.int64:
        raise ValueError(name)
    bounds = [0, *(int(end) for end in ends)]
    if bounds[-1] != len(whole) or any(after < before for before, after in pairwise(bounds)):
        raise ValueError(name)
    return (whole[start:end].tobytes() for start, end in pairwise(bounds))
